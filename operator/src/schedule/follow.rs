//! Following platforms: one cheap request for each, again and again, brings what has changed of its schedules.
//!
//! However many schedules a platform has, none is asked for by itself. Once in a while everything is read anew: a
//! database that was restored to an earlier state cannot be told from the changes. What a platform still has of a
//! resource that is gone is deleted there, so that it makes no more tasks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt as _};
use todo_crds::RecurringSchedule;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::access::access;
use super::internal_api::{Access, CallError, InternalApi, State};
use super::states::States;
use crate::live::Live;
use crate::names::Names;
use crate::resources::Resources;

/// How often a platform is asked what has changed.
const EVERY: Duration = Duration::from_secs(5);
/// How often everything is read anew.
const ANEW_EVERY: Duration = Duration::from_mins(30);
/// How many platforms are asked at once.
const AT_ONCE: usize = 16;
/// How often a platform that does not answer is asked, at the least.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What is followed, and who is told.
#[derive(Clone)]
pub struct Follower {
    client: Client,
    api: InternalApi,
    /// The internal keys are among the children of platforms.
    live: Live,
    schedules: Resources<RecurringSchedule>,
    states: States,
    /// Where schedules go that have changed.
    changed: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<RecurringSchedule>>>,
    /// How far each platform was read.
    places: Arc<Mutex<HashMap<Names, Place>>>,
}

/// How far a platform was read.
#[derive(Clone, Debug, Default)]
struct Place {
    cursor: Option<String>,
    read_anew: Option<Instant>,
    /// Not before; and how often in a row it did not answer.
    not_before: Option<Instant>,
    failures: u32,
}

impl Follower {
    /// A follower of those that `schedules` name. What changes goes into `states`, and who it concerns to `changed`.
    pub fn new(
        client: Client,
        api: InternalApi,
        live: Live,
        schedules: Resources<RecurringSchedule>,
        states: States,
        changed: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<RecurringSchedule>>>,
    ) -> Self {
        Self {
            client,
            api,
            live,
            schedules,
            states,
            changed,
            places: Arc::default(),
        }
    }

    /// Follows every platform that has a schedule, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        // What is not in the store yet must not be taken for gone.
        if stop.run_until_cancelled(self.schedules.filled()).await.is_none() {
            return;
        }
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut polls: JoinSet<Names> = JoinSet::new();
        let mut polled: HashSet<Names> = HashSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = polls.join_next() => {
                    if let Ok(platform) = done {
                        polled.remove(&platform);
                    }
                    continue;
                }
                _ = ticks.tick() => {}
            }
            let platforms = self.platforms();
            self.forget_others(&platforms);
            for platform in platforms {
                let is_due = self.place(&platform).not_before.is_none_or(|at| at <= Instant::now());
                if is_due && polls.len() < AT_ONCE && polled.insert(platform.clone()) {
                    let follower = self.clone();
                    polls.spawn(async move {
                        follower.poll(&platform).await;
                        platform
                    });
                }
            }
        }
    }

    /// Those that some schedule names.
    fn platforms(&self) -> HashSet<Names> {
        let schedules = self.schedules.all();
        let readable = schedules.iter().filter_map(|schedule| schedule.0.as_ref().ok());
        readable.map(platform_of).collect()
    }

    fn forget_others(&self, platforms: &HashSet<Names>) {
        self.places().retain(|platform, _| {
            let stays = platforms.contains(platform);
            if !stays {
                self.states.drop_platform(platform);
            }
            stays
        });
    }

    fn place(&self, platform: &Names) -> Place {
        self.places().get(platform).cloned().unwrap_or_default()
    }

    fn places(&self) -> std::sync::MutexGuard<'_, HashMap<Names, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn poll(&self, platform: &Names) {
        let mut place = self.place(platform);
        match self.read(platform, &mut place).await {
            Ok(()) => {
                place.failures = 0;
                place.not_before = None;
            }
            Err(error) => {
                place.failures = place.failures.saturating_add(1);
                let pause = EVERY.saturating_mul(1 << place.failures.min(6)).min(LONGEST_PAUSE);
                place.not_before = Some(Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0)));
                tracing::debug!(platform = %platform.platform, namespace = %platform.namespace, %error, "cannot be followed");
            }
        }
        self.places().insert(platform.clone(), place);
    }

    async fn read(&self, platform: &Names, place: &mut Place) -> Result<(), CallError> {
        let access = access(&self.live, platform)
            .ok_or_else(|| CallError::Unavailable("its internal key is not made yet".to_owned()))?;
        let is_stale = place.read_anew.is_none_or(|at| at.elapsed() >= ANEW_EVERY);
        let mut cursor = place.cursor.clone().filter(|_| !is_stale);
        let mut items = vec![];
        loop {
            let changes = self.api.changes(platform, &access, cursor.as_deref()).await?;
            items.extend(changes.items);
            cursor = Some(changes.cursor);
            if !changes.has_more {
                break;
            }
        }
        place.cursor = cursor;
        if !is_stale {
            self.tell(self.states.change(platform, items));
            return Ok(());
        }
        let is_first = place.read_anew.is_none();
        let gone: Vec<State> = items.iter().filter(|state| !self.is_declared(state)).cloned().collect();
        let changed = self.states.replace(platform, items);
        place.read_anew = Some(Instant::now());
        if is_first {
            // Now it is known what the platform does not have.
            self.tell_all(platform);
        } else {
            self.tell(changed);
        }
        for state in gone {
            self.delete_if_gone(platform, &access, &state).await?;
        }
        Ok(())
    }

    fn tell(&self, states: Vec<State>) {
        for state in states {
            if let Some((namespace, name)) = state.origin.split_once('/') {
                // Without a receiver the operator is about to end.
                let _ = self.changed.send(ObjectRef::new(name).within(namespace));
            }
        }
    }

    fn tell_all(&self, platform: &Names) {
        for schedule in self.schedules.all() {
            if schedule
                .0
                .as_ref()
                .is_ok_and(|schedule| platform_of(schedule) == *platform)
            {
                let _ = self.changed.send(ObjectRef::from_obj(schedule.as_ref()));
            }
        }
    }

    /// Whether there is a resource behind it, by what is known here.
    fn is_declared(&self, state: &State) -> bool {
        let Some((namespace, name)) = state.origin.split_once('/') else {
            return true;
        };
        self.schedules.get(&ObjectRef::new(name).within(namespace)).is_some()
    }

    /// Deletes what a platform has of a resource that is gone: someone took the finalizer away, or the cluster was
    /// restored. The cluster itself is asked first.
    async fn delete_if_gone(&self, platform: &Names, access: &Access, state: &State) -> Result<(), CallError> {
        let Some((namespace, name)) = state.origin.split_once('/') else {
            return Ok(());
        };
        if namespace != platform.namespace {
            return Ok(());
        }
        let api: Api<RecurringSchedule> = Api::namespaced(self.client.clone(), namespace);
        match api.get_metadata_opt(name).await {
            Ok(None) => {
                tracing::warn!(schedule = %state.origin, uid = %state.uid, "its resource is gone, deleting it at its platform");
                self.api.delete(platform, access, &state.uid).await?;
                self.states.forget(platform, &state.uid);
                Ok(())
            }
            Ok(Some(_)) => Ok(()),
            Err(error) => Err(CallError::Unavailable(error.to_string())),
        }
    }
}

/// The platform of a schedule: in its own namespace.
pub fn platform_of(schedule: &RecurringSchedule) -> Names {
    Names {
        namespace: schedule.namespace().unwrap_or_default(),
        platform: schedule.spec.platform_ref.name.clone(),
    }
}
