//! One pass over a platform, and the order of its steps.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Resource as _;
use kube::runtime::controller::Action;
use todo_crds::TodoPlatform;
use todo_crds::platform::{DeletionPolicy, TodoPlatformStatus};

use super::brokers::Found;
use super::build::build;
use super::context::Context;
use super::dereference::{dereference, watched_secrets};
use super::release;
use super::seen::{Seen, database_is_ready};
use super::status::{ConditionType, Report, status, topics_are_ready};
use super::validate::validate;
use super::{Inputs, Problem, Severity, deletion};
use crate::announce;
use crate::apply::{Applied, apply};
use crate::capabilities::Capabilities;
use crate::child::{ChildKey, Children, Kind, Stage};
use crate::error::{Class, Error, Result};
use crate::metrics;
use crate::names::{Component, Names};
use crate::pace::jittered;
use crate::prune::{Data, Pruning, prune};

/// Brings a platform one pass nearer to its manifest, and says in its status where it is.
///
/// # Errors
/// The worst of what did not work, after the status has told of it.
pub async fn reconcile(context: &Context, platform: Arc<TodoPlatform>) -> Result<Done> {
    let platform = context.record.newest(platform);
    let names = Names::of(&platform);
    if platform.meta().deletion_timestamp.is_some() {
        let action = deletion::clean_up(context, &platform, &names).await?;
        return Ok(Done { action, changed: true });
    }
    // Registered before anything is read, so that no change falls in between.
    context.live.interest(&names, watched_secrets(&platform, &names));
    let capabilities = context.capabilities();
    // It is there as long as something outside of the namespace is.
    let needs_finalizer = deletion::needs_finalizer(&platform, &names, &context.live.of(&names));
    let platform = if platform.spec.paused {
        platform
    } else {
        context.record.with_finalizer(platform, needs_finalizer).await?
    };
    let seen = context.seen(&names, &Seen::default());
    let inputs = dereference(
        &context.client,
        &context.settings,
        &capabilities,
        &seen,
        &context.secrets,
        context.live.news_of_secrets(&names),
        platform,
    )
    .await?;

    let mut problems = validate(&inputs);
    let mut children = build(&inputs);
    let is_blocked = problems.iter().any(|problem| problem.severity == Severity::Blocking);
    let mut work = Work::default();
    let mut brokers = Found::before(&inputs.platform);
    if !inputs.platform.spec.paused && !is_blocked {
        brokers = context.brokers.look_after(&context.client, &inputs, &names).await?;
        problems.extend(brokers.problems.iter().cloned());
        work = apply_all(context, &capabilities, &inputs, &names, &children, &brokers, &seen).await?;
        work.changed |= prune_all(context, &capabilities, &inputs, &names, &mut children, &work, &seen).await?;
        problems.append(&mut work.problems);
    }
    let told = report(context, &inputs, &names, &children, &problems, &brokers, &seen).await?;
    let look_again = jittered(brokers.look_again.unwrap_or(context.pace.look_anew));
    match work.worst {
        Some(error) => Err(error),
        None => Ok(Done {
            action: Action::requeue(match told {
                Told::Later(wait) => wait.min(look_again),
                Told::Nothing | Told::News => look_again,
            }),
            changed: work.changed || told == Told::News,
        }),
    }
}

/// A pass that came to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// When the next one is due, if nothing happens before.
    pub action: Action,
    /// Whether it wrote anything.
    pub changed: bool,
}

/// What a pass wrote into the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// There was nothing new.
    Nothing,
    /// What was new.
    News,
    /// Nothing yet, for so long.
    Later(Duration),
}

/// What a pass did.
#[derive(Default)]
struct Work {
    /// Whether every stage was begun and nothing in it failed.
    is_complete: bool,
    changed: bool,
    problems: Vec<Problem>,
    worst: Option<Error>,
}

/// Applies stage by stage, as far as the cluster allows it now. What one child suffers does not keep the others back.
async fn apply_all(
    context: &Context,
    capabilities: &Capabilities,
    inputs: &Inputs,
    names: &Names,
    children: &Children,
    brokers: &Found,
    before: &Seen,
) -> Result<Work> {
    let mut work = Work {
        is_complete: true,
        ..Work::default()
    };
    let mut essential_failed = false;
    for stage in [Stage::Base, Stage::Migrate, Stage::Run] {
        if essential_failed || !may_begin(stage, inputs, &context.seen(names, before), names, children, brokers) {
            work.is_complete = false;
            break;
        }
        for child in children.iter().filter(|child| child.stage == stage) {
            match apply(&context.client, capabilities, &context.live, child).await {
                Ok(Applied::Unchanged) => {}
                Ok(applied) => {
                    tracing::info!(child = %child.key, ?applied, "applied");
                    work.changed = true;
                }
                // Without the API server there is nothing to go on with, and nothing to write a status to.
                Err(error @ (Error::Unavailable { .. } | Error::NotLeading)) => return Err(error),
                Err(error) => {
                    essential_failed |= is_essential(child.key.kind);
                    work.is_complete = false;
                    work.problems.extend(problem(&child.key, &error));
                    work.worst = Some(error);
                }
            }
        }
    }
    Ok(work)
}

