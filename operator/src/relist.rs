//! Watches that are begun anew once in a while.
//!
//! An API server numbers objects and not events, so a watch in which one was lost, on the way or in a cache between,
//! looks like one in which nothing happened: it goes on from the last that came, however often it is resumed. Only a list
//! of everything shows it. Here is when that happens; what a list says against what was known is for whoever keeps it.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::error::{Call, Error};
use crate::pace::jittered;

type Events<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// A watch that lists everything anew each `every` or so. It never ends; after an error it goes on with the next poll.
pub(crate) fn relisted<K>(
    api: Api<K>,
    config: Config,
    every: Duration,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = move || -> Events<K> { watcher(api.clone(), config.clone()).boxed() };
    // From the end of a list to the next: one that is under way is never cut off.
    let state = (begin(), None::<Instant>);
    stream::unfold((begin, state), move |(begin, (mut events, mut until))| async move {
        loop {
            let next = match until {
                None => events.next().await,
                Some(until) => tokio::time::timeout_at(until, events.next()).await.unwrap_or_default(),
            };
            let Some(event) = next else {
                events = begin();
                until = None;
                continue;
            };
            match &event {
                Ok(Event::Init) => until = None,
                Ok(Event::InitDone) => until = Some(Instant::now() + jittered(every)),
                _ => {}
            }
            return Some((event, (begin, (events, until))));
        }
    })
}

/// Why a watch of `resource` (a role's name for it) broke off; `None` when it is for the watch alone to go on.
pub(crate) fn broken(resource: String, error: watcher::Error) -> Option<Error> {
    let error = match error {
        watcher::Error::InitialListFailed(error) => Call::new("list", resource, "", "").failed(error),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            Call::new("watch", resource, "", "").failed(error)
        }
        watcher::Error::WatchError(status) => Call::new("watch", resource, "", "").failed(kube::Error::Api(status)),
        watcher::Error::NoResourceVersion => return None,
    };
    Some(error)
}
