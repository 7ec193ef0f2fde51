//! All roles of a platform in one process, running together over one pool until a signal.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use sqlx::PgPool;
use todo_api::{ApiConfig, ApiState};
use todo_events::Waker;
use todo_worker::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::telemetry;

/// What a process runs.
pub(crate) struct Platform {
    /// The API and where it listens.
    pub(crate) api: Option<(TcpListener, ApiConfig)>,
    /// The worker roles.
    pub(crate) roles: BTreeSet<Role>,
}

impl Platform {
    /// Runs until `shutdown`, then lets requests, passes and batches that run come to their end.
    pub(crate) async fn run(self, pool: PgPool, shutdown: CancellationToken) -> Result<()> {
        let waker = Waker::new();
        // Before anything that measures: what is described or counted earlier is lost.
        let metrics = todo_api::install_metrics().context("cannot begin measuring")?;
        telemetry::watch(&pool, &shutdown);
        let worker = self.run_worker(&pool, &waker, &shutdown);
        let api = match self.api {
            Some((listener, config)) => {
                let state = ApiState::new(config, pool.clone(), waker.clone(), metrics)
                    .context("cannot start the API")?
                    .ready_when(Health::new(&pool, &shutdown).check());
                let router = todo_api::router(state);
                Some(tokio::spawn(todo_api::serve(listener, router, shutdown.clone())))
            }
            None => None,
        };
        worker.await.context("the workers panicked")?;
        // The workers end early only when one of them panicked: then the API must not go on alone.
        shutdown.cancel();
        if let Some(api) = api {
            api.await.context("the API panicked")?;
        }
        pool.close().await;
        Ok(())
    }

    fn run_worker(&self, pool: &PgPool, waker: &Waker, shutdown: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let settings = todo_worker::Settings {
            roles: self.roles.clone(),
            ..todo_worker::Settings::default()
        };
        tokio::spawn(todo_worker::run(
            pool.clone(),
            waker.clone(),
            settings,
            shutdown.clone(),
        ))
    }
}
