//! What is installed, to the letter.

use anyhow::{Result, ensure};

use crate::render::{CRDS, OPERATOR, helm, hold, render};

const VALUES: [&str; 2] = ["namespaced", "everything"];

fn values(name: &str) -> String {
    format!("{OPERATOR}/tests/values/{name}.yaml")
}

#[test]
fn what_is_installed_by_default_is_what_was_reviewed() -> Result<()> {
    hold(
        &format!("{OPERATOR}/tests/golden/default.yaml"),
        &render(OPERATOR, &[])?,
    )
}

#[test]
fn what_other_values_install_is_what_was_reviewed() -> Result<()> {
    for name in VALUES {
        let rendered = render(OPERATOR, &["--values", &values(name)])?;
        hold(&format!("{OPERATOR}/tests/golden/{name}.yaml"), &rendered)?;
    }
    Ok(())
}

#[test]
fn helm_finds_nothing_to_criticise() -> Result<()> {
    let files = VALUES.map(values);
    let mut runs = vec![vec!["lint", "--strict", OPERATOR], vec!["lint", "--strict", CRDS]];
    runs.extend(
        files
            .iter()
            .map(|file| vec!["lint", "--strict", OPERATOR, "--values", file]),
    );
    for run in runs {
        let linted = helm(&run)?;
        let said = String::from_utf8_lossy(&linted.stdout);
        ensure!(linted.status.success(), "helm {}: {said}", run.join(" "));
    }
    Ok(())
}

#[test]
fn a_packaged_chart_renders_as_the_folder_does() -> Result<()> {
    for chart in [OPERATOR, CRDS] {
        let folder = tempfile::tempdir()?;
        let target = folder.path().to_string_lossy().into_owned();
        let packaged = helm(&["package", chart, "--destination", &target])?;
        ensure!(packaged.status.success(), "{packaged:?}");
        let name = chart.trim_start_matches("charts/");
        let archive = format!("{target}/{name}-0.1.0.tgz");
        ensure!(
            render(&archive, &[])? == render(chart, &[])?,
            "{chart} is not whole when it is packaged"
        );
    }
    Ok(())
}
