//! What follows from events and from time, as roles that can be switched on one by one.
//!
//! What lives here: the consumers (what follows from events) and the clocks (what follows from time), and
//! [`run`], which runs the chosen [`Role`]s in one process. What does not: the domain (`todo-tasks` decides and
//! writes) and the way of an event (`todo-events`). Any number of processes may run any role: claims skip what
//! another holds, and the inbox removes duplicates.
//!
//! How data walks through: a clock sleeps until the database says that something is due, or somebody wakes it, and
//! calls one function of `todo-tasks` in a transaction. A relay reads the outbox for each consumer of this process,
//! and the consumer calls one function of `todo-tasks` in the transaction of its inbox row. With a broker
//! ([`Carrier::Broker`]) a relay reads it once for all of them, and whoever starts the process hands the consumer what
//! the broker delivers.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use todo_events::{Bus, Channel, Consumer, Waker};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod alarms;
mod audit;
mod clock;
mod housekeeping;
mod next_task;
mod publish;
mod recurring;
mod reminders;

pub use alarms::{AlarmClock, AlarmError, ring};
pub use audit::Audit;
pub use next_task::NextTask;
pub use reminders::Pace;

/// A part of the work that can be switched on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Hands events from the outbox to the consumers of this process, or to a broker.
    Relay,
    /// Makes the tasks of schedules, and the next task of one that repeats.
    Recurring,
    /// Sends reminders.
    Reminders,
    /// Keeps the audit log.
    Audit,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Relay, Self::Recurring, Self::Reminders, Self::Audit];

    /// The role's name: `relay`, `recurring`, `reminders`, `audit`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Recurring => "recurring",
            Self::Reminders => "reminders",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or_else(|| format!("unknown role {name:?}; the roles are {}", known()))
    }
}

/// Every consumer that there is, whichever roles this process runs: for dead letters and rebuilds.
pub fn consumers() -> Vec<Arc<dyn Consumer>> {
    vec![Arc::new(Audit), Arc::new(NextTask)]
}

/// The consumers of these roles: what a process with a [`Carrier::Broker`] subscribes to.
pub fn consumers_of(roles: &BTreeSet<Role>) -> Vec<Arc<dyn Consumer>> {
    let mut consumers: Vec<Arc<dyn Consumer>> = Vec::new();
    if roles.contains(&Role::Audit) {
        consumers.push(Arc::new(Audit));
    }
    if roles.contains(&Role::Recurring) {
        consumers.push(Arc::new(NextTask));
    }
    consumers
}

/// How events come from the outbox to their consumers.
#[derive(Clone)]
pub enum Carrier {
    /// From hand to hand: the relay feeds the consumers of this process.
    Local,
    /// Through a broker: the relay publishes to it. The consumers get their events from it and not from [`run`]:
    /// whoever starts the process serves what the broker delivers to [`consumers_of`] its roles.
    Broker(Arc<dyn Bus>),
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "Local",
            Self::Broker(_) => "Broker",
        })
    }
}

/// How the roles work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which of them run in this process.
    pub roles: BTreeSet<Role>,
    /// How events reach their consumers.
    pub carrier: Carrier,
    /// How fast late reminders go out.
    pub late_reminders: Pace,
    /// A scheduler that wakes the role reminders for each of them, beside the role's own looking.
    pub alarms: Option<Arc<dyn AlarmClock>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            roles: Role::ALL.into(),
            carrier: Carrier::Local,
            late_reminders: Pace::default(),
            alarms: None,
        }
    }
}

/// The connections that [`run`] needs at the most at one time, beside those of others on the pool.
pub const CONNECTIONS: u32 = 8;

/// Runs the roles until `shutdown`, then to the end of what each is doing. Failures are logged and tried again: this
/// returns only when it was told to stop.
pub async fn run(pool: PgPool, waker: Waker, settings: Settings, shutdown: CancellationToken) {
    let mut running = JoinSet::new();
    {
        let (waker, pool, shutdown) = (waker.clone(), pool.clone(), shutdown.clone());
        running.spawn(async move { waker.run(pool, shutdown).await });
    }
    running.spawn(housekeeping::run(pool.clone(), shutdown.clone()));
    metrics::describe_gauge!("todo_role_running", "1 for each role that this process runs.");
    for role in &settings.roles {
        metrics::gauge!("todo_role_running", "role" => role.as_str()).set(1);
    }
    if settings.roles.contains(&Role::Relay) {
        match &settings.carrier {
            Carrier::Local => {
                for consumer in consumers_of(&settings.roles) {
                    let (pool, waker, shutdown) = (pool.clone(), waker.clone(), shutdown.clone());
                    running.spawn(publish::to_consumer(pool, consumer, waker, shutdown));
                }
            }
            Carrier::Broker(bus) => {
                let (pool, waker, shutdown) = (pool.clone(), waker.clone(), shutdown.clone());
                running.spawn(publish::to_broker(pool, Arc::clone(bus), waker, shutdown));
            }
        }
    }
    if settings.roles.contains(&Role::Recurring) {
        let wakeups = waker.subscribe(Channel::Schedules);
        running.spawn(recurring::run(pool.clone(), waker.clone(), wakeups, shutdown.clone()));
    }
    if settings.roles.contains(&Role::Reminders) {
        let wakeups = waker.subscribe(Channel::Reminders);
        let pace = settings.late_reminders;
        running.spawn(reminders::run(
            pool.clone(),
            waker.clone(),
            wakeups,
            pace,
            shutdown.clone(),
        ));
        if let Some(clock) = settings.alarms {
            let wakeups = waker.subscribe(Channel::Reminders);
            running.spawn(alarms::run(pool.clone(), clock, wakeups, shutdown.clone()));
        }
    }
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            // A role that is gone while the others go on would be missed only when its work is.
            tracing::error!(%error, "a role panicked, stopping the others");
            shutdown.cancel();
        }
    }
}

/// The longest that a clock sleeps: a wake-up may get lost, and clocks may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn a_role_is_read_back_by_its_name_and_an_unknown_one_is_told_the_names() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        let refused = "clerk".parse::<Role>();
        assert_eq!(
            refused,
            Err("unknown role \"clerk\"; the roles are relay, recurring, reminders, audit".to_owned())
        );
    }
}
