//! The audit log: one row for each event.

use jiff::Timestamp;
use sqlx::PgConnection;
use todo_events::{BoxFuture, Consumer, Event, HandleError, Topic};
use todo_tasks::audit;

use crate::next_task::to_handle_error;

/// Records each event in the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Audit;

impl Audit {
    pub(crate) const NAME: &str = "audit";
}

impl Consumer for Audit {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    /// One topic, because a broker keeps order only within one: the log tells a task's story as it was.
    fn topics(&self) -> &'static [Topic] {
        &[Topic::TaskEvents]
    }

    fn handle<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move { audit::record(transaction, events).await.map_err(to_handle_error) })
    }

    fn forget<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        since: Timestamp,
    ) -> BoxFuture<'a, Result<(), HandleError>> {
        Box::pin(async move { audit::forget(transaction, since).await.map_err(to_handle_error) })
    }
}
