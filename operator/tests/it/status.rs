//! The status says what is, and what to do about it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use todo_crds::TodoPlatform;
use todo_crds::platform::{Phase, TodoPlatformStatus};
use todo_operator::child::{Child, ChildKey, Children, Kind, Stage, Tenure, Write};
use todo_operator::platform::seen::Seen;
use todo_operator::platform::status::{ConditionType, Finding, Report, date, status};
use todo_operator::platform::{Problem, Release, Severity};

const JOB: &str = "acme-migrate-0123456789";

/// A platform called `acme` in `todo`, and what a pass saw of it.
struct World {
    platform: TodoPlatform,
    children: Children,
    seen: Vec<(ChildKey, Value)>,
    problems: Vec<Problem>,
}

impl World {
    fn new(spec: &Value) -> Self {
        let platform = json!({
            "apiVersion": "todoplatform.dev/v1alpha1",
            "kind": "TodoPlatform",
            "metadata": {"name": "acme", "namespace": "todo", "uid": "1", "generation": 7},
            "spec": spec,
        });
        Self {
            platform: serde_json::from_value(platform).unwrap(),
            children: Children::default(),
            seen: vec![],
            problems: vec![],
        }
    }

    /// A Deployment that was asked for, with so many pods: asked for, of the newest template, ready.
    fn deployment(mut self, component: &str, version: &str, [desired, updated, ready]: [u32; 3]) -> Self {
        let key = key(Kind::Deployment, "todo", &format!("acme-{component}"));
        self.children.add(Child {
            key: key.clone(),
            stage: Stage::Run,
            tenure: Tenure::Owned,
            write: Write::Always,
            platform: "1".to_owned(),
            body: json!({}),
        });
        let object = json!({
            "metadata": {"generation": 3},
            "spec": {"replicas": desired, "template": {
                "metadata": {"labels": {"app.kubernetes.io/version": version}},
                "spec": {"containers": [{"image": format!("registry.example.com/todo:{version}")}]},
            }},
            "status": {"observedGeneration": 3, "replicas": desired, "updatedReplicas": updated, "readyReplicas": ready},
        });
        self.seen.push((key, object));
        self
    }

    fn topic(mut self, name: &str, generation: i64, ready: &Value) -> Self {
        let key = key(Kind::KafkaTopic, "kafka", name);
        self.children.add(Child {
            key: key.clone(),
            stage: Stage::Base,
            tenure: Tenure::Kept,
            write: Write::Always,
            platform: "1".to_owned(),
            body: json!({"spec": {"partitions": 12}}),
        });
        let object = json!({
            "metadata": {"generation": 2},
            "status": {"observedGeneration": generation, "conditions": [ready]},
        });
        self.seen.push((key, object));
        self
    }

    fn with(mut self, kind: Kind, name: &str, object: Value) -> Self {
        self.seen.push((key(kind, "todo", name), object));
        self
    }

    fn problem(mut self, about: ConditionType, severity: Severity, reason: &'static str, message: &str) -> Self {
        self.problems.push(Problem {
            about,
            reason,
            message: message.to_owned(),
            severity,
        });
        self
    }

    fn before(mut self, version: &str) -> Self {
        let status: TodoPlatformStatus = serde_json::from_value(json!({"version": {"running": version}})).unwrap();
        self.platform.status = Some(status);
        self
    }

    fn status(&self) -> TodoPlatformStatus {
        let version = self.platform.spec.version.clone();
        let target = Release {
            image: format!("registry.example.com/todo:{version}"),
            version,
            database: None,
        };
        let report = Report {
            platform: &self.platform,
            children: &self.children,
            seen: &self.seen.iter().cloned().collect::<Seen>(),
            problems: &self.problems,
            target: &target,
            migration: JOB,
            external_topics: &[],
        };
        status(&report, Timestamp::from_second(1_000).unwrap()).0
    }
}

