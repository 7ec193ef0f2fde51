//! Conversations: what a user and an assistant said to each other, the last hundred messages of each.
//!
//! A conversation is one value in a [`StateStore`], read and written whole, and changed only if it is still what was
//! read. Its key is made from the user that asks and the conversation's id, so nobody can reach another's.
//!
//! The store may be one outside of the database. When it is away the database stands in: the caller is served and
//! told that the answer is [degraded](History::degraded). What was written meanwhile waits under the same key in the
//! database, and is merged into the store with the first access after it is back, or by
//! [`Conversations::merge_waiting`]. Messages merge by their ids, so doing it twice, or half, or side by side with
//! another process, neither loses nor doubles one.
//!
//! While the store is away it is not known what it holds. So a message is taken for a conversation that may not be
//! there, and reading shows what was written since.
//!
//! A deletion leaves a mark, here and there: what is on its way to a conversation when that is deleted, from another
//! process or from an outage, does not bring it back. Not every store refuses to write over what is gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::clock;
use crate::error::{Error, Invalid, Result};
use crate::id::{ConversationId, MessageId, UserId};
use crate::state::{Condition, DatabaseState, Etag, StateError, StateStore};

/// How many messages a conversation keeps.
pub const MAX_MESSAGES: usize = 100;
/// How many bytes of text a conversation keeps, its newest message in any case.
pub const MAX_BYTES: usize = 256 * 1024;
/// The longest text of a message, in characters.
pub const MAX_CONTENT: usize = 16_000;
/// How long a conversation is kept after its last message.
pub const KEPT: Duration = Duration::from_hours(90 * 24);

/// What the keys of conversations begin with.
const KIND: &str = "conversation.";
/// How long a store that failed is not asked again: one that hangs costs its time limit once in a while, and not in
/// each request.
const REST: Duration = Duration::from_secs(2);
/// How often a write is tried that always finds another one's. Of writers side by side one gets through each time.
const ATTEMPTS: u32 = 100;
/// How many keys are looked for at once when merging.
const PAGE: i64 = 100;

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MessageRole)]
pub enum Role {
    /// The user.
    User,
    /// The assistant.
    Assistant,
    /// Instructions to the assistant.
    System,
    /// The result of a tool that the assistant used.
    Tool,
}

/// A message as a caller writes it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageInput {
    /// An id of the caller's choice, so that a message that is sent again is not there twice; a new one when absent.
    #[serde(default)]
    pub id: Option<MessageId>,
    /// Who says it.
    pub role: Role,
    /// What is said, 1 to 16,000 characters.
    #[schema(min_length = 1, max_length = 16000)]
    pub content: String,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// Its id, unique within the conversation.
    pub id: MessageId,
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
    /// When it was taken; later than that of the message before.
    pub at: Timestamp,
}

/// A conversation that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Conversation)]
pub struct Begun {
    /// Its id.
    pub id: ConversationId,
    /// The store of conversations is away: it is kept elsewhere until that is back.
    pub degraded: bool,
}

/// A message that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AppendedMessage)]
pub struct Appended {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// The store of conversations is away: it is kept elsewhere until that is back.
    pub degraded: bool,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ConversationHistory)]
pub struct History {
    /// The messages, the oldest first; at most 100.
    #[schema(max_items = 100)]
    pub items: Vec<Message>,
    /// The store of conversations is away: messages from before may be missing until it is back.
    pub degraded: bool,
}

impl MessageInput {
    /// Checks it. Whatever is taken fits a conversation.
    fn parse(self) -> Result<Self> {
        let chars = self.content.chars().count();
        if !(1..=MAX_CONTENT).contains(&chars) {
            let message = format!("must have 1 to {MAX_CONTENT} characters, has {chars}");
            return Err(Invalid::new("content", message).into());
        }
        // PostgreSQL's JSON cannot hold it.
        if self.content.contains('\0') {
            return Err(Invalid::new("content", "must not contain the character U+0000").into());
        }
        Ok(self)
    }
}

/// What is stored under a conversation's key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    messages: Vec<Message>,
    /// The conversation was deleted, and nothing is kept of it but this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

impl Record {
    fn mark_of_deletion() -> Self {
        Self {
            messages: vec![],
            deleted: true,
        }
    }

    fn find(&self, id: MessageId) -> Option<&Message> {
        self.messages.iter().find(|message| message.id == id)
    }

