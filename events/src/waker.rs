//! Wake-ups: "there may be something to do", in this process and in the others.
//!
//! A wake-up is never the truth. Whoever waits for one also looks on its own from time to time, so a lost
//! one costs latency and nothing else.
//!
//! In this process a wake-up is immediate. To the others it goes by PostgreSQL's NOTIFY, from a task of its
//! own and at most once in 20 ms for each channel: a NOTIFY within a writing transaction takes a lock at
//! commit that makes all such commits wait for one another.
//!
//! Why a `watch` and not a `Notify` for each waiter: it remembers for every subscriber whether it has seen
//! the last wake-up, so one that comes while a subscriber works is not lost on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;

/// The least time between two notifications to other processes.
const QUIET: Duration = Duration::from_millis(20);

/// What there may be to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Events were committed.
    Outbox,
    /// A schedule was made or changed, and may be due earlier than the next known one.
    Schedules,
    /// The same for a reminder.
    Reminders,
}

impl Channel {
    /// Every channel, in the order of their declaration, which is that of [`Inner`]'s arrays.
    const ALL: [Self; 3] = [Self::Outbox, Self::Schedules, Self::Reminders];

    /// The channel's name in PostgreSQL.
    const fn name(self) -> &'static str {
        match self {
            Self::Outbox => "todo_outbox",
            Self::Schedules => "todo_schedules",
            Self::Reminders => "todo_reminders",
        }
    }
}

/// Sends wake-ups. Clones share their subscribers.
#[derive(Debug, Clone, Default)]
pub struct Waker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    local: [watch::Sender<()>; 3],
    /// Channels that the other processes have not heard of yet.
    unsent: [AtomicBool; 3],
    something_unsent: Notify,
    /// The payload of our notifications, to know them when they come back.
    instance: String,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            local: Default::default(),
            unsent: Default::default(),
            something_unsent: Notify::new(),
            instance: Uuid::now_v7().to_string(),
        }
    }
}

/// The wake-ups of one channel for one waiter.
#[derive(Debug)]
pub struct Wakeups {
    receiver: watch::Receiver<()>,
}

impl Wakeups {
    /// Waits for a wake-up that came after the last one seen; any number of them are one. Cancel safe.
    pub async fn woken(&mut self) {
        if self.receiver.changed().await.is_err() {
            // No waker is left that could wake. The waiter's own timer goes on.
            std::future::pending::<()>().await;
        }
    }
}

impl Waker {
    /// A waker for this process. [`Waker::run`] joins it to those of the other processes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes whoever waits for this channel, here at once and elsewhere soon. Call it after the commit.
    pub fn wake(&self, channel: Channel) {
        self.wake_here(channel);
        self.inner.unsent[channel as usize].store(true, Ordering::Release);
        self.inner.something_unsent.notify_one();
    }

    /// From now on, the wake-ups of this channel.
    pub fn subscribe(&self, channel: Channel) -> Wakeups {
        Wakeups {
            receiver: self.inner.local[channel as usize].subscribe(),
        }
    }

    /// Exchanges wake-ups with the other processes on this database until `shutdown`. Holds one connection
    /// of the pool for listening. Never fails: without a database there is nothing to be woken for.
    pub async fn run(&self, pool: PgPool, shutdown: CancellationToken) {
        let exchange = async { tokio::join!(self.send(&pool), self.listen(&pool)) };
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = exchange => {}
        }
    }

    fn wake_here(&self, channel: Channel) {
        self.inner.local[channel as usize].send_replace(());
    }

    async fn send(&self, pool: &PgPool) {
        loop {
            self.inner.something_unsent.notified().await;
            let channels: Vec<&str> = Channel::ALL
                .into_iter()
                .filter(|&channel| self.inner.unsent[channel as usize].swap(false, Ordering::AcqRel))
                .map(Channel::name)
                .collect();
            let sent = sqlx::query("SELECT pg_notify(channel, $2) FROM unnest($1::text[]) AS channel")
                .bind(&channels)
                .bind(&self.inner.instance)
                .execute(pool)
                .await;
            if let Err(error) = sent {
                tracing::debug!(%error, ?channels, "other processes were not woken");
            }
            tokio::time::sleep(QUIET).await;
        }
    }

    async fn listen(&self, pool: &PgPool) {
        let mut failures = 0;
        loop {
            let Err(error) = self.listen_once(pool, &mut failures).await;
            failures += 1;
            tracing::debug!(%error, failures, "not listening for wake-ups, trying again");
            tokio::time::sleep(Backoff::default().delay(failures)).await;
        }
    }

    async fn listen_once(&self, pool: &PgPool, failures: &mut u32) -> Result<std::convert::Infallible, sqlx::Error> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen_all(Channel::ALL.map(Channel::name)).await?;
        *failures = 0;
        loop {
            // What was sent while nobody listened is lost, so after each new connection everyone looks.
            for channel in Channel::ALL {
                self.wake_here(channel);
            }
            while let Some(notification) = listener.try_recv().await? {
                let from_here = notification.payload() == self.inner.instance;
                let channel = Channel::ALL
                    .into_iter()
                    .find(|channel| channel.name() == notification.channel());
                if let Some(channel) = channel.filter(|_| !from_here) {
                    self.wake_here(channel);
                }
            }
        }
    }
}
