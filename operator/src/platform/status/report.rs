//! From what a pass saw and did to the status: pure, so that every wording can be held to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use todo_crds::TodoPlatform;
use todo_crds::platform::{ComponentStatus, Endpoints, Phase, TodoPlatformStatus, TopicStatus, VersionStatus};

use super::conditions::{ConditionType, Finding, Turn, date};
use crate::child::{ChildKey, Children, Kind};
use crate::names::{Component, Names};
use crate::platform::seen::{self, DeploymentFacts, JobFacts, Seen, TopicFacts};
use crate::platform::{Problem, Release, Severity};

/// What is said between the migration and the first pods.
const ABOUT_TO_BE_MADE: &str = "pods are about to be made";

/// What a pass saw and did.
#[derive(Debug)]
pub struct Report<'a> {
    /// The platform, with the status that it has.
    pub platform: &'a TodoPlatform,
    /// What was built.
    pub children: &'a Children,
    /// The children as the cluster has them, after what was applied.
    pub seen: &'a Seen,
    /// What stands in the way.
    pub problems: &'a [Problem],
    /// The release that is asked for.
    pub target: &'a Release,
    /// The Job of the target's migration, by name.
    pub migration: &'a str,
    /// The topics of a Kafka without Strimzi, as they were found; none when it was not asked.
    pub external_topics: &'a [TopicStatus],
}

/// The status that says so, and the conditions that have turned.
pub fn status(report: &Report<'_>, now: Timestamp) -> (TodoPlatformStatus, Vec<Turn>) {
    let platform = report.platform;
    let names = Names::of(platform);
    let before = platform.status.clone().unwrap_or_default();
    let generation = platform.metadata.generation;
    let components = components(report, &names);
    let topics = topics(report);

    let database = database(report, &names);
    let migrated = migrated(report, &names, &database);
    let sidecars = sidecars(report, &components);
    let events = events(report, &topics);
    let paused = paused(platform);
    let ready = ready(report, &components, [&database, &migrated, &events]);
    let progressing = progressing(report, &names, &components, &migrated);
    let degraded = degraded(report, &components, [&database, &migrated, &events, &sidecars]);
    let phase = phase(platform, &before, report.target, [&ready, &progressing, &degraded]);

    let version = version(report, &names, &before);
    let findings = vec![
        ready,
        progressing,
        degraded,
        database,
        migrated,
        events,
        sidecars,
        paused,
    ];
    let (conditions, turns) = date(findings, &before.conditions, generation, now);
    let status = TodoPlatformStatus {
        observed_generation: generation,
        phase: Some(phase),
        version: Some(version),
        conditions,
        components: components.into_iter().map(|component| component.shown).collect(),
        topics,
        endpoints: endpoints(report, &names),
    };
    (status, turns)
}

/// A component as it should be and as it is.
struct ComponentState {
    shown: ComponentStatus,
    facts: Option<DeploymentFacts>,
}

impl ComponentState {
    fn is_settled(&self) -> bool {
        self.facts.as_ref().is_some_and(DeploymentFacts::is_settled)
    }

    /// Whether it is where the target release is.
    fn has_arrived(&self, target: &Release, names: &Names) -> bool {
        self.is_settled() && self.release().is_some_and(|release| release.is(target, names))
    }

    fn release(&self) -> Option<&Release> {
        self.facts.as_ref()?.release.as_ref()
    }

    fn is_available(&self) -> bool {
        self.shown.ready >= self.shown.desired && self.facts.as_ref().is_some_and(|facts| facts.is_current)
    }
}

/// Those that are asked for, and those that still run.
fn components(report: &Report<'_>, names: &Names) -> Vec<ComponentState> {
    let asked = |component| {
        let key = ChildKey {
            kind: Kind::Deployment,
            namespace: names.namespace.clone(),
            name: names.component(component),
        };
        report.children.get(&key).is_some()
    };
    Component::every()
        .filter_map(|component| {
            let facts = report.seen.deployment(names, component);
            if facts.is_none() && !asked(component) {
                return None;
            }
            let known = facts.clone().unwrap_or_default();
            Some(ComponentState {
                shown: ComponentStatus {
                    name: component.to_string(),
                    desired: known.desired,
                    ready: known.ready,
                    version: known.release.map(|release| release.version),
                },
                facts,
            })
        })
        .collect()
}

