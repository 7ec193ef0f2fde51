//! The parts of a stack and their names.

use std::fmt;

/// A service: one role of `todo`, with an app id of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// `todo api`
    Api,
    /// `todo worker relay`
    Relay,
    /// `todo worker recurring`
    Recurring,
    /// `todo worker reminders`
    Reminders,
    /// `todo worker audit`
    Audit,
}

/// One process of a stack, and what a test can kill.
///
/// Copies are numbered from 0. Each copy of a service has a sidecar of its own, as on a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// `todo postgres` and the server that it runs. What is done to it is done to the server.
    Database,
    /// The broker: one node, `KRaft`.
    Kafka,
    /// Dapr's scheduler, which keeps jobs.
    Scheduler,
    /// `redis-server`; only in a stack that was asked for it.
    Redis,
    /// A copy of a service.
    Service(Role, usize),
    /// That copy's `daprd`.
    Sidecar(Role, usize),
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Api, Self::Relay, Self::Recurring, Self::Reminders, Self::Audit];

    /// Its name, as in `todo worker NAME`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Relay => "relay",
            Self::Recurring => "recurring",
            Self::Reminders => "reminders",
            Self::Audit => "audit",
        }
    }

    /// How Dapr knows it: the scope of its resources and the group of its consumers.
    pub const fn app_id(self) -> &'static str {
        match self {
            Self::Api => "todo-api",
            Self::Relay => "todo-relay",
            Self::Recurring => "todo-recurring",
            Self::Reminders => "todo-reminders",
            Self::Audit => "todo-audit",
        }
    }

    /// Whether its sidecar connects to Kafka.
    pub const fn needs_kafka(self) -> bool {
        matches!(self, Self::Relay | Self::Recurring | Self::Audit)
    }
}

impl Part {
    /// Whether it is a process of the platform's own binary that drains when it is told to stop.
    pub const fn is_service(self) -> bool {
        matches!(self, Self::Service(..))
    }
}

/// The part's name: of its log, and in everything that is said about it. A first copy goes without a number.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |copy: usize| {
            if copy == 0 {
                String::new()
            } else {
                format!("-{}", copy + 1)
            }
        };
        // Built first, so that the width of a table's column applies to all of it.
        let name = match self {
            Self::Database => "postgres".to_owned(),
            Self::Kafka => "kafka".to_owned(),
            Self::Scheduler => "scheduler".to_owned(),
            Self::Redis => "redis".to_owned(),
            Self::Service(role, copy) => format!("{}{}", role.name(), number(*copy)),
            Self::Sidecar(role, copy) => format!("{}{}-daprd", role.name(), number(*copy)),
        };
        f.pad(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_has_a_name_of_its_own() {
        assert_eq!(Part::Service(Role::Audit, 0).to_string(), "audit");
        assert_eq!(Part::Service(Role::Audit, 1).to_string(), "audit-2");
        assert_eq!(Part::Sidecar(Role::Audit, 1).to_string(), "audit-2-daprd");
        assert_eq!(format!("{:<10}|", Part::Kafka), "kafka     |");
    }
}