/// Whether what a stage waits for is there.
fn may_begin(stage: Stage, inputs: &Inputs, seen: &Seen, names: &Names, children: &Children, brokers: &Found) -> bool {
    match stage {
        Stage::Base => true,
        Stage::Migrate => {
            let database = [Kind::StatefulSet, Kind::DatabaseCluster]
                .into_iter()
                .filter(|kind| children.get(&own_database(*kind, names)).is_some())
                .find_map(|kind| seen.get(kind, &names.namespace, &names.database()));
            let is_elsewhere = inputs.platform.spec.database.url_secret_ref.is_some();
            is_elsewhere || database.is_some_and(database_is_ready)
        }
        Stage::Run => {
            // What runs already goes on without its topics; what starts would make them by itself, and otherwise.
            let starts = seen.running(names).is_none();
            inputs.release.is_some() && (!starts || (topics_are_ready(children, seen) && brokers.is_ready()))
        }
    }
}

fn own_database(kind: Kind, names: &Names) -> ChildKey {
    ChildKey {
        kind,
        namespace: names.namespace.clone(),
        name: names.database(),
    }
}

/// Whether pods need it to start. What watches, grows or publishes them can come later.
fn is_essential(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::PodMonitor
            | Kind::PrometheusRule
            | Kind::Ingress
            | Kind::HttpRoute
            | Kind::ScaledObject
            | Kind::TriggerAuthentication
            | Kind::HorizontalPodAutoscaler
            | Kind::PodDisruptionBudget
    )
}

/// What a person is told of a child that could not be applied. A conflict settles itself with the next pass.
fn problem(key: &ChildKey, error: &Error) -> Option<Problem> {
    let about = match key.kind {
        Kind::KafkaTopic | Kind::KafkaUser => ConditionType::TopicsReady,
        Kind::Component | Kind::Subscription | Kind::Resiliency | Kind::Configuration => ConditionType::ComponentsReady,
        Kind::StatefulSet | Kind::DatabaseCluster => ConditionType::DatabaseReady,
        Kind::Job => ConditionType::Migrated,
        _ => ConditionType::Degraded,
    };
    let reason = match error.class() {
        Class::Conflict => return None,
        Class::Unavailable => "NotServed",
        Class::Denied => "NotAllowed",
        Class::Invalid => "Refused",
        Class::NotOurs => "NameTaken",
        Class::Bug => "OperatorMistake",
    };
    Some(Problem {
        about,
        reason,
        message: error.to_string(),
        severity: Severity::Impaired,
    })
}

/// Deletes what is no longer asked for. Pods that others take over from stay until those are there. Whether it did.
async fn prune_all(
    context: &Context,
    capabilities: &Capabilities,
    inputs: &Inputs,
    names: &Names,
    children: &mut Children,
    work: &Work,
    before: &Seen,
) -> Result<bool> {
    let seen = context.seen(names, before);
    let asked: Vec<Component> = Component::every()
        .filter(|component| children.get(&deployment(names, *component)).is_some())
        .collect();
    let have_taken_over = asked.iter().all(|component| {
        seen.deployment(names, *component)
            .is_some_and(|facts| facts.is_settled())
    });
    if !have_taken_over {
        for component in Component::every().filter(|component| !asked.contains(component)) {
            children.keep(deployment(names, component));
        }
    }
    let pruning = Pruning {
        names,
        uid: inputs.platform.metadata.uid.as_deref().unwrap_or_default(),
        built: children,
        is_complete: work.is_complete && children.is_complete(),
        data: Data::Keep,
        is_retained: inputs.platform.spec.deletion_policy == DeletionPolicy::Retain,
    };
    let deleted = prune(&context.client, capabilities, &context.live, pruning).await?;
    for key in &deleted {
        tracing::info!(child = %key, "deleted, no longer asked for");
    }
    Ok(!deleted.is_empty())
}

fn deployment(names: &Names, component: Component) -> ChildKey {
    ChildKey {
        kind: Kind::Deployment,
        namespace: names.namespace.clone(),
        name: names.component(component),
    }
}

/// Writes the status when it says anything new, and an event for each condition that has turned.
async fn report(
    context: &Context,
    inputs: &Inputs,
    names: &Names,
    children: &Children,
    problems: &[Problem],
    brokers: &Found,
    before: &Seen,
) -> Result<Told> {
    let platform = &inputs.platform;
    let target = release::target(platform, &context.settings);
    let migration = names.migration(&release::migration_hash(&target));
    let report = Report {
        platform,
        children,
        seen: &context.seen(names, before),
        problems,
        target: &target,
        migration: &migration,
        external_topics: &brokers.topics,
    };
    let (after, turns) = status(&report, Timestamp::now());
    if platform.status.as_ref() == Some(&after) {
        context.progress.forget(names);
        return Ok(Told::Nothing);
    }
    if let Some(wait) = context.progress.may_wait(names, platform.status.as_ref(), &after) {
        return Ok(Told::Later(wait));
    }
    context.record.write_status(platform.as_ref(), &after).await?;
    context.progress.forget(names);
    let runs = |status: Option<&TodoPlatformStatus>| {
        status
            .and_then(|status| status.version.as_ref()?.running.as_ref())
            .is_some()
    };
    if runs(Some(&after))
        && !runs(platform.status.as_ref())
        && let Some(made) = &platform.metadata.creation_timestamp
    {
        let took = Timestamp::now().duration_since(made.0);
        metrics::became_ready(took.try_into().unwrap_or_default());
    }
    announce::turns(&context.events, platform.as_ref(), &turns);
    Ok(Told::News)
}