/// The topics as Strimzi, or the brokers themselves, have them.
fn topics(report: &Report<'_>) -> Vec<TopicStatus> {
    let strimzi = report
        .children
        .iter()
        .filter(|child| child.key.kind == Kind::KafkaTopic);
    let strimzi = strimzi.map(|child| {
        let key = &child.key;
        let partitions = child
            .body
            .pointer("/spec/partitions")
            .and_then(serde_json::Value::as_u64);
        let found = report.seen.get(key.kind, &key.namespace, &key.name);
        TopicStatus {
            name: key.name.clone(),
            partitions: partitions.and_then(|partitions| u32::try_from(partitions).ok()),
            ready: found.is_some_and(|topic| TopicFacts::read(topic) == TopicFacts::Ready),
        }
    });
    let mut topics: Vec<TopicStatus> = strimzi.chain(report.external_topics.iter().cloned()).collect();
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    topics
}

/// The first problem with this condition that is more than a note.
fn problem<'a>(report: &'a Report<'_>, about: ConditionType) -> Option<&'a Problem> {
    let mut problems = report.problems.iter();
    problems.find(|problem| problem.about == about && problem.severity > Severity::Note)
}

/// Every note, after what is said anyway.
fn with_notes(report: &Report<'_>, message: String) -> String {
    report
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Note)
        .fold(message, |message, note| format!("{message}; {}", note.message))
}

fn database(report: &Report<'_>, names: &Names) -> Finding {
    const ABOUT: ConditionType = ConditionType::DatabaseReady;
    if let Some(problem) = problem(report, ABOUT) {
        return Finding::no(ABOUT, problem.reason, &problem.message);
    }
    // Also where one of its own is still there from before.
    if let Some(secret) = &report.platform.spec.database.url_secret_ref {
        return Finding::yes(
            ABOUT,
            "Given",
            format!("the URL is in Secret {}, key {}", secret.name, secret.key),
        );
    }
    let keeps = match report.platform.spec.deletion_policy {
        todo_crds::platform::DeletionPolicy::Retain => "it stays when this platform is deleted",
        todo_crds::platform::DeletionPolicy::Delete => "it goes with this platform",
    };
    let name = names.database();
    let own = |kind| report.seen.get(kind, &names.namespace, &name);
    if let Some(cluster) = own(Kind::DatabaseCluster) {
        return if seen::database_is_ready(cluster) {
            Finding::yes(
                ABOUT,
                "ClusterReady",
                format!("CloudNativePG cluster {name} is ready; {keeps}"),
            )
        } else {
            let phase = cluster.pointer("/status/phase").and_then(serde_json::Value::as_str);
            let phase = phase.unwrap_or("CloudNativePG has not looked at it yet");
            Finding::no(
                ABOUT,
                "WaitingForCluster",
                format!(
                    "CloudNativePG cluster {name} is not ready: {phase}; see kubectl describe cluster.postgresql.cnpg.io {name}"
                ),
            )
        };
    }
    if let Some(server) = own(Kind::StatefulSet) {
        return if seen::database_is_ready(server) {
            let message = format!(
                "PostgreSQL {name} is ready, one pod without replicas and backups: fit for evaluation; its data is in \
                 the volume claim data-{name}-0, {keeps}"
            );
            Finding::yes(ABOUT, "EvaluationDatabase", message)
        } else {
            Finding::no(
                ABOUT,
                "WaitingForPostgreSQL",
                format!("PostgreSQL {name}-0 is not ready; see kubectl describe pod {name}-0"),
            )
        };
    }
    Finding::no(ABOUT, "Making", "the platform's own PostgreSQL is being made")
}

