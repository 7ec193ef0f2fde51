//! Fields that nobody knows are refused where a user writes them.
//!
//! The specifications of `todo-recurrence` ignore such fields, because a newer version may have stored more than this
//! one knows. In what a user writes, an ignored field is a mistake that nobody hears of.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::Value;
use todo_recurrence::{RepeatSpec, ScheduleSpec};

/// Reads a schedule's rule.
pub(crate) fn schedule<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ScheduleSpec, D::Error> {
    read(Value::deserialize(deserializer)?, ScheduleSpec::FIELDS).map_err(D::Error::custom)
}

/// Reads a task's recurrence.
pub(crate) fn recurrence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RepeatSpec>, D::Error> {
    let value: Option<Value> = Option::deserialize(deserializer)?;
    value
        .map(|value| read(value, RepeatSpec::FIELDS))
        .transpose()
        .map_err(D::Error::custom)
}

fn read<T: DeserializeOwned>(value: Value, known: &[&str]) -> Result<T, String> {
    let Value::Object(fields) = &value else {
        return Err(format!("must be an object with the fields {}", known.join(", ")));
    };
    if let Some(unknown) = fields.keys().find(|field| !known.contains(&field.as_str())) {
        return Err(format!(
            "unknown field `{unknown}`, expected one of {}",
            known.join(", ")
        ));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use crate::schedule::ScheduleInput;
    use crate::task::TaskInput;

    #[test]
    fn a_misspelt_field_is_refused_and_the_known_ones_are_named() {
        let task = serde_json::json!({"title": "t", "recurrence": {"every": "1d", "mod": "from_due"}});
        let error = serde_json::from_value::<TaskInput>(task)
            .expect_err("a misspelt field")
            .to_string();
        assert!(
            error.contains("unknown field `mod`") && error.contains("month_end"),
            "{error}"
        );

        let schedule = serde_json::json!({
            "name": "n", "schedule": {"cron": "0 9 * * *", "tz": "UTC"}, "template": {"title": "t"},
        });
        let error = serde_json::from_value::<ScheduleInput>(schedule)
            .expect_err("a misspelt field")
            .to_string();
        assert!(
            error.contains("unknown field `tz`") && error.contains("time_zone"),
            "{error}"
        );
    }
}
