//! YAML text to plain values that remember where they stood.
//!
//! Scalars mean what they mean to `kubectl` (a YAML 1.1 reader: a bare `yes` is a boolean), so that one file means the
//! same in both places. Kept small on purpose: no merge keys, no tags but `!!str`, aliases only within a bound. What
//! the values must be is the schema's business.

use std::collections::HashMap;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput};

use crate::scalar::plain;

/// A position in a file; both counts begin at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Where a field is: its name and its value. For list items both are the item.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: Position,
    value: Position,
}

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) value: Value,
    start: Position,
    places: HashMap<String, Place>,
}

impl Document {
    /// Where the value at `path` stands, or of the nearest thing around it that was written.
    pub(crate) fn value_position(&self, path: &str) -> Position {
        match self.place(path) {
            Some((place, true)) => place.value,
            Some((place, false)) => place.name,
            None => self.start,
        }
    }

    /// Where the name of the field at `path` stands.
    pub(crate) fn name_position(&self, path: &str) -> Position {
        self.place(path).map_or(self.start, |(place, _)| place.name)
    }

    /// The nearest place, and whether it is a scalar of that very path.
    fn place(&self, path: &str) -> Option<(Place, bool)> {
        let mut at = path;
        loop {
            if let Some(place) = self.places.get(at) {
                let scalar = at == path && place.value.line == place.name.line;
                return Some((*place, scalar));
            }
            at = path::parent(at)?;
        }
    }
}

/// Paths as messages print them: `spec.template.reminders[0].before`, `metadata.labels[example.com/team]`.
pub(crate) mod path {
    pub(crate) fn field(parent: &str, name: &str) -> String {
        if parent.is_empty() {
            name.to_owned()
        } else {
            format!("{parent}.{name}")
        }
    }

    pub(crate) fn item(parent: &str, index: usize) -> String {
        format!("{parent}[{index}]")
    }

    pub(crate) fn entry(parent: &str, name: &str) -> String {
        format!("{parent}[{name}]")
    }

    pub(crate) fn parent(path: &str) -> Option<&str> {
        path.rfind(['.', '[']).map(|end| &path[..end])
    }
}

/// Why a file cannot be read, and where.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) at: Position,
    pub(crate) path: String,
    pub(crate) message: String,
}

/// How deep values may nest; the resource types stay below 12.
const DEEPEST: usize = 48;
/// How many values one document may hold, aliases counted as often as they are used.
const MOST_VALUES: usize = 50_000;

/// The documents of `text` that are not empty, up to the first that cannot be read.
pub(crate) fn documents(text: &str) -> (Vec<Document>, Option<Refused>) {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        values: 0,
    };
    let mut documents = Vec::new();
    loop {
        match reader.document() {
            Ok(Some(document)) if document.value.is_null() => {}
            Ok(Some(document)) => documents.push(document),
            Ok(None) => return (documents, None),
            Err(refused) => return (documents, Some(refused)),
        }
    }
}

struct Reader<'text> {
    parser: Parser<'text, StrInput<'text>>,
    anchors: HashMap<usize, Value>,
    values: usize,
}

type Read<T> = Result<T, Refused>;

impl<'text> Reader<'text> {
    fn next(&mut self) -> Read<Option<(Event<'text>, Span)>> {
        self.parser.next_event().transpose().map_err(|error| syntax(&error))
    }

    fn document(&mut self) -> Read<Option<Document>> {
        self.anchors.clear();
        self.values = 0;
        while let Some((event, span)) = self.next()? {
            if event.is_node() {
                let mut document = Document {
                    value: Value::Null,
                    start: position(span),
                    places: HashMap::new(),
                };
                document.value = self.value(event, span, "", 0, &mut document.places)?;
                return Ok(Some(document));
            }
        }
        Ok(None)
    }

    fn required(&mut self, at: Position, path: &str) -> Read<(Event<'text>, Span)> {
        self.next()?
            .ok_or_else(|| refuse(at, path, "the file ends in the middle; close what was opened"))
    }