fn migrated(report: &Report<'_>, names: &Names, database: &Finding) -> Finding {
    const ABOUT: ConditionType = ConditionType::Migrated;
    let version = &report.target.version;
    if let Some(problem) = problem(report, ABOUT) {
        return Finding::no(ABOUT, problem.reason, &problem.message);
    }
    if report
        .seen
        .running(names)
        .is_some_and(|running| running.is(report.target, names))
    {
        return Finding::yes(ABOUT, "Migrated", format!("the schema is that of {version}"));
    }
    let job = report.migration;
    match report.seen.get(Kind::Job, &names.namespace, job).map(JobFacts::read) {
        Some(JobFacts::Succeeded) => Finding::yes(ABOUT, "Migrated", format!("the schema is that of {version}")),
        Some(JobFacts::Running { failed: 0, runs: true }) => {
            Finding::no(ABOUT, "Migrating", format!("job {job} brings the schema to {version}"))
        }
        Some(JobFacts::Running { failed: 0, runs: false }) => Finding::no(
            ABOUT,
            "Migrating",
            format!(
                "job {job} brings the schema to {version} as soon as its pod runs; what that waits for: kubectl describe \
                 pod -l job-name={job}"
            ),
        ),
        Some(JobFacts::Running { failed, .. }) => Finding::no(
            ABOUT,
            "MigrationRetrying",
            format!("job {job} failed {failed} times and is tried again; see kubectl logs job/{job}"),
        ),
        Some(JobFacts::Failed(why)) => Finding::no(
            ABOUT,
            "MigrationFailed",
            format!(
                "job {job} failed ({why}); see kubectl logs job/{job}, mend the cause, and delete the job to try again"
            ),
        ),
        None if !database.holds() => Finding::no(
            ABOUT,
            "WaitingForDatabase",
            "the migration begins when the database is ready",
        ),
        None => Finding::no(
            ABOUT,
            "Waiting",
            format!("job {job} is about to bring the schema to {version}"),
        ),
    }
}

/// Whether every topic that was built is as asked for. Those of a Kafka without Strimzi are not built.
pub fn topics_are_ready(children: &Children, seen: &Seen) -> bool {
    let mut topics = children.iter().filter(|child| child.key.kind == Kind::KafkaTopic);
    topics.all(|child| {
        let found = seen.get(Kind::KafkaTopic, &child.key.namespace, &child.key.name);
        found.is_some_and(|topic| TopicFacts::read(topic) == TopicFacts::Ready)
    })
}

fn events(report: &Report<'_>, topics: &[TopicStatus]) -> Finding {
    const ABOUT: ConditionType = ConditionType::TopicsReady;
    let Some(kafka) = &report.platform.spec.kafka else {
        return Finding::yes(ABOUT, "NotNeeded", "no spec.kafka: events stay within each pod");
    };
    if let Some(problem) = problem(report, ABOUT) {
        return Finding::no(ABOUT, problem.reason, &problem.message);
    }
    if kafka.external.as_ref().is_some_and(|external| !external.manage_topics) {
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        return Finding::yes(
            ABOUT,
            "NotManaged",
            format!(
                "spec.kafka.external.manageTopics is false: these must exist: {}",
                names.join(", ")
            ),
        );
    }
    let mut waiting = vec![];
    // Those of another Kafka that it had before may be there still.
    let asked = report.seen.of(Kind::KafkaTopic);
    for (key, topic) in asked.filter(|(key, _)| report.children.get(key).is_some()) {
        match TopicFacts::read(topic) {
            TopicFacts::Ready => {}
            TopicFacts::Waiting => waiting.push(key.name.as_str()),
            TopicFacts::NotReady(why) => {
                return Finding::no(
                    ABOUT,
                    "WaitingForStrimzi",
                    format!("KafkaTopic {}/{} is not Ready: {why}", key.namespace, key.name),
                );
            }
        }
    }
    if !waiting.is_empty() {
        return Finding::no(
            ABOUT,
            "WaitingForStrimzi",
            format!("Strimzi has not answered for {}", waiting.join(", ")),
        );
    }
    let missing: Vec<&str> = topics
        .iter()
        .filter(|topic| !topic.ready)
        .map(|topic| topic.name.as_str())
        .collect();
    if missing.is_empty() {
        Finding::yes(
            ABOUT,
            "AllTopicsReady",
            format!("{} topics are as asked for", topics.len()),
        )
    } else {
        Finding::no(ABOUT, "Making", format!("being made: {}", missing.join(", ")))
    }
}

