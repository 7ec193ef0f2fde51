//! Golden files: every child of a sample, as a person can review it.
//!
//! A change of what is built is a change of these files: `TODO_UPDATE_GOLDEN=1 cargo test -p todo-operator --test it golden`
//! writes them anew, and their difference is read like code.

use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use todo_operator::child::{Child, Children, Kind};
use todo_operator::platform::build::build;

use super::{cases, folder};

/// Those of the cases that have a file.
const FILES: [&str; 7] = [
    "platform",
    "platform-on-cloudnativepg",
    "production",
    "managed-kafka",
    "everything",
    "suspended",
    "suspended-in-one",
];

#[test]
fn what_is_built_of_each_sample_is_what_its_golden_file_says() {
    let update = std::env::var_os("TODO_UPDATE_GOLDEN").is_some();
    let mut differing = vec![];
    for (name, inputs) in cases().into_iter().filter(|(name, _)| FILES.contains(&name.as_str())) {
        let path = folder().join("golden").join(format!("{name}.yaml"));
        let built = text(&build(&inputs));
        if update {
            std::fs::write(&path, built).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != built {
            let place = std::env::temp_dir().join(format!("todo-operator-{name}.yaml"));
            std::fs::write(&place, built).unwrap();
            differing.push(format!("diff {} {}", path.display(), place.display()));
        }
    }
    assert!(
        differing.is_empty(),
        "not what the golden files say; look at the difference, and set TODO_UPDATE_GOLDEN=1 if it is meant:\n{}",
        differing.join("\n")
    );
}

#[test]
fn there_is_a_case_for_each_golden_file() {
    let mut files: Vec<String> = std::fs::read_dir(folder().join("golden"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut expected = FILES.map(|name| format!("{name}.yaml"));
    expected.sort();
    assert_eq!(files, expected);
}

fn text(children: &Children) -> String {
    let mut text = String::new();
    for child in children.iter() {
        let Child {
            key,
            stage,
            tenure,
            write,
            ..
        } = child;
        writeln!(text, "---\n# {key}: stage {stage:?}, {tenure:?}, written {write:?}").unwrap();
        text.push_str(&serde_saphyr::to_string(&shown(child)).unwrap());
    }
    text
}

/// Dashboards are long, and files of their own already: their hash stands for them.
fn shown(child: &Child) -> Value {
    let mut body = child.body.clone();
    if child.key.kind == Kind::ConfigMap && child.key.name.ends_with("-dashboards") {
        for value in body["data"].as_object_mut().unwrap().values_mut() {
            let text = value.as_str().unwrap().to_owned();
            let hash = hex::encode(&Sha256::digest(&text)[..8]);
            *value = format!("{} bytes, {hash}", text.len()).into();
        }
    }
    body
}
