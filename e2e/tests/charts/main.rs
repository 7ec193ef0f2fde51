//! The charts, and the kustomize files that are made from them.
//!
//! Rendered by a real Helm and a real kubectl, without a cluster: what is rendered is compared with files beside the
//! chart (`tests/golden/`), so that a change of a template shows as a change of what is installed. After a change that is
//! meant, `TODO_UPDATE_GOLDEN=1` writes those files, and the ones under `config/`.

mod alerts;
mod crds;
mod flags;
mod golden;
mod kustomize;
mod namespaced;
mod render;
mod values;