fn key(kind: Kind, namespace: &str, name: &str) -> ChildKey {
    ChildKey {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// A platform with its database elsewhere.
fn plain() -> Value {
    json!({"version": "1.4.0", "database": {"urlSecretRef": {"name": "acme-db", "key": "url"}}})
}

fn over_kafka() -> Value {
    let mut spec = plain();
    spec["kafka"] = json!({"strimzi": {"cluster": {"name": "events", "namespace": "kafka"}}});
    spec
}

/// `STATUS REASON: MESSAGE`
fn said(status: &TodoPlatformStatus, kind: &str) -> String {
    let condition = condition(status, kind);
    format!("{} {}: {}", condition.status, condition.reason, condition.message)
}

fn condition<'a>(status: &'a TodoPlatformStatus, kind: &str) -> &'a Condition {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .unwrap()
}

#[test]
fn a_platform_that_is_as_asked_for_says_so_at_a_glance() {
    let status = World::new(&plain())
        .before("1.4.0")
        .deployment("api", "1.4.0", [3, 3, 3])
        .deployment("relay", "1.4.0", [2, 2, 2])
        .deployment("audit", "1.4.0", [7, 7, 7])
        .status();
    assert_eq!(
        said(&status, "Ready"),
        "True AllComponentsAvailable: api 3/3, workers 9/9"
    );
    assert_eq!(
        said(&status, "Progressing"),
        "False Settled: everything is as asked for"
    );
    assert_eq!(said(&status, "Degraded"), "False AsAsked: nothing is amiss");
    assert_eq!(said(&status, "Migrated"), "True Migrated: the schema is that of 1.4.0");
    assert_eq!(
        said(&status, "TopicsReady"),
        "True NotNeeded: no spec.kafka: events stay within each pod"
    );
    assert_eq!(status.phase, Some(Phase::Ready));
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.observed_generation == Some(7))
    );
    assert_eq!(status.observed_generation, Some(7));
    assert_eq!(status.endpoints.unwrap().api.unwrap(), "http://acme-api.todo.svc:80");
}

#[test]
fn a_component_that_is_short_of_pods_is_named() {
    let status = World::new(&plain())
        .before("1.4.0")
        .deployment("api", "1.4.0", [3, 3, 3])
        .deployment("relay", "1.4.0", [2, 2, 1])
        .deployment("audit", "1.4.0", [1, 1, 1])
        .status();
    assert_eq!(
        said(&status, "Ready"),
        "False ComponentsUnavailable: api 3/3, relay 1/2, audit 1/1"
    );
}

#[test]
fn between_the_migration_and_the_first_pods_it_says_that_they_come() {
    let migrated = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    let status = World::new(&plain()).with(Kind::Job, JOB, migrated).status();
    assert_eq!(
        said(&status, "Progressing"),
        "True RollingOut: pods are about to be made"
    );
    assert_eq!(said(&status, "Ready"), "False Starting: pods are about to be made");
}

#[test]
fn an_upgrade_counts_the_pods_that_have_arrived() {
    let status = World::new(&plain())
        .before("1.3.2")
        .deployment("api", "1.4.0", [3, 3, 3])
        .deployment("relay", "1.4.0", [4, 1, 4])
        .status();
    assert_eq!(said(&status, "Progressing"), "True RollingOut: relay 1 of 4 at 1.4.0");
    assert_eq!(
        said(&status, "Ready"),
        "True AllComponentsAvailable: api 3/3, workers 4/4"
    );
    assert_eq!(status.phase, Some(Phase::Upgrading));
    let version = status.version.unwrap();
    assert_eq!(
        (
            version.running.as_deref(),
            version.target.as_deref(),
            version.previous.as_deref()
        ),
        (Some("1.3.2"), Some("1.4.0"), None)
    );
}

#[test]
fn a_migration_that_has_just_succeeded_is_not_the_end_of_an_upgrade() {
    let job = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    let status = World::new(&plain())
        .before("1.3.2")
        .deployment("api", "1.3.2", [3, 3, 3])
        .with(Kind::Job, JOB, job)
        .status();
    assert!(said(&status, "Migrated").starts_with("True"));
    assert_eq!(said(&status, "Progressing"), "True RollingOut: api 0 of 3 at 1.4.0");
    assert_eq!(status.phase, Some(Phase::Upgrading));
}