    /// The message as it was taken before, or as the newest one now.
    fn take(&mut self, id: MessageId, input: &MessageInput) -> Result<Taken> {
        if let Some(message) = self.find(id) {
            if message.role != input.role || message.content != input.content {
                let text = "the conversation has another message with this id";
                return Err(Error::Conflict(text.to_owned()));
            }
            return Ok(Taken::Before(message.clone()));
        }
        // Whatever the clocks of several processes say, the order of messages is that in which they were taken.
        let after_last = self.messages.last().map(|last| last.at + 1.microsecond());
        let message = Message {
            id,
            role: input.role,
            content: input.content.clone(),
            at: after_last.unwrap_or_default().max(clock::now()),
        };
        self.messages.push(message.clone());
        self.trim();
        Ok(Taken::Now(message))
    }

    /// Both sides' messages, each once; where both have one, as this side has it.
    fn merge(mut self, other: &Self) -> Self {
        let known = self.messages.len();
        for message in &other.messages {
            if !self.messages[..known].iter().any(|known| known.id == message.id) {
                self.messages.push(message.clone());
            }
        }
        self.messages.sort_by_key(|message| (message.at, message.id));
        self.trim();
        self
    }

    /// Forgets the oldest beyond what is kept.
    fn trim(&mut self) {
        let mut bytes = 0;
        let fitting = self.messages.iter().rev().enumerate().take_while(|(number, message)| {
            bytes += message.content.len();
            *number == 0 || (*number < MAX_MESSAGES && bytes <= MAX_BYTES)
        });
        let kept = fitting.count();
        self.messages.drain(..self.messages.len() - kept);
    }
}

/// What became of a message.
enum Taken {
    Before(Message),
    Now(Message),
}

/// A record and its version.
type Found = (Record, Etag);

/// The store outside of the database, and until when it is left alone.
#[derive(Debug)]
struct Primary {
    store: Arc<dyn StateStore>,
    rests_until: Mutex<Option<Instant>>,
}

/// Why something could not be done in the store: because of it, or whatever the store.
enum Failure {
    Store(StateError),
    Domain(Error),
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Database(error) => Self::Domain(error.into()),
            other => Self::Store(other),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Domain(error)
    }
}

/// The conversations of all users. Clones share what they know of their store.
#[derive(Clone, Debug)]
pub struct Conversations {
    primary: Option<Arc<Primary>>,
    database: DatabaseState,
}

impl Conversations {
    /// Kept in the database.
    pub fn new(pool: PgPool) -> Self {
        Self {
            primary: None,
            database: DatabaseState::new(pool),
        }
    }

    /// Kept in this store, and in the database while it is away. What the database holds moves there.
    #[must_use]
    pub fn in_store(self, store: Arc<dyn StateStore>) -> Self {
        describe_metrics();
        let primary = Primary {
            store,
            rests_until: Mutex::new(None),
        };
        Self {
            primary: Some(Arc::new(primary)),
            ..self
        }
    }

    /// Begins a conversation; one with this id that is there already stays as it is.
    pub async fn begin(&self, user: &UserId, id: ConversationId) -> Result<Begun> {
        let key = key(user, id);
        if let Some(primary) = self.awake() {
            match begin_in(primary.store.as_ref(), &key).await {
                Ok(()) => return Ok(Begun { id, degraded: false }),
                Err(error) => self.degrade(&primary, error, "begin")?,
            }
        }
        begin_in(&self.database, &key).await.map_err(of_database)?;
        let degraded = self.primary.is_some();
        Ok(Begun { id, degraded })
    }

    /// What was said, the oldest first.
    pub async fn history(&self, user: &UserId, id: ConversationId) -> Result<History> {
        let key = key(user, id);
        if let Some(primary) = self.awake() {
            match self.merged(&primary, &key).await {
                Ok(found) => return history(found, false),
                Err(failure) => self.degrade(&primary, failure, "read")?,
            }
        }
        let found = get(&self.database, &key).await.map_err(of_database)?;
        if self.primary.is_none() {
            return history(found, false);
        }
        let (record, etag) = found.unwrap_or((Record::default(), Etag(String::new())));
        history(Some((record, etag)), true)
    }

