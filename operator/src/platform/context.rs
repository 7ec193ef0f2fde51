//! What every pass has at hand.

use std::sync::Arc;

use kube::Client;
use todo_crds::TodoPlatform;
use tokio::sync::watch;

use super::brokers::Brokers;
use super::deletion::Departures;
use super::dereference::SecretsRead;
use super::progress::Progress;
use super::seen::Seen;
use crate::capabilities::Capabilities;
use crate::events::Recorder;
use crate::live::Live;
use crate::names::Names;
use crate::pace::Pace;
use crate::record::Record;
use crate::settings::Settings;

/// What every pass has at hand. Clones share it.
#[derive(Clone)]
pub struct Context {
    /// The way to the API server; writes pass only while this process leads.
    pub client: Client,
    /// What is written into the platforms themselves.
    pub record: Record<TodoPlatform>,
    /// What the operator was told at its start.
    pub settings: Arc<Settings>,
    /// The children as the cluster has them.
    pub live: Live,
    /// Who tells of transitions.
    pub events: Recorder,
    /// What was read of the Secrets that manifests name.
    pub secrets: SecretsRead,
    /// What was found in Kafka clusters that run elsewhere.
    pub brokers: Brokers,
    /// The platforms that are on their way out.
    pub departures: Departures,
    /// When progress is told.
    pub progress: Progress,
    /// How soon it is looked when nobody tells.
    pub pace: Pace,
    /// What the cluster offers, kept up to date.
    pub offered: watch::Receiver<Capabilities>,
}

impl Context {
    /// What the cluster offers now.
    pub(super) fn capabilities(&self) -> Arc<Capabilities> {
        Arc::new(self.offered.borrow().clone())
    }

    /// The platform is gone.
    pub fn forget(&self, names: &Names) {
        self.live.forget(names);
        self.secrets.forget(names);
        self.brokers.forget(names);
        self.departures.forget(names);
        self.progress.forget(names);
    }

    /// A platform's children as the cluster has them now; `before` is what this pass has seen of them so far.
    pub(super) fn seen(&self, names: &Names, before: &Seen) -> Seen {
        before.now(self.live.of(names))
    }
}
