//! What the samples say is what a process gets.

use std::path::Path;

use todo_crds::manifest::load;
use todo_crds::platform::{LogFormat, SaslMechanism};
use todo_crds::schedule::{CatchUpPolicy, Overlap, Priority};
use todo_crds::{AuthSettings, Manifest, Role, Settings};

pub(crate) fn sample(file: &str) -> Manifest {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../config/samples")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    load(&[(file, text)]).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

#[test]
fn the_small_sample_means_a_platform_with_every_default() {
    let manifest = sample("platform.yaml");
    let settings = Settings::from_platform(&manifest.platform);
    assert_eq!(settings.platform, "home");
    assert!(settings.api.enabled);
    assert_eq!(
        (settings.api.max_page_size, settings.api.max_body_bytes),
        (200, 262_144)
    );
    assert_eq!((settings.api.rate_per_second, settings.api.rate_burst), (50, 100));
    assert_eq!(settings.roles, Role::ALL);
    assert_eq!(settings.database_max_connections, 20);
    assert_eq!(settings.auth, AuthSettings::Hs256 { secret_ref: None });
    assert_eq!(settings.log_format, None);
    assert!(settings.notes.is_empty(), "{:?}", settings.notes);

    let names: Vec<_> = manifest
        .schedules
        .iter()
        .map(|schedule| schedule.metadata.name.as_deref().unwrap())
        .collect();
    assert_eq!(names, ["weekly-review", "close-the-month", "rest-your-eyes"]);
    let review = &manifest.schedules[0].spec;
    assert_eq!(review.schedule.shown(), "0 9 * * 1");
    assert_eq!(review.template.priority, Priority::High);
    assert_eq!(review.template.due_in.unwrap().seconds(), 8 * 60 * 60);
    assert_eq!(review.template.reminders[0].before.seconds(), 30 * 60);
    let eyes = &manifest.schedules[2].spec;
    assert_eq!(
        (eyes.overlap, eyes.catch_up.policy),
        (Overlap::Skip, CatchUpPolicy::None)
    );
    assert_eq!(eyes.schedule.shown(), "every 20m");
}

#[test]
fn each_document_knows_where_it_was_written() {
    let manifest = sample("platform.yaml");
    let text = include_str!("../../../config/samples/platform.yaml");
    for (schedule, origin) in manifest.schedules.iter().zip(&manifest.schedule_origins) {
        let name = schedule.metadata.name.as_deref().unwrap();
        let after: Vec<&str> = text.lines().skip(origin.line - 1).take(4).collect();
        assert_eq!(after[0], "apiVersion: todoplatform.dev/v1alpha1");
        assert_eq!(after[3], format!("  name: {name}"));
        assert_eq!(origin.file, "platform.yaml");
    }
}

#[test]
fn the_large_sample_runs_on_one_machine_and_says_what_has_no_effect_there() {
    let manifest = sample("production.yaml");
    let settings = Settings::from_platform(&manifest.platform);
    assert_eq!(settings.roles, Role::ALL);
    assert_eq!(settings.log_format, Some(LogFormat::Json));
    assert_eq!(
        settings.auth,
        AuthSettings::Oidc {
            issuer: "https://id.example.com".to_owned(),
            audience: "todo".to_owned()
        }
    );
    for field in [
        "version",
        "image",
        "database.urlSecretRef",
        "kafka",
        "dapr",
        "api.ingress",
        "api.autoscaling",
        "api.resources",
        "workers.relay.replicas",
        "workers.notifications.autoscaling",
        "notifications",
        "upgrade",
        "observability.podMonitor",
        "observability.alerts",
        "observability.dashboards",
        "networkPolicy",
    ] {
        let said = |note: &&String| note.starts_with(&format!("accepted, no effect here: spec.{field} ("));
        assert_eq!(
            settings.notes.iter().filter(said).count(),
            1,
            "spec.{field}: {:#?}",
            settings.notes
        );
    }
    // What has an effect, or says what happens anyway, is not in the list.
    for field in [
        "auth",
        "database.pool",
        "observability.logFormat",
        "workers.audit",
        "paused",
        "deletionPolicy",
    ] {
        assert!(
            !settings
                .notes
                .iter()
                .any(|note| note.contains(&format!("spec.{field}"))),
            "{:#?}",
            settings.notes
        );
    }
}

#[test]
fn every_sample_is_a_manifest_that_means_what_its_name_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        files.push(entry.unwrap().file_name().into_string().unwrap());
    }
    files.sort();
    assert_eq!(
        files,
        [
            "managed-kafka-scram.yaml",
            "platform.yaml",
            "production.yaml",
            "schedules.yaml"
        ]
    );

    let kafka = sample("managed-kafka-scram.yaml").platform.spec.kafka.unwrap();
    let external = kafka.external.unwrap();
    assert_eq!(external.sasl.unwrap().mechanism, SaslMechanism::ScramSha512);
    assert!(external.tls && external.manage_topics && external.ca_secret_ref.is_some());

    let [platform, schedules] = ["platform.yaml", "schedules.yaml"].map(|file| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../config/samples")
            .join(file);
        std::fs::read_to_string(path).unwrap()
    });
    let manifest = load(&[("platform.yaml", &platform), ("schedules.yaml", &schedules)])
        .unwrap_or_else(|errors| panic!("{errors:#?}"));
    assert_eq!(manifest.schedules.len(), 8);
    for schedule in &manifest.schedules {
        assert_eq!(schedule.validate(), [], "{:?}", schedule.metadata.name);
    }
    assert_eq!(
        manifest
            .schedules
            .iter()
            .filter(|schedule| schedule.spec.suspend)
            .count(),
        1
    );
}