#[test]
fn the_version_before_is_remembered_when_the_last_pod_has_arrived() {
    let status = World::new(&plain())
        .before("1.3.2")
        .deployment("api", "1.4.0", [3, 3, 3])
        .status();
    let version = status.version.unwrap();
    assert_eq!(
        (version.running.as_deref(), version.previous.as_deref()),
        (Some("1.4.0"), Some("1.3.2"))
    );
}

#[test]
fn a_missing_secret_is_told_with_its_field() {
    let message = "spec.database.urlSecretRef: there is no Secret acme-db in todo: create it with the key url";
    let status = World::new(&plain())
        .problem(
            ConditionType::DatabaseReady,
            Severity::Blocking,
            "SecretNotFound",
            message,
        )
        .status();
    assert_eq!(
        said(&status, "DatabaseReady"),
        format!("False SecretNotFound: {message}")
    );
    assert_eq!(said(&status, "Ready"), format!("False SecretNotFound: {message}"));
    assert_eq!(said(&status, "Progressing"), format!("False Blocked: {message}"));
    assert_eq!(said(&status, "Degraded"), format!("True SecretNotFound: {message}"));
    assert_eq!(
        said(&status, "Migrated"),
        "False WaitingForDatabase: the migration begins when the database is ready"
    );
    assert_eq!(status.phase, Some(Phase::Degraded));
}

#[test]
fn a_migration_whose_pod_does_not_run_says_where_to_look() {
    let said_of = |job: Value| {
        let world = World::new(&plain()).with(Kind::Job, JOB, json!({"status": job}));
        said(&world.status(), "Migrated")
    };
    let runs = format!("False Migrating: job {JOB} brings the schema to 1.4.0");
    assert_eq!(said_of(json!({"active": 1, "ready": 1})), runs);
    for job in [json!({}), json!({"active": 1, "ready": 0})] {
        let waits = said_of(job);
        assert!(
            waits.starts_with(&runs) && waits.contains("kubectl describe pod -l job-name="),
            "{waits}"
        );
    }
}

#[test]
fn a_failed_migration_says_where_to_look_and_how_to_go_on() {
    let job = json!({"status": {"failed": 4, "conditions": [
        {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"},
    ]}});
    let status = World::new(&plain())
        .before("1.3.2")
        .deployment("api", "1.3.2", [2, 2, 2])
        .with(Kind::Job, JOB, job)
        .status();
    let migrated = said(&status, "Migrated");
    assert_eq!(
        migrated,
        format!(
            "False MigrationFailed: job {JOB} failed (BackoffLimitExceeded: Job has reached the specified backoff limit); \
             see kubectl logs job/{JOB}, mend the cause, and delete the job to try again"
        )
    );
    assert!(said(&status, "Degraded").starts_with("True MigrationFailed: "));
    assert_eq!(
        said(&status, "Ready"),
        "True AllComponentsAvailable: api 2/2",
        "what runs goes on"
    );
    assert_eq!(status.phase, Some(Phase::Degraded));
    assert_eq!(status.version.unwrap().running.as_deref(), Some("1.3.2"));
}

#[test]
fn what_strimzi_will_not_do_is_told_in_its_words() {
    let refused = json!({"type": "Ready", "status": "False", "reason": "NotSupported", "message": "Decreasing partitions not supported"});
    let status = World::new(&over_kafka()).topic("acme-reminders", 2, &refused).status();
    assert_eq!(
        said(&status, "TopicsReady"),
        "False WaitingForStrimzi: KafkaTopic kafka/acme-reminders is not Ready: NotSupported: Decreasing partitions not supported"
    );
    assert!(!status.topics[0].ready);
}

#[test]
fn a_topic_that_was_ready_for_an_older_spec_is_not_ready() {
    let ready = json!({"type": "Ready", "status": "True", "reason": "", "message": ""});
    let world = |generation| {
        World::new(&over_kafka())
            .topic("acme-reminders", generation, &ready)
            .status()
    };
    assert_eq!(
        said(&world(1), "TopicsReady"),
        "False WaitingForStrimzi: Strimzi has not answered for acme-reminders"
    );
    assert_eq!(
        said(&world(2), "TopicsReady"),
        "True AllTopicsReady: 1 topics are as asked for"
    );
}

#[test]
fn a_rollout_that_kubernetes_gave_up_on_is_degraded_and_says_which_pods_to_look_at() {
    let mut world = World::new(&plain())
        .before("1.4.0")
        .deployment("audit", "1.4.0", [2, 1, 1]);
    world.seen[0].1["status"]["conditions"] = json!([
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet \"acme-audit-7\" has timed out progressing."},
    ]);
    let degraded = said(&world.status(), "Degraded");
    assert!(
        degraded.starts_with("True RolloutStuck: audit: ReplicaSet"),
        "{degraded}"
    );
    assert!(degraded.contains("app.kubernetes.io/component=audit"), "{degraded}");
}

