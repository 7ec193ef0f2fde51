//! The operator at work: discovery, the cache, and the two reconcilers, from the moment that it leads until it is told to
//! stop or leads no more.
//!
//! Where only some namespaces are watched, each has reconcilers of its own, so that no request is made that a role for
//! those namespaces would not allow.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream;
use futures::{Stream, StreamExt as _};
use kube::core::DeserializeGuard;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action, Config};
use kube::runtime::reflector::{self, ObjectRef};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use todo_crds::{RecurringSchedule, TodoPlatform};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::announce;
use crate::backoff::Backoff;
use crate::capabilities::Capabilities;
use crate::discovery::Discovery;
use crate::error::{Error, Result};
use crate::events::{self, Recorder};
use crate::lease::Leadership;
use crate::live::{Live, Scope};
use crate::metrics::{self, Outcome, Reconciler};
use crate::names::Names;
use crate::pace::Pace;
use crate::platform::dereference::SecretsRead;
use crate::platform::{self, Brokers, Departures, Done, Progress};
use crate::record::Record;
use crate::resources::{Change, Resources, watched};
use crate::schedule;
use crate::schedule::follow::{Follower, platform_of};
use crate::schedule::internal_api::{InternalApi, Route};
use crate::schedule::reconcile::Pass;
use crate::schedule::states::States;
use crate::settings::Settings;
use crate::waiting::{Key, Waiting};

/// How often it is read what the cluster offers.
const DISCOVER_EVERY: Duration = Duration::from_secs(30);
/// How many passes over schedules run at once for each over a platform: most of them only compare.
const SCHEDULES_PER_PLATFORM: u16 = 4;
/// Changes that come at once are one pass.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// What an operator is started with.
#[derive(Clone)]
pub struct Operator {
    /// The way to the API server. Its writes must pass only while `leadership` holds
    /// ([`Leadership::fence`]).
    pub client: Client,
    /// Whether this process leads.
    pub leadership: Leadership,
    /// What it was told.
    pub settings: Settings,
    /// Where it looks.
    pub scope: Scope,
    /// How platforms are reached.
    pub route: Route,
    /// How many passes over platforms run at once.
    pub concurrency: u16,
    /// How soon it looks when nobody tells it to.
    pub pace: Pace,
    /// The pod's name, which events tell.
    pub instance: String,
    /// The cache. It may be looked at from outside: for readiness.
    pub live: Live,
}

impl Operator {
    /// Works until `stop`, then lets the passes that run come to their end. Ends before when it leads no more.
    ///
    /// # Errors
    /// When the HTTP client cannot be made, or the watches end by themselves.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        metrics::describe();
        let api = InternalApi::new(self.route.clone()).map_err(|error| Error::Platform(error.to_string()))?;
        let Some(discovery) = stop.run_until_cancelled(discovery(&self.client)).await else {
            return Ok(());
        };
        let offered = discovery.subscribe();
        let (recorder, sender) = events::recorder(&self.instance);
        let ending = stop.child_token();
        let beside = [
            tokio::spawn(discovery.run(DISCOVER_EVERY, ending.clone())),
            tokio::spawn(sender.run(self.client.clone(), ending.clone())),
            tokio::spawn(tell_what_is_missing(offered.clone(), ending.clone())),
        ];
        let watching = tokio::spawn({
            let (live, client, offered) = (self.live.clone(), self.client.clone(), offered.clone());
            let (scope, every, ending) = (self.scope.clone(), self.pace.look_anew, ending.clone());
            async move { live.run(client, offered, scope, every, ending).await }
        });
        let leadership = self.leadership.clone();
        let work = async {
            let begun = async {
                self.live.ready().await;
                self.leadership.begun().await;
            };
            if stop.run_until_cancelled(begun).await.is_none() {
                return;
            }
            metrics::leads(true);
            let shared = Shared {
                operator: self,
                api,
                offered,
                recorder,
                stop: stop.clone(),
            };
            tokio::select! {
                () = shared.reconcile_everywhere() => {}
                () = leadership.over() => {}
            }
            metrics::leads(false);
        };
        let outcome = tokio::select! {
            () = work => Ok(()),
            // Without what it knows of the cluster nothing that it does is right.
            () = ended_by_itself(watching, &stop) => {
                Err(Error::Platform("the watches have ended by themselves".to_owned()))
            }
        };
        ending.cancel();
        for task in beside {
            // A task that panicked has said so; what it did is over either way.
            let _ = task.await;
        }
        outcome
    }
}

