//! One operator at a time.
//!
//! Here: the election over a `Lease` of the API server ([`Election`]), what it means to lead just now ([`Leadership`]),
//! and the fence that lets no write pass while another may lead ([`Fence`]). Not here: what a leader does.
//!
//! Why there are never two. Only the API server says who holds the lease, and each write of it names the version that it
//! changes, so of two that want it one gets it. A contender takes it from a holder only after it has itself seen no change
//! for the whole duration, by its own steady clock; no one reads another's. A holder counts its own time from *before* it
//! sent the renewal, and for less than the duration: so when a contender may take it, the holder has stopped, also one
//! that was frozen and wakes, for it looks at the clock before each write and not at a memory of having led.

mod fence;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::fence::{Fence, Fenced, NotLeading};
use crate::error::{Call, Error, Result};
use crate::names::MANAGER;

/// How an election is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The namespace of the lease: the operator's own.
    pub namespace: String,
    /// Its name, the same for all who contend.
    pub name: String,
    /// Who this is: another one for each start of each process. See [`identity`].
    pub identity: String,
    /// For how long a lease that is not renewed keeps others out. In whole seconds.
    pub duration: Duration,
    /// For how long after its last renewal a holder leads. Less than `duration`.
    pub renew_deadline: Duration,
    /// How often it renews, and how often others look. Less than `renew_deadline`.
    pub renew_every: Duration,
}

impl Settings {
    /// With the times that most operators have: 15 s, 10 s, 2 s.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            renew_every: Duration::from_secs(2),
        }
    }
}

/// A name for this start of this process, which no other ever had: of the pod's name, and something drawn.
pub fn identity(pod: &str) -> String {
    format!("{pod}_{:016x}", rand::random::<u64>())
}

/// How an election ended for a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop. Where it led, the next one may begin at once.
    Stopped,
    /// It led, and could not renew in time or saw another. The process has to end: what it knows of the cluster may be
    /// another's work by now.
    Lost,
}

/// Whether this process leads.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Term>);

#[derive(Debug)]
struct Term {
    /// Until when it leads, by this machine's steady clock.
    until: Mutex<Option<Instant>>,
    leads: watch::Sender<bool>,
}

impl Leadership {
    fn new() -> Self {
        Self(Arc::new(Term {
            until: Mutex::default(),
            leads: watch::Sender::new(false),
        }))
    }

    /// That of a process that is alone because it is told so, and holds no election.
    pub fn undisputed() -> Self {
        let leadership = Self::new();
        // Some hundred years.
        leadership.extend(Instant::now() + Duration::from_secs(u64::from(u32::MAX)));
        leadership
    }

    /// Whether it leads at this instant.
    pub fn is_leading(&self) -> bool {
        let until = *self.0.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Waits until it leads.
    pub async fn begun(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.leads.subscribe().wait_for(|leads| *leads).await;
    }

    /// Waits until it leads no more. At once when it does not.
    pub async fn over(&self) {
        let _ = self.0.leads.subscribe().wait_for(|leads| !leads).await;
    }

    /// A layer for a client, through which writes pass only while it leads.
    pub fn fence(&self) -> Fence {
        Fence::new(self.clone())
    }

    fn extend(&self, until: Instant) {
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.0.leads.send_replace(true);
    }

    fn end(&self) {
        *self.0.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.leads.send_replace(false);
    }
}

/// One contender.
pub struct Election {
    api: Api<Lease>,
    settings: Settings,
    leadership: Leadership,
    seen: Option<Seen>,
}

impl fmt::Debug for Election {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Election")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A state of the lease that another left, and when this process saw it first.
struct Seen {
    version: String,
    first: Instant,
}

/// The lease as this process holds it.
struct Held {
    lease: Lease,
    /// From when the time counts: before the request that made it so was sent.
    since: Instant,
}

impl Election {
    /// # Panics
    ///
    /// When the times of `settings` are not in order, which would allow two leaders.
    pub fn new(client: Client, settings: Settings) -> Self {
        assert!(
            settings.renew_every < settings.renew_deadline && settings.renew_deadline < settings.duration,
            "a lease is renewed more often than it may be late, and may be late for less than it keeps others out"
        );
        Self {
            api: Api::namespaced(client, &settings.namespace),
            settings,
            leadership: Leadership::new(),
            seen: None,
        }
    }

    /// What tells whether this process leads.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Contends, leads, and renews, until `stop` or until the lease is lost. Stop what writes before `stop`: with it the
    /// next one may begin.
    pub async fn run(mut self, stop: CancellationToken) -> Ended {
        let Some(held) = stop.run_until_cancelled(self.contend()).await else {
            return Ended::Stopped;
        };
        tracing::info!(identity = self.settings.identity, "leads");
        let ended = self.lead(held, &stop).await;
        self.leadership.end();
        ended
    }

    async fn contend(&mut self) -> Held {
        loop {
            let patience = self.settings.renew_every;
            match tokio::time::timeout(patience, self.attempt()).await {
                Ok(Ok(Some(held))) if held.since.elapsed() < self.settings.renew_deadline => return held,
                Ok(Ok(_)) => {}
                Ok(Err(Error::Conflict { .. })) => tracing::debug!("another was faster to take the lease"),
                Ok(Err(error)) => tracing::warn!(%error, "cannot contend for the lease"),
                Err(_) => tracing::warn!("the API server is too slow to contend for the lease"),
            }
            tokio::time::sleep(patience.mul_f64(rand::random_range(0.8..=1.2))).await;
        }
    }

