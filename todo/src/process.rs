//! What every process of a single role has: a door that is open from the start, and an orderly end.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use todo_api::{PrometheusHandle, Starting};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::failure::Refused;

/// A process that listens.
pub(crate) struct Process {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What is measured in it.
    pub(crate) metrics: PrometheusHandle,
    /// Cancelled when it is to end.
    pub(crate) shutdown: CancellationToken,
    starting: Starting,
    server: JoinHandle<()>,
    closing: CancellationToken,
}

impl Process {
    /// Serves health and metrics from now on: what the process needs may take a while to be there.
    pub(crate) async fn open(listen: SocketAddr) -> Result<Self> {
        let metrics = todo_api::install_metrics().context("cannot begin measuring")?;
        let shutdown = shutdown_on_signal()?;
        let listener = bind(listen).await?;
        let address = listener.local_addr()?;
        let starting = Starting::new();
        let closing = CancellationToken::new();
        let router = starting.router(metrics.clone());
        Ok(Self {
            address,
            metrics,
            shutdown,
            starting,
            server: tokio::spawn(todo_api::serve(listener, router, closing.clone())),
            closing,
        })
    }

    /// Says in the log and in `/readyz` what the start waits for.
    pub(crate) fn waits_for(&self, reason: &str) {
        tracing::warn!(reason, "waiting");
        self.starting.waits_for(reason);
    }

    /// Serves these routes from now on.
    pub(crate) fn serve(&self, routes: Router) {
        self.starting.open(routes);
    }

    /// Accepts nothing more, and waits for the requests that run.
    pub(crate) async fn close(self) -> Result<()> {
        self.closing.cancel();
        self.server.await.context("the server panicked")
    }
}

/// Listens, or says in one line why not.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Refused::because(format_args!(
            "{address} is in use; stop what listens there, or choose another with --listen"
        )),
        _ => Refused::because(format_args!("cannot listen on {address}: {error}")),
    })
}

/// Cancelled at the first Ctrl-C or SIGTERM. A second one ends the process at once, as an impatient user means it.
pub(crate) fn shutdown_on_signal() -> Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.cancel();
        eprintln!("stopping: letting what runs come to its end (once more to stop at once)");
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(token)
}
