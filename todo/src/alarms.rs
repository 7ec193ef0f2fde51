//! Dapr's jobs as alarm clocks for reminders.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use todo_dapr::client::{Job, OnFailure, When};
use todo_dapr::{Client, JobHost, Secret};
use todo_events::{BoxFuture, Waker};
use todo_worker::{AlarmClock, AlarmError};

/// Sets and removes jobs of the sidecar's scheduler.
#[derive(Debug)]
pub(crate) struct DaprJobs {
    client: Client,
}

impl DaprJobs {
    /// How long a call may take. Without a scheduler the sidecar lets it hang for half a minute.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Over this sidecar. Each call is made once: who makes it has its own way to make it again.
    pub(crate) fn new(settings: todo_dapr::Settings) -> Result<Self, todo_dapr::Error> {
        let settings = todo_dapr::Settings {
            timeout: Self::PATIENCE,
            attempts: 1,
            ..settings
        };
        Client::new(settings).map(|client| Self { client })
    }
}

impl AlarmClock for DaprJobs {
    fn set<'a>(&'a self, name: &'a str, at: Timestamp) -> BoxFuture<'a, Result<(), AlarmError>> {
        Box::pin(async move {
            let job = Job {
                when: When::At(at),
                data: Value::Null,
                overwrite: true,
                // Whoever is not there to be woken looks when it comes back.
                on_failure: Some(OnFailure::Drop),
            };
            Ok(self.client.set_job(name, &job).await?)
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), AlarmError>> {
        Box::pin(async move { Ok(self.client.delete_job(name).await?) })
    }
}

/// The route that the scheduler calls when a job is due.
pub(crate) fn host(token: Option<Secret>, waker: &Waker) -> JobHost {
    let waker = waker.clone();
    JobHost::new(token, Arc::new(move |name| todo_worker::ring(&waker, name)))
}
