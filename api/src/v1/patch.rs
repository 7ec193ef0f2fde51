//! The shapes of merge patches in the OpenAPI document: those of what they change, with nothing required.

use std::borrow::Cow;

use todo_tasks::schedule::ScheduleInput;
use todo_tasks::task::TaskInput;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The fields of a rule of which exactly one is given.
pub(super) const RULES: &[&str] = &["cron", "rrule", "every"];

/// A change of a task.
pub(super) struct TaskPatch;

/// A change of a schedule.
pub(super) struct SchedulePatch;

fn without_required(schema: RefOr<Schema>, description: &str) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Object(mut object)) => {
            object.required.clear();
            object.description = Some(description.to_owned());
            Schema::Object(object).into()
        }
        other => other,
    }
}

impl PartialSchema for TaskPatch {
    fn schema() -> RefOr<Schema> {
        without_required(
            TaskInput::schema(),
            "What is absent stays as it is, what is null takes its default.",
        )
    }
}

impl ToSchema for TaskPatch {
    fn name() -> Cow<'static, str> {
        "TaskPatch".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        TaskInput::schemas(schemas);
    }
}

impl PartialSchema for SchedulePatch {
    fn schema() -> RefOr<Schema> {
        without_required(
            ScheduleInput::schema(),
            "What is absent stays as it is, what is null takes its default.",
        )
    }
}

impl ToSchema for SchedulePatch {
    fn name() -> Cow<'static, str> {
        "SchedulePatch".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ScheduleInput::schemas(schemas);
    }
}
