//! The migration: a Job that brings the database to the schema of the release that is asked for, before any pod of it
//! starts.
//!
//! It is made once for each release and database, and left alone: a Job's pods cannot be changed. There is no time to
//! live on it, since it is how one knows that the migration was done.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::draft::Draft;
use super::pod::{self, Process};
use crate::child::{Child, Kind, Stage, Write};
use crate::platform::release;

const COMPONENT: &str = "migrate";
/// How often it is tried: with Kubernetes' waits between, about as long as a database takes to be restarted.
const TRIES: i32 = 8;

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    let platform = &draft.inputs.platform;
    let target = release::target(platform, &draft.inputs.settings);
    let name = draft.names.migration(&release::migration_hash(&target));
    let mut labels = draft.labels(COMPONENT);
    labels.insert("app.kubernetes.io/version".to_owned(), target.version.clone());
    let mut template = pod::template(
        draft,
        Process {
            account: draft.names.migration_account(),
            image: &target.image,
            args: vec!["migrate".to_owned(), "--wait=2m".to_owned()],
            labels,
            annotations: BTreeMap::new(),
            secrets: vec![pod::database_url(draft, &target)],
            env: vec![],
        },
    );
    if let Some(spec) = &mut template.spec {
        // Another pod for another try, so that the log of each is kept.
        spec.restart_policy = Some("Never".to_owned());
        for container in &mut spec.containers {
            let requests = [("cpu", "50m"), ("memory", "64Mi")];
            let requests = requests.map(|(kind, amount)| (kind.to_owned(), Quantity(amount.to_owned())));
            container.resources = Some(ResourceRequirements {
                requests: Some(requests.into()),
                ..ResourceRequirements::default()
            });
        }
    }
    let timeout = draft.spec.upgrade.timeout.seconds();
    let job = Job {
        spec: Some(JobSpec {
            backoff_limit: Some(TRIES),
            active_deadline_seconds: Some(i64::try_from(timeout).unwrap_or(i64::MAX).max(1)),
            template,
            ..JobSpec::default()
        }),
        ..Job::default()
    };
    let object = draft.object(Kind::Job, name).component(COMPONENT);
    let object = object.label("app.kubernetes.io/version", &target.version);
    vec![object.stage(Stage::Migrate).write(Write::Once).content(&job)]
}
