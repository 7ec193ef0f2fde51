//! What the handlers share.

use std::sync::Arc;

use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use todo_events::{Channel, Waker};
use todo_tasks::conversation::Conversations;
use todo_tasks::state::StateStore;
use todo_tasks::task::Task;

use crate::auth::{Authenticator, InternalKeys, SeenUsers, TokenSecrets};
use crate::config::ApiConfig;
use crate::error::Error;
use crate::health::{Readiness, ReadyCheck};
use crate::rate_limit::UserLimiter;

/// How the handlers get at it.
pub(crate) type Shared = axum::extract::State<Arc<ApiState>>;

/// What the handlers share. One for each router.
pub struct ApiState {
    pub(crate) config: ApiConfig,
    pub(crate) pool: PgPool,
    pub(crate) authenticator: Authenticator,
    pub(crate) seen_users: SeenUsers,
    pub(crate) limiter: Option<UserLimiter>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) ready_check: Option<ReadyCheck>,
    pub(crate) conversations: Conversations,
    internal_keys: Option<InternalKeys>,
    waker: Waker,
}

impl ApiState {
    /// Connects the API to its database, to whoever waits for what it does, and to the metrics of
    /// [`install_metrics`](crate::install_metrics).
    ///
    /// # Errors
    /// [`Error::Config`] when the configuration cannot work, such as a secret that is too short.
    pub fn new(config: ApiConfig, pool: PgPool, waker: Waker, metrics: PrometheusHandle) -> Result<Self, Error> {
        let authenticator = Authenticator::new(&config.auth)?;
        let limiter = config.rate_limit.map(UserLimiter::new);
        Ok(Self {
            conversations: Conversations::new(pool.clone()),
            config,
            pool,
            authenticator,
            seen_users: SeenUsers::default(),
            limiter,
            metrics,
            ready_check: None,
            internal_keys: None,
            waker,
        })
    }

    /// What `/readyz` asks besides the database: the schema's version, say, or whether the process is about to end.
    #[must_use]
    pub fn ready_when(mut self, check: impl Fn() -> BoxFuture<'static, Readiness> + Send + Sync + 'static) -> Self {
        self.ready_check = Some(Arc::new(check));
        self
    }

    /// Has conversations kept in this store, and in the database only while it is away.
    #[must_use]
    pub fn with_state_store(self, store: Arc<dyn StateStore>) -> Self {
        Self {
            conversations: self.conversations.in_store(store),
            ..self
        }
    }

    /// Serves the internal routes to who shows this key.
    ///
    /// # Errors
    /// [`Error::Config`] when it is too short.
    pub fn with_internal_key(self, key: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            internal_keys: Some(InternalKeys::new(key)?),
            ..self
        })
    }

    /// To change the internal key while the API runs; `None` when there is none.
    pub fn internal_keys(&self) -> Option<&InternalKeys> {
        self.internal_keys.as_ref()
    }

    /// The conversations, for whoever merges what waits for their store.
    pub fn conversations(&self) -> Conversations {
        self.conversations.clone()
    }

    /// To change the secret of tokens while the API runs; `None` when an issuer makes them.
    pub fn token_secrets(&self) -> Option<TokenSecrets> {
        match &self.authenticator {
            Authenticator::Hs256(secrets) => Some(secrets.clone()),
            Authenticator::Oidc(_) => None,
        }
    }

    /// Wakes whoever follows a task's changes. After the commit, never within the transaction.
    pub(crate) fn task_changed(&self, task: &Task) {
        self.waker.wake(Channel::Outbox);
        if !task.reminders.is_empty() {
            self.waker.wake(Channel::Reminders);
        }
    }

    /// Wakes whoever sends a task's reminders. After the commit, never within the transaction.
    pub(crate) fn reminders_changed(&self) {
        self.waker.wake(Channel::Outbox);
        self.waker.wake(Channel::Reminders);
    }

    /// Wakes whoever makes the tasks of schedules. After the commit, never within the transaction.
    pub(crate) fn schedule_changed(&self) {
        self.waker.wake(Channel::Schedules);
    }
}

impl std::fmt::Debug for ApiState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiState")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
