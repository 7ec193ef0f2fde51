//! What a process looks at to say how ready it is.

use std::io::Write as _;
use std::time::Duration;

use sqlx::PgPool;
use todo_api::Readiness;
use todo_dapr::Client;
use todo_events::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::database;

/// How often a process that is not ready looks again.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Ready means: not about to end, a database with a schema that this binary knows, and a sidecar where it is needed.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pool: PgPool,
    shutdown: CancellationToken,
    sidecar: Option<Sidecar>,
}

#[derive(Clone, Debug)]
struct Sidecar {
    client: Client,
    is_needed: bool,
}

impl Health {
    /// Of a process without a sidecar.
    pub(crate) fn new(pool: &PgPool, shutdown: &CancellationToken) -> Self {
        Self {
            pool: pool.clone(),
            shutdown: shutdown.clone(),
            sidecar: None,
        }
    }

    /// Of one that does its work without the sidecar, too: its absence is said, no more.
    pub(crate) fn with_sidecar(self, client: Client) -> Self {
        self.beside(client, false)
    }

    /// Of one that can do nothing without the sidecar.
    pub(crate) fn needing_sidecar(self, client: Client) -> Self {
        self.beside(client, true)
    }

    fn beside(self, client: Client, is_needed: bool) -> Self {
        Self {
            sidecar: Some(Sidecar { client, is_needed }),
            ..self
        }
    }

    /// For `/readyz`.
    pub(crate) fn check(&self) -> impl Fn() -> BoxFuture<'static, Readiness> + Send + Sync + 'static {
        let health = self.clone();
        move || {
            let health = health.clone();
            Box::pin(async move { health.readiness().await })
        }
    }

    /// Prints `greeting` as soon as the process is ready for the first time, unless it is stopped before.
    pub(crate) async fn announce(self, greeting: String) {
        while !self.shutdown.is_cancelled() {
            if !matches!(self.readiness().await, Readiness::NotReady(_)) {
                tracing::info!("{greeting}");
                // Nobody may be reading.
                let _ = writeln!(std::io::stdout(), "{greeting}");
                return;
            }
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn readiness(&self) -> Readiness {
        if self.shutdown.is_cancelled() {
            return Readiness::NotReady("stopping".to_owned());
        }
        match database::applied_version(&self.pool).await {
            Ok(Some(version)) if version >= database::newest_known() => {}
            Ok(_) => return Readiness::NotReady("the database is not migrated".to_owned()),
            Err(_) => return Readiness::NotReady("the database does not answer".to_owned()),
        }
        let Some(sidecar) = &self.sidecar else {
            return Readiness::Ready;
        };
        match sidecar.client.ready().await {
            Ok(()) => Readiness::Ready,
            Err(error) if sidecar.is_needed => Readiness::NotReady(error.to_string()),
            Err(error) => Readiness::Degraded(error.to_string()),
        }
    }
}
