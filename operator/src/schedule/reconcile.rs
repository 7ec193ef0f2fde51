//! One pass over a `RecurringSchedule`.

use std::sync::Arc;

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use todo_crds::{RecurringSchedule, TodoPlatform};

use super::access::access;
use super::follow::platform_of;
use super::internal_api::{CallError, InternalApi};
use super::states::{Known, States};
use super::status::{Outcome, status};
use crate::announce;
use crate::error::{Error, Result};
use crate::events::Recorder;
use crate::live::Live;
use crate::names::Names;
use crate::record::{Record, has_finalizer};
use crate::resources::Resources;

/// What every pass has at hand. Clones share it.
#[derive(Clone)]
pub struct Context {
    /// What is written into the schedules themselves.
    pub record: Record<RecurringSchedule>,
    /// The way to platforms.
    pub api: InternalApi,
    /// The children of platforms, the internal keys among them.
    pub live: Live,
    /// The platforms.
    pub platforms: Resources<TodoPlatform>,
    /// What platforms say.
    pub states: States,
    /// Who tells of transitions.
    pub events: Recorder,
}

/// Brings a schedule to its platform and says in its status what became of it.
///
/// # Errors
/// Those of the API server. What a platform says is no error but an outcome.
pub async fn reconcile(context: &Context, schedule: Arc<RecurringSchedule>) -> Result<Pass> {
    let schedule = context.record.newest(schedule);
    let platform = platform_of(&schedule);
    // A platform that is not in the store yet must not be taken for one that is not there.
    if context.platforms.filled().await.is_err() {
        return Ok(Pass::Done { changed: false });
    }
    let lives = context.platform_lives(&platform);
    if schedule.meta().deletion_timestamp.is_some() {
        return delete(context, &schedule, &platform, lives).await;
    }
    if !lives {
        let schedule = context.record.with_finalizer(schedule, false).await?;
        return report(context, &schedule, Outcome::NoPlatform).await;
    }
    let problems = schedule.validate();
    if !problems.is_empty() {
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return refuse(context, &schedule, &platform, said.join("; ")).await;
    }
    let declared = match schedule.declared(&platform.platform) {
        Ok(declared) => declared,
        Err(problem) => return refuse(context, &schedule, &platform, problem.to_string()).await,
    };
    let uid = schedule.uid().unwrap_or_default();
    let known = context.states.get(&platform, &uid);
    if let Known::Present(state) = &known
        && state.hash.as_ref() == Some(&declared.hash)
        && !state.deleted
    {
        return report(context, &schedule, Outcome::Followed(state.clone())).await;
    }
    let Some(access) = access(&context.live, &platform) else {
        return wait(context, &schedule, "its internal key is not made yet").await;
    };
    if matches!(known, Known::NotYet) {
        return wait(context, &schedule, "its API has not answered yet").await;
    }
    // Before the platform has it, so that it is never left there.
    let schedule = context.record.with_finalizer(schedule, true).await?;
    match context.api.put(&platform, &access, &uid, &declared).await {
        Ok(state) => {
            context.states.note(&platform, state.clone());
            report(context, &schedule, Outcome::Followed(state)).await
        }
        Err(CallError::Invalid(why)) => refuse(context, &schedule, &platform, why).await,
        Err(error) => fail(context, &schedule, error).await,
    }
}

/// Says why it cannot be, and what its platform does meanwhile.
async fn refuse(context: &Context, schedule: &Arc<RecurringSchedule>, platform: &Names, why: String) -> Result<Pass> {
    let known = context.states.get(platform, &schedule.uid().unwrap_or_default());
    let goes_on = matches!(known, Known::Present(state) if !state.deleted);
    let meanwhile = if goes_on {
        "; until then its platform goes by what it had before"
    } else {
        ""
    };
    report(context, schedule, Outcome::Invalid(format!("{why}{meanwhile}"))).await
}

/// Says so, and asks for another attempt.
async fn fail(context: &Context, schedule: &Arc<RecurringSchedule>, error: CallError) -> Result<Pass> {
    let again = Error::Platform(error.to_string());
    report(context, schedule, Outcome::Failed(error)).await?;
    Ok(Pass::Again(again))
}

/// What follows a pass.
#[derive(Debug)]
pub enum Pass {
    /// Nothing, until something changes.
    Done {
        /// Whether anything was written.
        changed: bool,
    },
    /// Its platform did not answer so: another attempt, later each time.
    Again(Error),
}

impl Context {
    /// Whether the platform is there to stay.
    fn platform_lives(&self, platform: &Names) -> bool {
        let reference = ObjectRef::new(&platform.platform).within(&platform.namespace);
        let found = self.platforms.get(&reference);
        found.is_some_and(|platform| platform.meta().deletion_timestamp.is_none())
    }
}

/// A platform that goes takes its schedules with it, and one that is gone has none.
async fn delete(
    context: &Context,
    schedule: &Arc<RecurringSchedule>,
    platform: &Names,
    platform_lives: bool,
) -> Result<Pass> {
    if !has_finalizer(schedule.as_ref()) {
        return Ok(Pass::Done { changed: false });
    }
    if platform_lives {
        let uid = schedule.uid().unwrap_or_default();
        if let Some(access) = access(&context.live, platform) {
            if let Err(error) = context.api.delete(platform, &access, &uid).await {
                return fail(context, schedule, error).await;
            }
            context.states.forget(platform, &uid);
        }
    }
    match context.record.with_finalizer(Arc::clone(schedule), false).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Pass::Done { changed: true }),
    }
}

/// A platform that was not asked yet says nothing about a schedule that it may have: what was said before stands.
async fn wait(context: &Context, schedule: &Arc<RecurringSchedule>, why: &str) -> Result<Pass> {
    let observed = schedule.status.as_ref().and_then(|status| status.observed_generation);
    if observed.is_some() && observed == schedule.metadata.generation {
        return Ok(Pass::Done { changed: false });
    }
    report(context, schedule, Outcome::PlatformNotReady(why.to_owned())).await
}

/// Writes the status when it says anything new, and an event for each condition that has turned.
async fn report(context: &Context, schedule: &Arc<RecurringSchedule>, outcome: Outcome) -> Result<Pass> {
    let (after, turns) = status(schedule, &outcome, Timestamp::now());
    if schedule.status.as_ref() == Some(&after) {
        return Ok(Pass::Done { changed: false });
    }
    match context.record.write_status(schedule.as_ref(), &after).await {
        Err(error) if error.is_not_found() => return Ok(Pass::Done { changed: false }),
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    announce::turns(&context.events, schedule.as_ref(), &turns);
    Ok(Pass::Done { changed: true })
}
