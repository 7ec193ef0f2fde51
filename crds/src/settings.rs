//! `Settings`: what a manifest means for a process.
//!
//! A platform is written for a cluster and for one machine alike. Here it becomes the plain values that a process is
//! started with, and a list of what was accepted and does nothing on one machine, to be said at the start and not to
//! be found out later.

use std::fmt;

use kube::ResourceExt as _;

use crate::platform::{LogFormat, SecretKeyRef, TodoPlatform, TodoPlatformSpec, WorkerSpec, WorkersSpec};

/// What one process needs to know of its platform.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The platform's name.
    pub platform: String,
    /// The HTTP API.
    pub api: ApiSettings,
    /// The worker roles that run, in the order of [`Role::ALL`].
    pub roles: Vec<Role>,
    /// The most database connections that the process opens.
    pub database_max_connections: u32,
    /// Who may call the API.
    pub auth: AuthSettings,
    /// How log lines look. `None`: text on a terminal, JSON elsewhere.
    pub log_format: Option<LogFormat>,
    /// What was accepted and does nothing on one machine, one line each.
    pub notes: Vec<String>,
}

/// The HTTP API of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiSettings {
    /// Whether it runs.
    pub enabled: bool,
    /// The most items on one page of a list.
    pub max_page_size: u32,
    /// The largest request body, in bytes.
    pub max_body_bytes: u32,
    /// Requests per second and user, over time; at least 1.
    pub rate_per_second: u32,
    /// Requests that one user may make at once after a pause; at least 1.
    pub rate_burst: u32,
}

/// Who may call the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthSettings {
    /// HS256 tokens with a shared secret.
    Hs256 {
        /// The Secret's key that holds it on a cluster. `None`, and on one machine: a secret made and kept for the platform.
        secret_ref: Option<SecretKeyRef>,
    },
    /// Tokens of an OIDC provider, checked with the keys that it publishes.
    Oidc {
        /// The issuer, exactly as in the tokens' `iss`.
        issuer: String,
        /// What the tokens' `aud` must contain.
        audience: String,
    },
}

/// A worker's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Carries events from the outbox to the bus.
    Relay,
    /// Makes the tasks of schedules and the next task of recurring ones.
    Recurring,
    /// Sends reminders when they are due.
    Reminders,
    /// Brings notifications to people.
    Notifications,
    /// Writes down who changed what.
    Audit,
    /// Counts and sums.
    Analytics,
}

impl Role {
    /// Every role, in the order of `spec.workers`.
    pub const ALL: [Self; 6] = [
        Self::Relay,
        Self::Recurring,
        Self::Reminders,
        Self::Notifications,
        Self::Audit,
        Self::Analytics,
    ];

    /// The name, as under `spec.workers`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Recurring => "recurring",
            Self::Reminders => "reminders",
            Self::Notifications => "notifications",
            Self::Audit => "audit",
            Self::Analytics => "analytics",
        }
    }

    /// What the manifest says about the role.
    pub fn of(self, workers: &WorkersSpec) -> &WorkerSpec {
        match self {
            Self::Relay => &workers.relay,
            Self::Recurring => &workers.recurring,
            Self::Reminders => &workers.reminders,
            Self::Notifications => &workers.notifications,
            Self::Audit => &workers.audit,
            Self::Analytics => &workers.analytics,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Settings {
    /// What `platform` means. It is valid: see [`TodoPlatform::validate`].
    pub fn from_platform(platform: &TodoPlatform) -> Self {
        let spec = &platform.spec;
        let auth = match &spec.auth.oidc {
            Some(oidc) => AuthSettings::Oidc {
                issuer: oidc.issuer.clone(),
                audience: oidc.audience.clone(),
            },
            None => AuthSettings::Hs256 {
                secret_ref: spec.auth.secret_ref.clone(),
            },
        };
        Self {
            platform: platform.name_any(),
            api: ApiSettings {
                enabled: !spec.api.suspend,
                max_page_size: spec.api.limits.max_page_size,
                max_body_bytes: spec.api.limits.max_body_bytes,
                rate_per_second: spec.api.rate_limit.per_second,
                rate_burst: spec.api.rate_limit.burst,
            },
            roles: Role::ALL
                .into_iter()
                .filter(|role| !role.of(&spec.workers).suspend)
                .collect(),
            database_max_connections: spec.database.pool.max,
            auth,
            log_format: spec.observability.log_format,
            notes: notes(spec),
        }
    }

    /// Whether this role's worker runs.
    pub fn runs(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// What is accepted and does nothing on one machine. A field that says what happens here anyway is not worth a line.
fn notes(spec: &TodoPlatformSpec) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |given: bool, field: &str, why: &str| {
        if given {
            notes.push(format!("accepted, no effect here: spec.{field} ({why})"));
        }
    };
    let this_version = env!("CARGO_PKG_VERSION");
    note(
        spec.version != this_version,
        "version",
        &format!("{} is asked for, this binary is {this_version}", spec.version),
    );
    note(spec.image.is_some(), "image", "this binary runs");
    note(
        spec.deletion_policy != crate::platform::DeletionPolicy::default(),
        "deletionPolicy",
        "the data folder stays until you delete it",
    );
    note(spec.paused, "paused", "there is no operator to pause");
    note(
        spec.database.url_secret_ref.is_some(),
        "database.urlSecretRef",
        "set DATABASE_URL or --database-url",
    );
    note(
        spec.database.storage.is_some(),
        "database.storage",
        "data is in the data folder",
    );
    note(spec.kafka.is_some(), "kafka", "events stay in this process");
    note(spec.dapr.is_some(), "dapr", "there is no sidecar");
    note(
        spec.auth.secret_ref.is_some(),
        "auth.secretRef",
        "a secret is made and kept in the data folder",
    );
    note(spec.api.ingress.is_some(), "api.ingress", "use --listen");
    note(spec.api.http_route.is_some(), "api.httpRoute", "use --listen");
    let one_process = "one process serves";
    note(
        spec.api.replicas.is_some_and(|replicas| replicas != 1),
        "api.replicas",
        one_process,
    );
    note(spec.api.autoscaling.is_some(), "api.autoscaling", one_process);
    note(
        spec.api.resources.is_some(),
        "api.resources",
        "the process takes what the machine gives",
    );
    for role in Role::ALL {
        let worker = role.of(&spec.workers);
        note(
            worker.replicas.is_some_and(|replicas| replicas != 1),
            &format!("workers.{role}.replicas"),
            "each role runs once in this process",
        );
        note(
            worker.autoscaling.is_some(),
            &format!("workers.{role}.autoscaling"),
            "each role runs once in this process",
        );
        note(
            worker.resources.is_some(),
            &format!("workers.{role}.resources"),
            "the process takes what the machine gives",
        );
    }
    note(
        spec.notifications.is_some(),
        "notifications",
        "reminders go to the feed in the API",
    );
    note(
        spec.upgrade != crate::platform::UpgradeSpec::default(),
        "upgrade",
        "a new version is a new binary",
    );
    note(
        spec.observability.pod_monitor,
        "observability.podMonitor",
        "metrics are at /metrics",
    );
    note(
        spec.observability.alerts,
        "observability.alerts",
        "metrics are at /metrics",
    );
    note(
        spec.observability.dashboards,
        "observability.dashboards",
        "metrics are at /metrics",
    );
    note(spec.network_policy, "networkPolicy", "the API listens on one address");
    notes
}
