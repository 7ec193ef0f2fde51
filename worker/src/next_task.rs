//! The next task of one that repeats, made when it is completed.

use sqlx::PgConnection;
use todo_events::{BoxFuture, Consumer, Event, EventType, HandleError, Topic};
use todo_tasks::{Error, task};

/// Makes the next task of each completed one that repeats. A rebuild makes none twice: a task has at most one next.
#[derive(Clone, Copy, Debug)]
pub struct NextTask;

impl NextTask {
    pub(crate) const NAME: &str = "recurring";
}

impl Consumer for NextTask {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn topics(&self) -> &'static [Topic] {
        &[Topic::TaskEvents]
    }

    fn handle<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move {
            for event in events.iter().filter(|event| event.event_type == EventType::Completed) {
                task::make_next(transaction, &event.data, event.traceparent.as_deref())
                    .await
                    .map_err(to_handle_error)?;
            }
            Ok(())
        })
    }
}

/// What a failure of the domain means for the event: the database's may pass, what is invalid stays so.
pub(crate) fn to_handle_error(error: Error) -> HandleError {
    match error {
        Error::Database(error) => error.into(),
        Error::Invalid(_) => HandleError::permanent(error),
        other => HandleError::failed(other),
    }
}
