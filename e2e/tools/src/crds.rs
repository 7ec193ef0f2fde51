//! CRDs of other projects that the operator makes resources of, a folder of YAML files for each project.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cache::{cache_folder, cached};
use crate::go::source;
use crate::program::named;
use crate::strimzi::strimzi_crds;
use crate::{dapr, pinned};

/// A project whose CRDs a cluster may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CrdGroup {
    /// Dapr: `Component`, `Subscription`, `Resiliency`, `Configuration` and more.
    Dapr,
    /// Strimzi: `KafkaTopic`, `KafkaUser`, `Kafka`, `KafkaNodePool`.
    Strimzi,
    /// KEDA: `ScaledObject`, `TriggerAuthentication`.
    Keda,
    /// The Prometheus operator: `PodMonitor`, `PrometheusRule`.
    Monitoring,
    /// CloudNativePG: `Cluster`. A stand-in of our own, see its file: the project's cannot be had as a package.
    CloudNativePg,
}

/// Some of the files of a Go module.
struct Files {
    module: &'static str,
    folder: &'static str,
    names: &'static [&'static str],
}

const KEDA: Files = Files {
    module: "github.com/kedacore/keda/v2",
    folder: "config/crd/bases",
    names: &["keda.sh_scaledobjects.yaml", "keda.sh_triggerauthentications.yaml"],
};
const MONITORING: Files = Files {
    module: "github.com/prometheus-operator/prometheus-operator",
    folder: "example/prometheus-operator-crd",
    names: &[
        "monitoring.coreos.com_podmonitors.yaml",
        "monitoring.coreos.com_prometheusrules.yaml",
    ],
};

impl CrdGroup {
    /// Every project.
    pub const ALL: [Self; 5] = [
        Self::Dapr,
        Self::Strimzi,
        Self::Keda,
        Self::Monitoring,
        Self::CloudNativePg,
    ];

    /// The variable that names a folder of this project's CRDs, as YAML files.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Dapr => "TODO_DAPR_CRDS",
            Self::Strimzi => "TODO_STRIMZI_CRDS",
            Self::Keda => "TODO_KEDA_CRDS",
            Self::Monitoring => "TODO_MONITORING_CRDS",
            Self::CloudNativePg => "TODO_CNPG_CRDS",
        }
    }
}

/// The folder of a project's CRDs.
pub fn crds(group: CrdGroup) -> Result<PathBuf> {
    if let Some(given) = named(group.variable())? {
        return Ok(given);
    }
    match group {
        CrdGroup::Dapr => Ok(dapr::dapr_chart()?.join("crds")),
        CrdGroup::Strimzi => strimzi_crds(),
        CrdGroup::Keda => of_module("keda-crds", &KEDA),
        CrdGroup::Monitoring => of_module("monitoring-crds", &MONITORING),
        CrdGroup::CloudNativePg => Ok(pinned("cnpg")),
    }
}

fn of_module(name: &str, files: &Files) -> Result<PathBuf> {
    let module = pinned("crds");
    let pins = [module.join("go.mod"), module.join("go.sum")];
    let recipe = [&[files.module, files.folder], files.names].concat().join(" ");
    cached(&cache_folder()?, name, &pins, &recipe, |draft| {
        let folder = source("crds", &module, files.module)?.join(files.folder);
        for file in files.names {
            let text = fs::read(folder.join(file)).with_context(|| format!("{} has no {file}", files.module))?;
            fs::write(draft.join(file), text)?;
        }
        Ok(())
    })
}