#[test]
fn what_is_suspended_does_not_run() {
    let mut manifest = Manifest::default_platform();
    manifest.platform.spec.api.suspend = true;
    manifest.platform.spec.workers.audit.suspend = true;
    let settings = Settings::from_platform(&manifest.platform);
    assert!(!settings.api.enabled);
    assert!(!settings.runs(Role::Audit));
    assert!(settings.runs(Role::Relay));
}

#[test]
fn without_a_manifest_a_valid_platform_of_this_version_runs() {
    let manifest = Manifest::default_platform();
    assert_eq!(manifest.platform.validate(), []);
    assert!(manifest.schedules.is_empty());
    assert!(Settings::from_platform(&manifest.platform).notes.is_empty());
    // The same as the smallest manifest that one can write.
    assert_eq!(manifest.platform, sample("platform.yaml").platform);
}

#[test]
fn the_topics_have_their_own_defaults() {
    let text = "
apiVersion: todoplatform.dev/v1alpha1
kind: TodoPlatform
metadata: {name: acme}
spec:
  version: 1.4.0
  kafka:
    strimzi: {cluster: {name: events}}
    topics: {taskUpdates: {partitions: 24}}
";
    let manifest = load(&[("-", text)]).unwrap();
    let topics = manifest.platform.spec.kafka.unwrap().topics.resolved();
    let shown = topics.map(|topic| {
        (
            topic.name,
            topic.partitions,
            topic.replicas,
            topic.retention.to_string(),
        )
    });
    let expected = [
        ("task-events", 12, 3, "30d"),
        ("task-updates", 24, 3, "1d"),
        ("reminders", 6, 3, "7d"),
    ];
    assert_eq!(
        shown,
        expected.map(|(name, partitions, replicas, kept)| (name, partitions, replicas, kept.to_owned()))
    );
}

#[test]
fn several_files_are_one_manifest() {
    let text = include_str!("../../../config/samples/platform.yaml");
    let (platform, schedules) = text.split_once("---").unwrap();
    let manifest = load(&[("schedules.yaml", schedules), ("home.yaml", platform)]).unwrap();
    assert_eq!(manifest.platform, sample("platform.yaml").platform);
    assert_eq!(manifest.schedules, sample("platform.yaml").schedules);
    assert_eq!(manifest.schedule_origins[0].file, "schedules.yaml");
}
