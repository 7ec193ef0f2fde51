//! `todo events`: events that consumers could not apply, consumers that are to see events again, and the places that
//! relays keep.

use anyhow::Result;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use sqlx::PgPool;
use todo_events::cursors::{self, Removal};
use todo_events::dead_letters::{self, Page, Selector};
use todo_events::host::Retry;
use todo_events::replay;
use uuid::Uuid;

use crate::database::{self, DatabaseArgs};
use crate::failure::Refused;
use crate::process;

/// Look after events: dead letters, cursors and rebuilds
#[derive(Args, Debug)]
pub(crate) struct EventsCommand {
    #[command(subcommand)]
    command: EventsSubcommand,
}

#[derive(Subcommand, Debug)]
enum EventsSubcommand {
    /// Events that a consumer could not apply, and those that wait behind them
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// The places in the outbox that relays keep
    #[command(subcommand)]
    Cursors(CursorsCommand),
    /// Rebuild what a consumer derived from events
    ///
    /// Forgets what it derived since then and hands it the events again, in their order, in one transaction: readers
    /// never see half of it.
    Replay {
        /// The consumer: audit or recurring
        #[arg(long, value_name = "NAME")]
        consumer: String,

        /// From events of this instant on (RFC 3339)
        #[arg(long, value_name = "TIME")]
        since: Timestamp,

        #[command(flatten)]
        database: DatabaseArgs,
    },
}

#[derive(Subcommand, Debug)]
enum DlqCommand {
    /// List dead letters, the oldest first
    List {
        #[command(flatten)]
        which: Which,

        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: i64,

        /// As JSON lines, with the whole event
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Hand dead letters to their consumers again, in order, with what waits behind them
    Replay {
        #[command(flatten)]
        which: Which,

        #[command(flatten)]
        database: DatabaseArgs,
    },
}

#[derive(Subcommand, Debug)]
enum CursorsCommand {
    /// List them: who they are for, when a relay last attended to each, and what waits beyond it
    List {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Remove that of a consumer which was given up for good: events are then no longer kept for it
    Remove {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,

        #[command(flatten)]
        database: DatabaseArgs,
    },
}

/// Which dead letters; without any, all of them.
#[derive(Args, Debug)]
struct Which {
    /// Of this consumer
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,

    /// Of this task
    #[arg(long, value_name = "TASK")]
    task: Option<Uuid>,

    /// Of this event
    #[arg(long, value_name = "EVENT")]
    event: Option<Uuid>,
}

impl From<Which> for Selector {
    fn from(which: Which) -> Self {
        Self {
            consumer: which.consumer,
            subject: which.task,
            event_id: which.event,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(command: EventsCommand) -> Result<()> {
    crate::logging::init(None);
    match command.command {
        EventsSubcommand::Dlq(DlqCommand::List {
            which,
            limit,
            json,
            database,
        }) => list(&connect(&database).await?, &which.into(), limit, json).await,
        EventsSubcommand::Dlq(DlqCommand::Replay { which, database }) => {
            replay_dead_letters(&connect(&database).await?, &which.into()).await
        }
        EventsSubcommand::Cursors(CursorsCommand::List { database }) => list_cursors(&connect(&database).await?).await,
        EventsSubcommand::Cursors(CursorsCommand::Remove { name, database }) => {
            remove_cursor(&connect(&database).await?, &name).await
        }
        EventsSubcommand::Replay {
            consumer,
            since,
            database,
        } => rebuild(&connect(&database).await?, &consumer, since).await,
    }
}

async fn connect(database: &DatabaseArgs) -> Result<PgPool> {
    let pool = database::connect_for_maintenance(&database.url().await?).await?;
    database::require_migrated(&pool).await?;
    Ok(pool)
}

async fn list(pool: &PgPool, selector: &Selector, limit: i64, json: bool) -> Result<()> {
    let letters = dead_letters::list(pool, selector, Page { after: 0, limit }).await?;
    for letter in &letters {
        if json {
            println!("{}", serde_json::to_string(letter)?);
            continue;
        }
        let state = match letter.parked_behind {
            Some(event) => format!("waits for {event}"),
            None => format!("failed {} times: {}", letter.attempts, letter.error),
        };
        println!(
            "{}  {}  event {}  task {} version {}  {state}",
            letter.first_failed_at, letter.consumer, letter.event_id, letter.subject, letter.version
        );
    }
    if !json {
        eprintln!("{} dead letters", letters.len());
    }
    Ok(())
}

async fn replay_dead_letters(pool: &PgPool, selector: &Selector) -> Result<()> {
    let replayed = dead_letters::replay(pool, &todo_worker::consumers(), selector).await?;
    println!("{} applied, {} still fail", replayed.applied, replayed.failed);
    Ok(())
}

async fn list_cursors(pool: &PgPool) -> Result<()> {
    for cursor in cursors::list(pool).await? {
        let behind = match cursor.oldest_beyond {
            Some(oldest) => format!("events since {oldest} wait"),
            None => "has passed all events".to_owned(),
        };
        println!("{}  attended to at {}  {behind}", cursor.name, cursor.attended_at);
    }
    Ok(())
}

async fn remove_cursor(pool: &PgPool, name: &str) -> Result<()> {
    match cursors::remove(pool, name).await? {
        Removal::Removed => println!("{name} is removed: events are no longer kept for it"),
        Removal::Attended => {
            return Err(Refused::because(format_args!(
                "a relay attends to {name}, and would make it again: stop the processes that run it, and try again in a \
                 minute"
            )));
        }
        Removal::Missing => {
            return Err(Refused::because(format_args!(
                "no cursor is named {name:?}; `todo events cursors list` shows them"
            )));
        }
    }
    Ok(())
}

async fn rebuild(pool: &PgPool, name: &str, since: Timestamp) -> Result<()> {
    let consumers = todo_worker::consumers();
    let known = consumers
        .iter()
        .map(|consumer| consumer.name())
        .collect::<Vec<_>>()
        .join(", ");
    let consumer = consumers
        .iter()
        .find(|consumer| consumer.name() == name)
        .ok_or_else(|| Refused::because(format_args!("no consumer is named {name:?}; there are {known}")))?;
    let retry = Retry::until(process::shutdown_on_signal()?);
    let outcome = replay::since(pool, consumer.as_ref(), since, &retry, |progress| {
        eprintln!("{} of {} events", progress.done, progress.total);
    })
    .await?;
    println!(
        "{} events applied, {} in the dead letters",
        outcome.applied,
        outcome.dead + outcome.parked
    );
    Ok(())
}