/// What the cluster offers, as soon as the API server says so.
async fn discovery(client: &Client) -> Discovery {
    let backoff = Backoff::default();
    loop {
        match Discovery::start(client.clone()).await {
            Ok(discovery) => return discovery,
            Err(error) => {
                let wait = backoff.failed((), &error);
                tracing::warn!(%error, ?wait, "the API server does not say what it offers, asked again");
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Completes when the task ends and was not told to.
async fn ended_by_itself(task: JoinHandle<()>, stop: &CancellationToken) {
    let _ = task.await;
    if stop.is_cancelled() {
        std::future::pending::<()>().await;
    }
}

async fn tell_what_is_missing(mut offered: watch::Receiver<Capabilities>, stop: CancellationToken) {
    loop {
        metrics::missing_apis(&offered.borrow_and_update());
        match stop.run_until_cancelled(offered.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// What the reconcilers of every namespace share.
struct Shared {
    operator: Operator,
    api: InternalApi,
    offered: watch::Receiver<Capabilities>,
    recorder: Recorder,
    stop: CancellationToken,
}

impl Shared {
    async fn reconcile_everywhere(self) {
        let namespaces: Vec<Option<String>> = match &self.operator.scope.namespaces {
            None => vec![None],
            Some(namespaces) => namespaces.iter().cloned().map(Some).collect(),
        };
        let each = namespaces.into_iter().map(|namespace| self.reconcile_in(namespace));
        futures::future::join_all(each).await;
    }

    /// The two reconcilers of one namespace, or of all.
    async fn reconcile_in(&self, namespace: Option<String>) {
        let operator = &self.operator;
        let every = operator.pace.look_anew;
        let (platforms, platform_stream) =
            watched::<TodoPlatform>(scoped(&operator.client, namespace.as_deref()), every);
        let (schedules, schedule_stream) =
            watched::<RecurringSchedule>(scoped(&operator.client, namespace.as_deref()), every);

        // From the stream that fills the store, so that whoever is told finds there what it was told of.
        let (see, seen) = mpsc::unbounded_channel();
        let platform_stream = platform_stream.inspect(move |platform| {
            if let Ok(platform) = platform {
                let _ = see.send(names_of(platform));
            }
        });

        let record = Record::new(operator.client.clone());
        let platform_stream = without_own(platform_stream, &record);
        let waiting = Waiting::default();
        let context = platform::Context {
            client: operator.client.clone(),
            record,
            settings: Arc::new(operator.settings.clone()),
            live: operator.live.clone(),
            events: self.recorder.clone(),
            secrets: SecretsRead::default(),
            brokers: Brokers::default(),
            departures: Departures::default(),
            progress: Progress::new(waiting.clone(), operator.concurrency.into()),
            pace: operator.pace,
            offered: self.offered.clone(),
        };
        let platform_runner = Arc::new(Runner::new(
            Reconciler::Platform,
            self.recorder.clone(),
            waiting,
            context,
        ));
        let own = namespace.clone();
        let triggers = operator
            .live
            .triggers()
            .map(|platform| platform_ref(&platform))
            .filter(move |platform| {
                let is_here = own.is_none() || platform.namespace == own;
                async move { is_here }
            });
        let every_platform = platforms.clone();
        let anew = changes(self.offered.clone())
            .flat_map(move |()| stream::iter(every_platform.all()))
            .map(|platform| ObjectRef::from_obj(platform.as_ref()));
        let platform_passes =
            Controller::for_stream(Arc::clone(&platform_runner).told_of(platform_stream), platforms.store())
                .with_config(Config::default().concurrency(operator.concurrency).debounce(DEBOUNCE))
                .reconcile_on(Arc::clone(&platform_runner).queued(stream::select(triggers, anew)))
                .graceful_shutdown_on(self.stop.clone().cancelled_owned())
                .run(platform_pass, Runner::error_policy, Arc::clone(&platform_runner));

        let (tell, told) = mpsc::unbounded_channel();
        let states = States::default();
        let record = Record::new(operator.client.clone());
        let schedule_stream = without_own(schedule_stream, &record);
        let context = schedule::Context {
            record,
            api: self.api.clone(),
            live: operator.live.clone(),
            platforms,
            states: states.clone(),
            events: self.recorder.clone(),
        };
        let schedule_runner = Arc::new(Runner::new(
            Reconciler::Schedule,
            self.recorder.clone(),
            Waiting::default(),
            context,
        ));
        let of_platform = schedules.clone();
        let at_once = operator.concurrency.saturating_mul(SCHEDULES_PER_PLATFORM);
        let by_platform = received(seen).flat_map(move |platform| stream::iter(schedules_of(&of_platform, &platform)));
        let schedule_passes =
            Controller::for_stream(Arc::clone(&schedule_runner).told_of(schedule_stream), schedules.store())
                .with_config(Config::default().concurrency(at_once))
                .reconcile_on(Arc::clone(&schedule_runner).queued(stream::select(received(told), by_platform)))
                .graceful_shutdown_on(self.stop.clone().cancelled_owned())
                .run(schedule_pass, Runner::error_policy, Arc::clone(&schedule_runner));

        let follower = Follower::new(
            operator.client.clone(),
            self.api.clone(),
            operator.live.clone(),
            schedules,
            states,
            tell,
        );
        tokio::join!(
            platform_passes.for_each(|done| {
                if let Some((namespace, platform)) = platform_runner.ended(&done) {
                    let gone = Names { namespace, platform };
                    platform_runner.context.forget(&gone);
                }
                std::future::ready(())
            }),
            schedule_passes.for_each(|done| {
                schedule_runner.ended(&done);
                std::future::ready(())
            }),
            follower.run(self.stop.clone()),
        );
    }
}

/// An API in one namespace, or in all.
fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The changes without those that are a pass's own writes, and nothing else.
fn without_own<K, C>(changes: C, record: &Record<K>) -> impl Stream<Item = Change<K>> + Send + use<K, C>
where
    C: Stream<Item = Change<K>> + Send,
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let record = record.clone();
    changes.filter(move |changed| {
        let readable = changed.as_ref().ok().and_then(|changed| changed.0.as_ref().ok());
        std::future::ready(readable.is_none_or(|changed| !record.is_own(changed)))
    })
}

/// A trigger for each time that something else is offered.
fn changes(offered: watch::Receiver<Capabilities>) -> impl Stream<Item = ()> + Send + 'static {
    stream::unfold(offered, |mut offered| async move {
        offered.changed().await.ok()?;
        Some(((), offered))
    })
}

fn received<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async move {
        let item = receiver.recv().await?;
        Some((item, receiver))
    })
}

fn platform_ref(platform: &ObjectRef<TodoPlatform>) -> ObjectRef<DeserializeGuard<TodoPlatform>> {
    let reference = ObjectRef::new(&platform.name);
    match &platform.namespace {
        Some(namespace) => reference.within(namespace),
        None => reference,
    }
}

/// The schedules that name a platform.
fn schedules_of(
    schedules: &Resources<RecurringSchedule>,
    platform: &Names,
) -> Vec<ObjectRef<DeserializeGuard<RecurringSchedule>>> {
    let schedules = schedules.all().into_iter();
    schedules
        .filter(|schedule| {
            let readable = schedule.0.as_ref();
            readable.is_ok_and(|schedule| platform_of(schedule) == *platform)
        })
        .map(|schedule| ObjectRef::from_obj(schedule.as_ref()))
        .collect()
}

fn names_of(platform: &DeserializeGuard<TodoPlatform>) -> Names {
    Names {
        namespace: platform.namespace().unwrap_or_default(),
        platform: platform.name_any(),
    }
}

/// What a reconciler's passes have in common: they are measured, and what fails is tried again, later each time.
struct Runner<C> {
    reconciler: Reconciler,
    recorder: Recorder,
    context: C,
    backoff: Backoff<Key>,
    waiting: Waiting,
}

impl<C> Runner<C> {
    fn new(reconciler: Reconciler, recorder: Recorder, waiting: Waiting, context: C) -> Self {
        Self {
            reconciler,
            recorder,
            waiting,
            context,
            backoff: Backoff::default(),
        }
    }

    /// The changes; what changes waits for its pass from then on.
    fn told_of<K: Resource<DynamicType = ()>, E>(
        self: Arc<Self>,
        changes: impl Stream<Item = std::result::Result<K, E>>,
    ) -> impl Stream<Item = std::result::Result<K, E>> {
        changes.inspect(move |changed| {
            if let Ok(object) = changed {
                self.waits(key(object));
            }
        })
    }

    /// The triggers; whatever they are of waits for its pass from then on.
    fn queued<K: Resource<DynamicType = ()>>(
        self: Arc<Self>,
        triggers: impl Stream<Item = ObjectRef<K>>,
    ) -> impl Stream<Item = ObjectRef<K>> {
        triggers.inspect(move |object| self.waits(key_of(object)))
    }

    fn waits(&self, key: Key) {
        metrics::queue(self.reconciler, self.waiting.add(key));
    }

    fn waits_no_more(&self, key: &Key) {
        metrics::queue(self.reconciler, self.waiting.remove(key));
    }

    /// What went before its pass needs none; returned is what is gone.
    fn ended<K, E: 'static, Q: 'static>(&self, pass: &std::result::Result<K, controller::Error<E, Q>>) -> Option<Key> {
        let Err(controller::Error::ObjectNotFound(object)) = pass else {
            return None;
        };
        let gone = key_of(object);
        self.waits_no_more(&gone);
        Some(gone)
    }

    async fn measured(&self, key: &Key, pass: impl Future<Output = Result<Done>>) -> Result<Action> {
        let began = Instant::now();
        let outcome = Box::pin(pass).await;
        let how = match &outcome {
            Ok(Done { changed: true, .. }) => Outcome::Changed,
            Ok(Done { changed: false, .. }) => Outcome::Unchanged,
            Err(_) => Outcome::Failed,
        };
        metrics::reconciled(self.reconciler, how, began.elapsed());
        if outcome.is_ok() {
            self.backoff.succeeded(key);
        }
        outcome.map(|done| done.action)
    }

    #[allow(clippy::needless_pass_by_value, reason = "the controller hands them over so")]
    fn error_policy<K: Resource<DynamicType = ()>>(object: Arc<K>, error: &Error, runner: Arc<Self>) -> Action {
        let (namespace, name) = key(object.as_ref());
        metrics::failed(runner.reconciler, error.class());
        let wait = runner.backoff.failed((namespace.clone(), name.clone()), error);
        metrics::backing_off(runner.reconciler, runner.backoff.len());
        if error.class() == crate::error::Class::Conflict {
            tracing::debug!(%namespace, %name, %error, "tried again");
        } else {
            tracing::warn!(%namespace, %name, %error, ?wait, "a pass failed, tried again");
        }
        Action::requeue(wait)
    }

    /// What cannot be read is told once, and looked at again when it changes.
    fn unreadable<K: Resource<DynamicType = ()>>(&self, object: &K, why: &str) -> Action {
        announce::warning(
            &self.recorder,
            object,
            "Unreadable",
            format!("it cannot be read: {why}"),
        );
        let (namespace, name) = key(object);
        tracing::warn!(%namespace, %name, why, "it cannot be read");
        Action::await_change()
    }
}

fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn key_of<K: reflector::Lookup>(object: &ObjectRef<K>) -> Key {
    (object.namespace.clone().unwrap_or_default(), object.name.clone())
}

async fn platform_pass(
    object: Arc<DeserializeGuard<TodoPlatform>>,
    runner: Arc<Runner<platform::Context>>,
) -> Result<Action> {
    let key = key(object.as_ref());
    runner.waits_no_more(&key);
    let platform = match &object.0 {
        Ok(platform) => platform,
        Err(invalid) => return Ok(runner.unreadable(object.as_ref(), &invalid.error)),
    };
    let pass = platform::reconcile(&runner.context, Arc::new(platform.clone()));
    runner.measured(&key, pass).await
}

async fn schedule_pass(
    object: Arc<DeserializeGuard<RecurringSchedule>>,
    runner: Arc<Runner<schedule::Context>>,
) -> Result<Action> {
    let key = key(object.as_ref());
    runner.waits_no_more(&key);
    let schedule = match &object.0 {
        Ok(schedule) => schedule,
        Err(invalid) => return Ok(runner.unreadable(object.as_ref(), &invalid.error)),
    };
    let pass = async {
        match schedule::reconcile(&runner.context, Arc::new(schedule.clone())).await? {
            Pass::Done { changed } => Ok(Done {
                action: Action::await_change(),
                changed,
            }),
            Pass::Again(error) => Err(error),
        }
    };
    runner.measured(&key, pass).await
}
