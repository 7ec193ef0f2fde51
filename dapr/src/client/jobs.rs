//! Jobs of Dapr's scheduler. A job may fire late, twice, or all missed times at once: whoever is called by it
//! has to look at its own table.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, Client};
use crate::{Error, Refusal};

/// When a job fires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Once, at this instant.
    At(Timestamp),
    /// By a schedule of the scheduler's own: six fields, seconds first, or `@every 1m`.
    Schedule(String),
}

/// What the sidecar does when this app fails a job's call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing: that time is lost.
    Drop,
    /// It calls again.
    Retry {
        /// The wait between calls.
        interval: Duration,
        /// How often; `None` for ever.
        max_retries: Option<u32>,
    },
}

/// A job to be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// When it fires.
    pub when: When,
    /// The body of the call.
    pub data: Value,
    /// Whether it replaces a job of the same name. Without it, one that exists is [`Error::JobExists`].
    pub overwrite: bool,
    /// What follows a failed call. The scheduler's own default is three retries, a second apart.
    pub on_failure: Option<OnFailure>,
}

/// A job as the scheduler has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobState {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// By which schedule it fires.
    pub schedule: Option<String>,
    /// When it fires, or first fires, as it was given.
    pub due_time: Option<String>,
    /// The body of the call.
    #[serde(default)]
    pub data: Value,
}

impl Job {
    fn to_json(&self) -> Value {
        let mut job = json!({"data": self.data, "overwrite": self.overwrite});
        match &self.when {
            When::At(instant) => job["dueTime"] = json!(instant.to_string()),
            When::Schedule(schedule) => job["schedule"] = json!(schedule),
        }
        match &self.on_failure {
            None => {}
            Some(OnFailure::Drop) => job["failurePolicy"] = json!({"drop": {}}),
            Some(OnFailure::Retry { interval, max_retries }) => {
                // A Protobuf duration.
                let interval = format!("{}.{:09}s", interval.as_secs(), interval.subsec_nanos());
                job["failurePolicy"] = json!({"constant": {"interval": interval}});
                if let Some(max_retries) = max_retries {
                    job["failurePolicy"]["constant"]["maxRetries"] = json!(max_retries);
                }
            }
        }
        job
    }
}

impl Client {
    /// Sets a job. Names of lower-case letters, digits and `-` are good for every version.
    pub async fn set_job(&self, name: &str, job: &Job) -> Result<(), Error> {
        let body = job.to_json();
        let answer = self
            .job_call("job_set", Method::POST, name, job.overwrite, Some(&body))
            .await?;
        if answer.status == StatusCode::CONFLICT {
            return Err(Error::JobExists(answer.refusal()));
        }
        answer.success().map(drop)
    }

    /// The job of this name, or `None`.
    pub async fn job(&self, name: &str) -> Result<Option<JobState>, Error> {
        let answer = self.job_call("job_get", Method::GET, name, true, None).await?;
        if is_missing(&answer.refusal()) {
            return Ok(None);
        }
        let mut state: JobState = answer.success()?.json()?;
        // Protobuf's `Any` around a value that JSON has anyway.
        if state.data.get("@type").is_some()
            && let Some(value) = state.data.get_mut("value")
        {
            state.data = value.take();
        }
        Ok(Some(state))
    }

    /// Deletes the job of this name, if there is one.
    pub async fn delete_job(&self, name: &str) -> Result<(), Error> {
        let answer = self.job_call("job_delete", Method::DELETE, name, true, None).await?;
        if is_missing(&answer.refusal()) {
            return Ok(());
        }
        answer.success().map(drop)
    }

    /// Calls on the stable path, which Dapr has from 1.18, or else on the alpha one; and remembers which.
    async fn job_call(
        &self,
        call_name: &'static str,
        method: Method,
        name: &str,
        idempotent: bool,
        body: Option<&Value>,
    ) -> Result<Answer, Error> {
        const STABLE: &str = "v1.0";
        const ALPHA: &str = "v1.0-alpha1";
        let alpha_first = self.alpha_jobs.load(Ordering::Relaxed);
        let versions = if alpha_first { [ALPHA, STABLE] } else { [STABLE, ALPHA] };
        let mut unknown = None;
        for version in versions {
            let mut call = Call::new(call_name, method.clone(), &[version, "jobs", name]).idempotent(idempotent);
            call.is_final = is_missing;
            if let Some(body) = body {
                call = call.json(body)?;
            }
            let answer = self.send(&call).await?;
            if !answer.refusal().is_unknown_path() {
                self.alpha_jobs.store(version == ALPHA, Ordering::Relaxed);
                return Ok(answer);
            }
            unknown = Some(answer.refusal());
        }
        Err(unknown.map_or_else(
            || Error::UnexpectedAnswer("no path for jobs".to_owned()),
            Error::Refused,
        ))
    }
}

/// Dapr says 500 for a job that is not there, and why only in the text.
fn is_missing(refusal: &Refusal) -> bool {
    refusal.code.is_some()
        && (refusal.status == StatusCode::NOT_FOUND
            || (refusal.status == StatusCode::INTERNAL_SERVER_ERROR && refusal.message.contains("job not found")))
}