    fn value(
        &mut self,
        event: Event<'text>,
        span: Span,
        path: &str,
        depth: usize,
        places: &mut HashMap<String, Place>,
    ) -> Read<Value> {
        let at = position(span);
        self.values += 1;
        if depth > DEEPEST {
            return Err(refuse(at, path, &format!("nested too deep; allowed: {DEEPEST} levels")));
        }
        if self.values > MOST_VALUES {
            return Err(refuse(
                at,
                path,
                &format!("too many values; allowed: {MOST_VALUES} in a document"),
            ));
        }
        let tag = event.tag().map(|tag| tag.core_suffix().unwrap_or("").to_owned());
        let is_text = tag.as_deref() == Some("str");
        if tag.is_some_and(|tag| !["str", "map", "seq"].contains(&tag.as_str())) {
            return Err(refuse(
                at,
                path,
                "a tag is not allowed here; write the value without it",
            ));
        }
        let anchor = event.anchor_id();
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) if !is_text => plain(&text),
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::SequenceStart(..) => self.sequence(path, depth, places)?,
            Event::MappingStart(..) => self.mapping(path, depth, places)?,
            Event::Alias(id) => self.alias(id, at, path)?,
            _ => return Err(refuse(at, path, "a value is missing here")),
        };
        if let Some(id) = anchor {
            self.anchors.insert(id, value.clone());
        }
        Ok(value)
    }

    fn sequence(&mut self, parent: &str, depth: usize, places: &mut HashMap<String, Place>) -> Read<Value> {
        let mut items = Vec::new();
        loop {
            let here = path::item(parent, items.len());
            let (event, span) = self.required(Position { line: 1, column: 1 }, &here)?;
            if event == Event::SequenceEnd {
                return Ok(Value::Array(items));
            }
            let at = position(span);
            places.insert(here.clone(), Place { name: at, value: at });
            items.push(self.value(event, span, &here, depth + 1, places)?);
        }
    }

    fn mapping(&mut self, parent: &str, depth: usize, places: &mut HashMap<String, Place>) -> Read<Value> {
        let mut fields = Map::new();
        loop {
            let (event, span) = self.required(Position { line: 1, column: 1 }, parent)?;
            if event == Event::MappingEnd {
                return Ok(Value::Object(fields));
            }
            let name = position(span);
            let Event::Scalar(key, ..) = event else {
                return Err(refuse(name, parent, "a field's name must be a plain text"));
            };
            let is_map = parent.ends_with(".labels") || parent.ends_with(".annotations");
            let here = if is_map {
                path::entry(parent, &key)
            } else {
                path::field(parent, &key)
            };
            if fields.contains_key(key.as_ref()) {
                return Err(refuse(name, &here, "written twice; keep one of them"));
            }
            let (event, span) = self.required(name, &here)?;
            places.insert(
                here.clone(),
                Place {
                    name,
                    value: position(span),
                },
            );
            let value = self.value(event, span, &here, depth + 1, places)?;
            fields.insert(key.into_owned(), value);
        }
    }

    fn alias(&mut self, id: usize, at: Position, path: &str) -> Read<Value> {
        let Some(value) = self.anchors.get(&id).cloned() else {
            return Err(refuse(
                at,
                path,
                "an alias within the value that it names; write the value out",
            ));
        };
        self.values += size(&value);
        if self.values > MOST_VALUES {
            return Err(refuse(
                at,
                path,
                &format!("too many values; allowed: {MOST_VALUES} in a document"),
            ));
        }
        Ok(value)
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

fn position(span: Span) -> Position {
    Position {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

fn refuse(at: Position, path: &str, message: &str) -> Refused {
    Refused {
        at,
        path: path.to_owned(),
        message: message.to_owned(),
    }
}

fn syntax(error: &ScanError) -> Refused {
    let at = Position {
        line: error.marker().line().max(1),
        column: error.marker().col() + 1,
    };
    let what = error.info().replace('\n', " ");
    refuse(
        at,
        "",
        &format!("not YAML: {what}; check indentation, quotes and brackets here and on the line before"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Document {
        let (mut documents, refused) = documents(text);
        assert!(refused.is_none(), "{refused:?}");
        assert_eq!(documents.len(), 1);
        documents.remove(0)
    }

    #[test]
    fn scalars_mean_what_they_mean_to_kubectl() {
        let text = "[yes, 'yes', Off, 17:00, 2026-01-01, 010, 0x1f, 1_0, 1.5, -3, +4, 1e3, ~, !!str 5, 1.2.3, v1, .inf, 99999999999999999999]";
        let expected = json!([
            true,
            "yes",
            false,
            "17:00",
            "2026-01-01",
            8,
            31,
            "1_0",
            1.5,
            -3,
            4,
            1000.0,
            null,
            "5",
            "1.2.3",
            "v1",
            ".inf",
            1e20
        ]);
        assert_eq!(one(text).value, expected);
    }

    #[test]
    fn each_value_knows_where_it_stood() {
        let document = one("# first\nspec:\n  a: 1\n  list:\n    - x: {deep: 2}\n");
        assert_eq!(document.value_position("spec.a"), Position { line: 3, column: 6 });
        assert_eq!(document.name_position("spec.a"), Position { line: 3, column: 3 });
        assert_eq!(
            document.value_position("spec.list[0].x.deep"),
            Position { line: 5, column: 17 }
        );
        assert_eq!(document.value_position("spec.list"), Position { line: 4, column: 3 });
        // What is not there is shown at what is around it.
        assert_eq!(
            document.value_position("spec.list[0].x.other"),
            Position { line: 5, column: 7 }
        );
        assert_eq!(
            document.value_position("metadata.name"),
            Position { line: 2, column: 1 }
        );
    }

    #[test]
    fn what_could_eat_memory_is_refused() {
        let level = |level: usize| {
            format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{}", level - 1); 10].join(", ")
            )
        };
        let bomb = format!(
            "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n{}",
            (1..8).map(level).collect::<String>()
        );
        let (_, refused) = documents(&bomb);
        assert!(refused.expect("refused").message.contains("too many values"));

        let (_, refused) = documents(&format!("a: {}1{}", "[".repeat(100), "]".repeat(100)));
        assert!(refused.expect("refused").message.contains("nested too deep"));
    }

    #[test]
    fn aliases_stand_for_their_value() {
        assert_eq!(one("a: &x {b: 1}\nc: *x").value, json!({"a": {"b": 1}, "c": {"b": 1}}));
        let (_, refused) = documents("a: &x [*x]");
        assert!(refused.is_some());
    }
}