    /// Adds a message. One whose id is there already is not added again, and comes back as it was taken.
    pub async fn append(&self, user: &UserId, id: ConversationId, input: MessageInput) -> Result<Appended> {
        let input = input.parse()?;
        let message_id = input.id.unwrap_or_else(MessageId::new);
        let key = key(user, id);
        if let Some(primary) = self.awake() {
            match self.append_in_store(&primary, &key, message_id, &input).await {
                Ok(message) => {
                    return Ok(Appended {
                        message,
                        degraded: false,
                    });
                }
                Err(failure) => self.degrade(&primary, failure, "append")?,
            }
        }
        let degraded = self.primary.is_some();
        let message = self.append_in_database(&key, message_id, &input, degraded).await?;
        Ok(Appended { message, degraded })
    }

    /// Deletes a conversation for good.
    pub async fn delete(&self, user: &UserId, id: ConversationId) -> Result<()> {
        let key = key(user, id);
        if let Some(primary) = self.awake() {
            match self.delete_in_store(&primary, &key).await {
                Ok(()) => return Ok(()),
                Err(failure) => self.degrade(&primary, failure, "delete")?,
            }
        }
        if self.primary.is_none() {
            present(get(&self.database, &key).await.map_err(of_database)?)?;
            return self.database.delete(&key, None).await.map_err(of_database);
        }
        let mark = Record::mark_of_deletion();
        put(&self.database, &key, &mark, Condition::Always)
            .await
            .map_err(of_database)
    }

    /// Merges what waits in the database into the store, and says how many conversations that were. Stops, without an
    /// error, at the first sign that the store is away.
    pub async fn merge_waiting(&self) -> Result<u64> {
        let mut merged = 0;
        let mut after = String::new();
        while let Some(primary) = self.awake() {
            let keys = self.database.keys(KIND, &after, PAGE).await.map_err(of_database)?;
            let Some(last) = keys.last() else { break };
            after.clone_from(last);
            for key in &keys {
                match self.merged(&primary, key).await {
                    Ok(_) => merged += 1,
                    Err(failure) => self.degrade(&primary, failure, "merge")?,
                }
                if self.awake().is_none() {
                    return Ok(merged);
                }
            }
        }
        Ok(merged)
    }

    /// The store, unless there is none or it failed just now.
    fn awake(&self) -> Option<Arc<Primary>> {
        let primary = self.primary.as_ref()?;
        let rests_until = *primary.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        let is_awake = rests_until.is_none_or(|until| until <= Instant::now());
        is_awake.then(|| Arc::clone(primary))
    }