#[test]
fn a_database_for_evaluation_is_called_that_and_says_where_data_stays() {
    let ready = json!({"status": {"readyReplicas": 1}});
    let world = |policy: &str| {
        World::new(&json!({"version": "1.4.0", "deletionPolicy": policy}))
            .with(Kind::StatefulSet, "acme-db", ready.clone())
            .status()
    };
    let kept = said(&world("Retain"), "DatabaseReady");
    assert!(
        kept.contains("fit for evaluation") && kept.contains("data-acme-db-0, it stays"),
        "{kept}"
    );
    assert!(said(&world("Delete"), "DatabaseReady").ends_with("it goes with this platform"));
}

#[test]
fn a_paused_platform_says_that_nothing_is_changed() {
    let mut spec = plain();
    spec["paused"] = json!(true);
    let status = World::new(&spec).deployment("api", "1.3.2", [2, 2, 2]).status();
    assert!(said(&status, "Paused").starts_with("True PausedBySpec: "));
    assert_eq!(status.phase, Some(Phase::Paused));
    assert_eq!(said(&status, "Ready"), "True AllComponentsAvailable: api 2/2");
}

#[test]
fn a_note_disturbs_nothing() {
    let status = World::new(&plain())
        .before("1.4.0")
        .deployment("api", "1.4.0", [1, 1, 1])
        .problem(
            ConditionType::Ready,
            Severity::Note,
            "NoPodMonitor",
            "spec.observability.podMonitor has no effect here",
        )
        .status();
    assert_eq!(
        said(&status, "Degraded"),
        "False AsAsked: nothing is amiss; spec.observability.podMonitor has no effect here"
    );
    assert_eq!(status.phase, Some(Phase::Ready));
}

#[test]
fn only_another_answer_or_another_reason_is_a_turn() {
    let before = World::new(&over_kafka()).status().conditions;
    let turned = |finding: Finding| {
        let (_, turns) = date(vec![finding], &before, Some(8), Timestamp::from_second(2_000).unwrap());
        turns.first().map(|turn| turn.since.as_second())
    };
    let ready = before.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Waiting"));
    let about = ConditionType::Ready;
    assert_eq!(turned(Finding::no(about, "Waiting", "in other words")), None);
    assert_eq!(
        turned(Finding::no(about, "ComponentsUnavailable", "api 0/1")),
        Some(1_000)
    );
    assert_eq!(
        turned(Finding::yes(about, "AllComponentsAvailable", "api 1/1")),
        Some(2_000)
    );

    let first = |finding: Finding| !date(vec![finding], &[], Some(1), Timestamp::UNIX_EPOCH).1.is_empty();
    assert!(first(Finding::yes(about, "AllComponentsAvailable", "api 1/1")));
    assert!(!first(Finding::yes(
        ConditionType::TopicsReady,
        "NotNeeded",
        "no Kafka"
    )));
    assert!(first(Finding::no(ConditionType::TopicsReady, "Making", "being made")));
    assert!(first(Finding::no(about, "Waiting", "api 0/1")));
    assert!(first(Finding::yes(
        ConditionType::Degraded,
        "ApplyFailed",
        "it was refused"
    )));
    assert!(!first(Finding::no(
        ConditionType::Degraded,
        "AsExpected",
        "nothing is the matter"
    )));
    assert!(!first(Finding::no(
        ConditionType::Paused,
        "NotPaused",
        "changes are applied"
    )));
}
