//! A real Kubernetes API for tests: etcd, the API server and the controller manager, as processes on loopback. There
//! are no nodes: what a kubelet would say about pods, the [`FakeKubelet`] says.
//!
//! Here: starting and ending a cluster ([`Cluster`]), the CRDs in it ([`Options`]), a [`Namespace`] per test, clients
//! for the administrator and for service accounts, the audit log ([`AuditLog`]), and the test doubles, each named as
//! one. Not here: where the programs come from (`todo-test-tools`), and what tests do with a cluster.
//!
//! ```no_run
//! # use todo_test_cluster::{Cluster, FakeKubelet};
//! # async fn test() -> anyhow::Result<()> {
//! let cluster = Cluster::shared().await?;                 // one for all tests of this process
//! let namespace = cluster.namespace("deploys").await?;    // and a place in it for this one
//! let _kubelet = FakeKubelet::start(cluster.client().await?, namespace.name());
//! let operator = cluster.client_for_service_account("operators", "todo-operator").await?;
//! # Ok(()) }
//! ```
//!
//! All tests of a process share the clusters that they ask for by `shared` and `shared_with`; a test that stops parts of
//! one takes its own by [`Cluster::start`]. A cluster goes with its value, and one that is shared goes with its process,
//! also when that is killed: a shell watches it ([`todo_test_tools::Leash`]).
//!
//! `KUBEBUILDER_ASSETS` names other programs to run.

mod access;
mod audit;
mod certificates;
mod cluster;
mod control_plane;
mod crds;
mod kubelet;
mod namespace;
mod options;
mod strimzi;

pub use self::audit::{AuditEntry, AuditLog};
pub use self::certificates::{Authority, Identity, SigningKey};
pub use self::cluster::Cluster;
pub use self::control_plane::Program;
pub use self::kubelet::{FakeKubelet, Fate};
pub use self::namespace::Namespace;
pub use self::options::Options;
pub use self::strimzi::{Broker, StandInKafka, StandInTopicOperator, StandInUserOperator, Topic};
pub use todo_test_tools::CrdGroup;