fn sidecars(report: &Report<'_>, components: &[ComponentState]) -> Finding {
    const ABOUT: ConditionType = ConditionType::ComponentsReady;
    if report.platform.spec.kafka.is_none() && report.platform.spec.dapr.is_none() {
        return Finding::yes(
            ABOUT,
            "NotNeeded",
            "neither spec.kafka nor spec.dapr: there are no sidecars",
        );
    }
    if let Some(problem) = problem(report, ABOUT) {
        return Finding::no(ABOUT, problem.reason, &problem.message);
    }
    let manifests = report
        .children
        .iter()
        .filter(|child| child.key.kind.group() == "dapr.io")
        .count();
    if !components.is_empty() && components.iter().all(ComponentState::is_available) {
        return Finding::yes(
            ABOUT,
            "Loaded",
            format!("{manifests} Dapr resources; every sidecar is ready with them"),
        );
    }
    Finding::unknown(
        ABOUT,
        "WaitingForSidecars",
        format!("{manifests} Dapr resources are there; whether sidecars load them shows when the pods are ready"),
    )
}

fn paused(platform: &TodoPlatform) -> Finding {
    if platform.spec.paused {
        Finding::yes(
            ConditionType::Paused,
            "PausedBySpec",
            "spec.paused is true: nothing is changed; what runs goes on",
        )
    } else {
        Finding::no(ConditionType::Paused, "NotPaused", "changes are applied")
    }
}

/// "api 3/3, workers 9/9", or each on its own where one is short.
fn counted(components: &[ComponentState]) -> String {
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let is_short = components
        .iter()
        .any(|component| component.shown.ready < component.shown.desired);
    let mut order = vec![];
    for component in components {
        let shown = &component.shown;
        let group = match shown.name.as_str() {
            "api" | "all" => shown.name.as_str(),
            name if is_short => name,
            _ => "workers",
        };
        if !order.contains(&group) {
            order.push(group);
        }
        let count = counts.entry(group).or_default();
        count.0 += shown.ready;
        count.1 += shown.desired;
    }
    let shown = order
        .iter()
        .map(|group| format!("{group} {}/{}", counts[group].0, counts[group].1));
    shown.collect::<Vec<_>>().join(", ")
}

fn ready(report: &Report<'_>, components: &[ComponentState], needed: [&Finding; 3]) -> Finding {
    const ABOUT: ConditionType = ConditionType::Ready;
    let blocking = report
        .problems
        .iter()
        .find(|problem| problem.severity == Severity::Blocking);
    if components.is_empty() {
        let first = needed.into_iter().find(|finding| !finding.holds());
        return match (blocking, first) {
            (Some(problem), _) => Finding::no(ABOUT, problem.reason, &problem.message),
            (None, Some(finding)) => Finding::no(ABOUT, finding.reason, &finding.message),
            (None, None) => Finding::no(ABOUT, "Starting", ABOUT_TO_BE_MADE),
        };
    }
    let message = counted(components);
    if components.iter().all(ComponentState::is_available) {
        Finding::yes(ABOUT, "AllComponentsAvailable", message)
    } else {
        Finding::no(ABOUT, "ComponentsUnavailable", message)
    }
}

fn progressing(report: &Report<'_>, names: &Names, components: &[ComponentState], migrated: &Finding) -> Finding {
    const ABOUT: ConditionType = ConditionType::Progressing;
    if report.platform.spec.paused {
        return Finding::no(ABOUT, "Paused", "spec.paused is true");
    }
    if let Some(problem) = report
        .problems
        .iter()
        .find(|problem| problem.severity == Severity::Blocking)
    {
        return Finding::no(ABOUT, "Blocked", &problem.message);
    }
    if !migrated.holds() {
        return Finding::yes(ABOUT, migrated.reason, &migrated.message);
    }
    let moving: Vec<&ComponentState> = components
        .iter()
        .filter(|component| !component.has_arrived(report.target, names))
        .collect();
    if components.is_empty() {
        return Finding::yes(ABOUT, "RollingOut", ABOUT_TO_BE_MADE);
    }
    if moving.is_empty() {
        return Finding::no(ABOUT, "Settled", "everything is as asked for");
    }
    let version = &report.target.version;
    let shown: Vec<String> = moving
        .iter()
        .map(|component| match &component.facts {
            Some(facts) => {
                let is_newest = component
                    .release()
                    .is_some_and(|release| release.is(report.target, names));
                let arrived = if is_newest { facts.updated } else { 0 };
                format!("{} {arrived} of {} at {version}", component.shown.name, facts.desired)
            }
            None => format!("{} is about to be made", component.shown.name),
        })
        .collect();
    Finding::yes(ABOUT, "RollingOut", shown.join(", "))
}

