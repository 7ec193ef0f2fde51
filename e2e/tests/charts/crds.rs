//! The chart of the resource types.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::render::{CRDS, documents, identity, path, render};

#[test]
fn the_chart_holds_the_resource_types_as_they_are_and_keeps_them() -> Result<()> {
    let rendered = documents(&render(CRDS, &["--set", "labels.team=platform"])?)?;
    ensure!(rendered.len() == 2, "{} documents", rendered.len());
    for (_, mut crd) in rendered {
        let (_, _, name) = identity(&crd);
        let (plural, group) = name.split_once('.').context("a CRD is named PLURAL.GROUP")?;
        let metadata = crd["metadata"].as_object_mut().context("it has metadata")?;
        let annotations = metadata.remove("annotations");
        let labels = metadata.remove("labels").unwrap_or_default();
        ensure!(
            annotations == Some(serde_json::json!({"helm.sh/resource-policy": "keep"})),
            "{name}"
        );
        ensure!(
            labels["team"] == "platform" && labels["app.kubernetes.io/managed-by"] == "Helm",
            "{labels}"
        );
        let source = fs::read_to_string(path(&format!("config/crd/{group}_{plural}.yaml")))?;
        let source: Value = serde_saphyr::from_str(&source)?;
        ensure!(crd == source, "{name} is not config/crd's");
    }
    Ok(())
}
