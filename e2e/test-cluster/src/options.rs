//! Which optional APIs a cluster has.

use todo_test_tools::CrdGroup;

/// The projects whose CRDs are there. Our own always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Options {
    /// Dapr's
    pub dapr: bool,
    /// Strimzi's
    pub strimzi: bool,
    /// KEDA's
    pub keda: bool,
    /// The Prometheus operator's
    pub monitoring: bool,
    /// CloudNativePG's
    pub cnpg: bool,
}

impl Options {
    /// Every project.
    pub const ALL: Self = Self {
        dapr: true,
        strimzi: true,
        keda: true,
        monitoring: true,
        cnpg: true,
    };
    /// A bare cluster.
    pub const NONE: Self = Self {
        dapr: false,
        strimzi: false,
        keda: false,
        monitoring: false,
        cnpg: false,
    };

    pub(crate) fn groups(self) -> impl Iterator<Item = CrdGroup> {
        CrdGroup::ALL.into_iter().filter(move |group| match group {
            CrdGroup::Dapr => self.dapr,
            CrdGroup::Strimzi => self.strimzi,
            CrdGroup::Keda => self.keda,
            CrdGroup::Monitoring => self.monitoring,
            CrdGroup::CloudNativePg => self.cnpg,
        })
    }
}