    /// Takes the lease when it is free.
    async fn attempt(&mut self) -> Result<Option<Held>> {
        let found = self.api.get_opt(&self.settings.name).await;
        let Some(lease) = found.map_err(|error| self.call("get").failed(error))? else {
            // One that was there and is not: whoever held it does not know that yet.
            let was_there = self.seen.is_some();
            if was_there && !self.has_stayed("", self.settings.duration) {
                return Ok(None);
            }
            let since = Instant::now();
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.settings.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(&LeaseSpec::default())),
            };
            let made = self.api.create(&parameters(), &lease).await;
            let lease = made.map_err(|error| self.call("create").failed(error))?;
            return Ok(Some(Held { lease, since }));
        };
        if !self.is_free(&lease) {
            return Ok(None);
        }
        let since = Instant::now();
        let lease = self.write(&lease, true).await?;
        Ok(Some(Held { lease, since }))
    }

    /// Whether nobody holds it, or whoever does has left it alone for as long as it keeps others out.
    fn is_free(&mut self, lease: &Lease) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        // It is this one's when an answer came too late.
        if holder.is_empty() || holder == self.settings.identity {
            return true;
        }
        let theirs = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
        let duration = self.settings.duration.max(Duration::from_secs(theirs));
        let version = lease.metadata.resource_version.as_deref().unwrap_or_default();
        self.has_stayed(version, duration)
    }

    /// Whether the lease has been seen in this version, and no other, for this long.
    fn has_stayed(&mut self, version: &str, duration: Duration) -> bool {
        match &self.seen {
            Some(seen) if seen.version == version => seen.first.elapsed() >= duration,
            _ => {
                self.seen = Some(Seen {
                    version: version.to_owned(),
                    first: Instant::now(),
                });
                false
            }
        }
    }

    async fn lead(&self, held: Held, stop: &CancellationToken) -> Ended {
        let Settings {
            renew_deadline,
            renew_every,
            ..
        } = self.settings;
        let mut lease = held.lease;
        let mut until = held.since + renew_deadline;
        self.leadership.extend(until);
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.release(&lease).await;
                    return Ended::Stopped;
                }
                () = tokio::time::sleep(renew_every.min(until.saturating_duration_since(Instant::now()))) => {}
            }
            let since = Instant::now();
            if since >= until {
                tracing::error!("lost the lease: it was not renewed in time");
                return Ended::Lost;
            }
            let patience = renew_every.min(until - since);
            match tokio::time::timeout(patience, self.renew(&lease)).await {
                Ok(Ok(None)) => {
                    tracing::error!("lost the lease: another holds it");
                    return Ended::Lost;
                }
                Ok(Ok(Some(renewed))) => {
                    lease = renewed;
                    until = since + renew_deadline;
                    self.leadership.extend(until);
                }
                Ok(Err(error @ Error::NotFound { .. })) => {
                    tracing::error!(%error, "lost the lease: it is gone");
                    return Ended::Lost;
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the lease"),
                Err(_) => tracing::warn!("the API server is too slow to renew the lease"),
            }
        }
    }

    /// Renews. A version that is not the last known one may be this process' own, of an answer that was lost, or a label
    /// that someone put on the lease: so who holds it decides.
    /// `None` when it is another.
    async fn renew(&self, lease: &Lease) -> Result<Option<Lease>> {
        match self.write(lease, false).await {
            Err(Error::Conflict { .. }) => {}
            renewed => return renewed.map(Some),
        }
        let now = self.api.get(&self.settings.name).await;
        let now = now.map_err(|error| self.call("get").failed(error))?;
        let holder = now.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if holder != Some(&self.settings.identity) {
            return Ok(None);
        }
        self.write(&now, false).await.map(Some)
    }

    /// Writes this process into the lease, over this very version of it.
    async fn write(&self, lease: &Lease, is_new: bool) -> Result<Lease> {
        let former = lease.spec.clone().unwrap_or_default();
        let mut lease = lease.clone();
        let mut spec = self.spec(&former);
        if !is_new {
            spec.acquire_time = former.acquire_time;
            spec.lease_transitions = former.lease_transitions;
        }
        lease.spec = Some(spec);
        lease.metadata.managed_fields = None;
        let written = self.api.replace(&self.settings.name, &parameters(), &lease).await;
        written.map_err(|error| self.call("update").failed(error))
    }

    /// Gives the lease up, so that the next one need not wait. Where that does not work, it waits.
    async fn release(&self, lease: &Lease) {
        self.leadership.end();
        let mut lease = lease.clone();
        lease.metadata.managed_fields = None;
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        let parameters = parameters();
        let released = self.api.replace(&self.settings.name, &parameters, &lease);
        if let Ok(Ok(_)) = tokio::time::timeout(self.settings.renew_every, released).await {
            tracing::info!("gave the lease up");
        } else {
            tracing::warn!("could not give the lease up: the next one waits until it is over");
        }
    }

    fn spec(&self, former: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let seconds = self.settings.duration.as_secs_f64().ceil();
        #[allow(clippy::cast_possible_truncation, reason = "a duration of seconds, not of centuries")]
        let seconds = seconds as i32;
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(seconds),
            // For people who look, and for no decision.
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(former.lease_transitions.map_or(0, |count| count.saturating_add(1))),
            ..LeaseSpec::default()
        }
    }

    fn call(&self, verb: &'static str) -> Call {
        Call::new(
            verb,
            "leases.coordination.k8s.io",
            &self.settings.namespace,
            &self.settings.name,
        )
    }
}

fn parameters() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    }
}