    /// Goes on without the store, and says so; what has nothing to do with the store is an error all the same.
    fn degrade(&self, primary: &Primary, failure: impl Into<Failure>, doing: &'static str) -> Result<()> {
        let error = match failure.into() {
            Failure::Domain(error) => return Err(error),
            Failure::Store(error) => error,
        };
        debug_assert!(
            self.primary.is_some(),
            "only a store outside of the database can be away"
        );
        metrics::counter!("todo_state_fallback_total", "operation" => doing).increment(1);
        tracing::warn!(%error, doing, "the state store failed, the database stands in");
        // One that refuses a value may take the next.
        if matches!(error, StateError::Unavailable(_)) {
            let until = Instant::now() + REST;
            *primary.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
        Ok(())
    }

    /// What the store has, after what waits in the database was merged into it.
    async fn merged(&self, primary: &Primary, key: &str) -> Result<Option<Found>, Failure> {
        let store = primary.store.as_ref();
        for _ in 0..ATTEMPTS {
            // First what waits: who merges at the same time writes to the store before it clears the database, so
            // whatever is gone from here is there when it is read next.
            let waiting = get(&self.database, key).await?;
            let found = get(store, key).await?;
            let Some((waiting, waiting_etag)) = waiting else {
                return Ok(found);
            };
            let outcome = merge_one(store, key, found, &waiting).await;
            match outcome {
                Ok(()) => {}
                Err(StateError::Mismatch) => continue,
                Err(error) => return Err(error.into()),
            }
            match self.database.delete(key, Some(&waiting_etag)).await {
                Ok(()) => metrics::counter!("todo_state_merged_total").increment(1),
                // More was written meanwhile, or somebody else was faster.
                Err(StateError::Mismatch) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_busy().into())
    }

    async fn append_in_store(
        &self,
        primary: &Primary,
        key: &str,
        id: MessageId,
        input: &MessageInput,
    ) -> Result<Message, Failure> {
        for _ in 0..ATTEMPTS {
            let (mut record, etag) = present(self.merged(primary, key).await?)?;
            let message = match record.take(id, input)? {
                Taken::Before(message) => return Ok(message),
                Taken::Now(message) => message,
            };
            match put(primary.store.as_ref(), key, &record, Condition::Matches(etag)).await {
                Ok(()) => return Ok(message),
                Err(StateError::Mismatch) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_busy().into())
    }

    /// With `unseen`, a conversation that is not here may be in the store.
    async fn append_in_database(
        &self,
        key: &str,
        id: MessageId,
        input: &MessageInput,
        unseen: bool,
    ) -> Result<Message> {
        for _ in 0..ATTEMPTS {
            let (mut record, condition) = match get(&self.database, key).await.map_err(of_database)? {
                Some((record, _)) if record.deleted => return Err(no_conversation()),
                Some((record, etag)) => (record, Condition::Matches(etag)),
                None if unseen => (Record::default(), Condition::Absent),
                None => return Err(no_conversation()),
            };
            let message = match record.take(id, input)? {
                Taken::Before(message) => return Ok(message),
                Taken::Now(message) => message,
            };
            match put(&self.database, key, &record, condition).await {
                Ok(()) => return Ok(message),
                Err(StateError::Mismatch) => {}
                Err(error) => return Err(of_database(error)),
            }
        }
        Err(too_busy())
    }

    async fn delete_in_store(&self, primary: &Primary, key: &str) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS {
            let (_, etag) = present(self.merged(primary, key).await?)?;
            let mark = Record::mark_of_deletion();
            match put(primary.store.as_ref(), key, &mark, Condition::Matches(etag)).await {
                Ok(()) => return Ok(()),
                Err(StateError::Mismatch) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_busy().into())
    }
}

fn no_conversation() -> Error {
    Error::NotFound("conversation")
}

fn too_busy() -> Error {
    Error::Conflict("the conversation changes too fast; try again".to_owned())
}

/// The key contains the user, in an alphabet that no store or path gives a meaning to.
fn key(user: &UserId, id: ConversationId) -> String {
    format!("{KIND}{}.{id}", URL_SAFE_NO_PAD.encode(user.as_str()))
}

/// A conversation that is there and not deleted.
fn present(found: Option<Found>) -> Result<Found> {
    found.filter(|(record, _)| !record.deleted).ok_or_else(no_conversation)
}

fn history(found: Option<Found>, degraded: bool) -> Result<History> {
    let (record, _) = present(found)?;
    Ok(History {
        items: record.messages,
        degraded,
    })
}

async fn begin_in(store: &dyn StateStore, key: &str) -> Result<(), StateError> {
    match put(store, key, &Record::default(), Condition::Absent).await {
        Err(StateError::Mismatch) => Ok(()),
        outcome => outcome,
    }
}

/// Brings what waits into the store. Nothing is written that is there already.
async fn merge_one(
    store: &dyn StateStore,
    key: &str,
    found: Option<Found>,
    waiting: &Record,
) -> Result<(), StateError> {
    let Some((record, etag)) = found else {
        return if waiting.deleted {
            Ok(())
        } else {
            put(store, key, waiting, Condition::Absent).await
        };
    };
    let merged = if record.deleted || waiting.deleted {
        Record::mark_of_deletion()
    } else {
        record.clone().merge(waiting)
    };
    if merged == record {
        return Ok(());
    }
    put(store, key, &merged, Condition::Matches(etag)).await
}

async fn get(store: &dyn StateStore, key: &str) -> Result<Option<Found>, StateError> {
    let Some(stored) = store.get(key).await? else {
        return Ok(None);
    };
    let record = serde_json::from_value(stored.value).map_err(|error| StateError::Refused(error.into()))?;
    Ok(Some((record, stored.etag)))
}

async fn put(store: &dyn StateStore, key: &str, record: &Record, condition: Condition) -> Result<(), StateError> {
    let value = serde_json::to_value(record).map_err(|error| StateError::Refused(error.into()))?;
    store.put(key, value, condition, Some(KEPT)).await
}

/// What the database says has no store to fall back on.
fn of_database(error: StateError) -> Error {
    match error {
        StateError::Database(error) => error.into(),
        other => Error::State(other),
    }
}

fn describe_metrics() {
    metrics::describe_counter!(
        "todo_state_fallback_total",
        "How often the database stood in for a state store that failed."
    );
    metrics::describe_counter!(
        "todo_state_merged_total",
        "Values that were written while the state store was away, and merged into it."
    );
}