fn degraded(report: &Report<'_>, components: &[ComponentState], others: [&Finding; 4]) -> Finding {
    const ABOUT: ConditionType = ConditionType::Degraded;
    let stuck = components.iter().find_map(|component| {
        let why = component.facts.as_ref()?.stuck.as_deref()?;
        Some(format!(
            "{}: {why}; see kubectl describe pod -l app.kubernetes.io/instance={},app.kubernetes.io/component={}",
            component.shown.name,
            Names::of(report.platform).platform,
            component.shown.name
        ))
    });
    if let Some(stuck) = stuck {
        return Finding::yes(ABOUT, "RolloutStuck", stuck);
    }
    let mut serious = report
        .problems
        .iter()
        .filter(|problem| problem.severity > Severity::Note);
    if let Some(first) = serious.next() {
        let more = serious.fold(String::new(), |text, problem| format!("{text}; {}", problem.message));
        return Finding::yes(ABOUT, first.reason, format!("{}{more}", first.message));
    }
    let failed = ["MigrationFailed", "MigrationRetrying"];
    if let Some(failed) = others.into_iter().find(|finding| failed.contains(&finding.reason)) {
        return Finding::yes(ABOUT, failed.reason, &failed.message);
    }
    let message = with_notes(report, "nothing is amiss".to_owned());
    Finding::no(ABOUT, "AsAsked", message)
}

fn phase(
    platform: &TodoPlatform,
    before: &TodoPlatformStatus,
    target: &Release,
    [ready, progressing, degraded]: [&Finding; 3],
) -> Phase {
    if platform.metadata.deletion_timestamp.is_some() {
        return Phase::Deleting;
    }
    if platform.spec.paused {
        return Phase::Paused;
    }
    if degraded.holds() {
        return Phase::Degraded;
    }
    let ran = before.version.as_ref().and_then(|version| version.running.as_deref());
    if progressing.holds() {
        return match ran {
            Some(ran) if ran != target.version => Phase::Upgrading,
            None if !ready.holds() => Phase::Pending,
            _ => Phase::Progressing,
        };
    }
    if ready.holds() {
        Phase::Ready
    } else {
        Phase::Progressing
    }
}

/// What runs is what every component runs, so it changes at the end of a rollout.
fn version(report: &Report<'_>, names: &Names, before: &TodoPlatformStatus) -> VersionStatus {
    let before = before.version.clone().unwrap_or_default();
    let deployments: Vec<DeploymentFacts> = Component::every()
        .filter_map(|component| report.seen.deployment(names, component))
        .collect();
    let target = report.target;
    let arrived = !deployments.is_empty()
        && deployments
            .iter()
            .all(|facts| facts.is_settled() && facts.release.as_ref().is_some_and(|release| release.is(target, names)));
    let running = if arrived {
        Some(target.version.clone())
    } else {
        before.running.clone()
    };
    let previous = if running == before.running {
        before.previous
    } else {
        before.running
    };
    VersionStatus {
        running,
        target: Some(target.version.clone()),
        previous,
    }
}

fn endpoints(report: &Report<'_>, names: &Names) -> Option<Endpoints> {
    let spec = &report.platform.spec;
    if spec.api.suspend {
        return None;
    }
    let (namespace, service) = (&names.namespace, names.api_service());
    let ingress = spec.api.ingress.as_ref().map(|ingress| {
        let scheme = if ingress.tls_secret_name.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", ingress.host)
    });
    // Whether there is TLS is the gateway's affair; a name for the world outside has it.
    let route = spec.api.http_route.as_ref();
    let route = route.map(|route| format!("https://{}", route.host));
    Some(Endpoints {
        api: Some(format!("http://{service}.{namespace}.svc:80")),
        external: ingress.or(route),
    })
}
