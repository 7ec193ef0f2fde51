//! What an unquoted YAML scalar means to `kubectl`, a reader of YAML 1.1: `yes` is a boolean and `010` is eight.

use serde_json::{Number, Value};

/// What an unquoted scalar is to `kubectl`.
pub(crate) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => return Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let radix = |digits: &str, radix| {
        i64::from_str_radix(digits, radix)
            .ok()
            .filter(|_| !digits.starts_with(['+', '-']))
    };
    let with_sign = |value: i64| if text.starts_with('-') { -value } else { value };
    let prefixed = match unsigned.as_bytes() {
        [b'0', b'x', ..] => Some(radix(&unsigned[2..], 16)),
        [b'0', b'o', ..] => Some(radix(&unsigned[2..], 8)),
        [b'0', b'b', ..] => Some(radix(&unsigned[2..], 2)),
        [b'0', b'0'..=b'7', ..] if unsigned.bytes().all(|byte| byte.is_ascii_digit()) => Some(radix(&unsigned[1..], 8)),
        _ => None,
    };
    if let Some(value) = prefixed {
        return value.map(|value| Number::from(with_sign(value)));
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let digits = text.strip_prefix('+').unwrap_or(text);
        return digits
            .parse::<i64>()
            .ok()
            .map(Number::from)
            .or_else(|| digits.parse().ok().and_then(Number::from_f64));
    }
    let is_float = unsigned
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    unsigned
        .parse::<f64>()
        .ok()
        .filter(|_| is_float)
        .and_then(|value| Number::from_f64(if text.starts_with('-') { -value } else { value }))
}
