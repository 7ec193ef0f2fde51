//! Narrowing a `PromQL` expression to the series of one platform.
//!
//! The project's own metrics, and those of the sidecars, are known by how their names begin; each gets a matcher more.
//! Enough for the expressions of `config/observability`, which tests hold this to with a real parser.

/// How the names of metrics begin that a platform's pods show.
const OURS: [&str; 3] = ["todo_", "http_request", "dapr_"];

/// `expression` about those series alone that `matchers` fit, such as `job="todo/acme"`.
pub(super) fn narrow(expression: &str, matchers: &str) -> String {
    let mut narrowed = String::with_capacity(expression.len() + matchers.len());
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let (text, after) = rest.split_at(end_of_text(rest));
            narrowed.push_str(text);
            rest = after;
        } else if is_word(first) {
            let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            narrowed.push_str(word);
            rest = after;
            if !OURS.iter().any(|beginning| word.starts_with(beginning)) {
                continue;
            }
            narrowed.push('{');
            narrowed.push_str(matchers);
            match after.strip_prefix('{') {
                Some(others) => {
                    if !others.trim_start().starts_with('}') {
                        narrowed.push_str(", ");
                    }
                    rest = others;
                }
                None => narrowed.push('}'),
            }
        } else {
            narrowed.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    narrowed
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | ':' | '$')
}

/// Where a text in quotes ends, the quotes included.
fn end_of_text(text: &str) -> usize {
    let mut is_escaped = false;
    for (place, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return place + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::narrow;

    #[test]
    fn each_of_our_metrics_gets_the_matcher_and_nothing_else_does() {
        let cases = [
            ("todo_a", r#"todo_a{job="x"}"#),
            ("max by (job) (todo_a) > 60", r#"max by (job) (todo_a{job="x"}) > 60"#),
            (
                r#"rate(todo_a{b="todo_c"}[5m])"#,
                r#"rate(todo_a{job="x", b="todo_c"}[5m])"#,
            ),
            ("todo_a{}", r#"todo_a{job="x"}"#),
            (r#"up{a="\"todo_b"}"#, r#"up{a="\"todo_b"}"#),
            (
                "kafka_lag + http_requests_total",
                r#"kafka_lag + http_requests_total{job="x"}"#,
            ),
        ];
        for (expression, expected) in cases {
            assert_eq!(narrow(expression, r#"job="x""#), expected);
        }
    }
}
