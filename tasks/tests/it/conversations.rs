//! Conversations: nothing said is lost or doubled, nobody hears another's, and a store that is away is stood in for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;
use todo_events::BoxFuture;
use todo_tasks::conversation::{Appended, Conversations, MAX_BYTES, MessageInput, Role};
use todo_tasks::state::{Condition, DatabaseState, Etag, StateError, StateStore, Stored};
use todo_tasks::{ConversationId, Error, MessageId, UserId};
use todo_test_db::TestDb;

use crate::fixture::{Outcome, at_once, number, refused_field};

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn says(content: impl Into<String>) -> MessageInput {
    MessageInput {
        id: None,
        role: Role::User,
        content: content.into(),
    }
}

async fn begin(conversations: &Conversations, name: &str) -> anyhow::Result<ConversationId> {
    let id = ConversationId::new();
    conversations.begin(&user(name), id).await?;
    Ok(id)
}

async fn say(
    conversations: &Conversations,
    name: &str,
    id: ConversationId,
    content: impl Into<String>,
) -> anyhow::Result<Appended> {
    Ok(conversations.append(&user(name), id, says(content)).await?)
}

/// What was said, and whether the answer was degraded.
async fn heard(conversations: &Conversations, name: &str, id: ConversationId) -> anyhow::Result<(Vec<String>, bool)> {
    let history = conversations.history(&user(name), id).await?;
    assert!(history.items.is_sorted_by(|earlier, later| earlier.at < later.at));
    let contents = history.items.into_iter().map(|message| message.content);
    Ok((contents.collect(), history.degraded))
}

fn is_missing<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::NotFound("conversation")))
}

/// Another database as the store, with a switch. A real store on a wire that can be cut.
#[derive(Debug)]
struct Store {
    database: DatabaseState,
    /// Kept, or the database would go.
    _db: TestDb,
    is_cut: AtomicBool,
    /// The next write arrives, and its answer does not.
    loses_answer: AtomicBool,
    calls: AtomicUsize,
}

impl Store {
    async fn new() -> Arc<Self> {
        let db = TestDb::new().await;
        Arc::new(Self {
            database: DatabaseState::new(db.pool.clone()),
            _db: db,
            is_cut: AtomicBool::new(false),
            loses_answer: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
        })
    }

    fn cut(&self, cut: bool) {
        self.is_cut.store(cut, Ordering::SeqCst);
    }

    fn reach(&self) -> Result<(), StateError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_cut.load(Ordering::SeqCst) {
            Err(StateError::Unavailable("the wire is cut".into()))
        } else {
            Ok(())
        }
    }
}

impl StateStore for Store {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
        Box::pin(async move {
            self.reach()?;
            self.database.get(key).await
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Value,
        condition: Condition,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), StateError>> {
        Box::pin(async move {
            self.reach()?;
            self.database.put(key, value, condition, ttl).await?;
            if self.loses_answer.swap(false, Ordering::SeqCst) {
                self.cut(true);
                return Err(StateError::Unavailable("the answer was lost".into()));
            }
            Ok(())
        })
    }

    fn delete<'a>(&'a self, key: &'a str, etag: Option<&'a Etag>) -> BoxFuture<'a, Result<(), StateError>> {
        Box::pin(async move {
            self.reach()?;
            self.database.delete(key, etag).await
        })
    }
}

/// As another process would see it: without what this one remembers of the store.
fn over(pool: &PgPool, store: &Arc<Store>) -> Conversations {
    Conversations::new(pool.clone()).in_store(Arc::clone(store) as _)
}

async fn waiting(pool: &PgPool) -> anyhow::Result<i64> {
    number(pool, "SELECT count(*) FROM state").await
}

#[tokio::test]
async fn what_was_said_is_heard_in_its_order_the_last_hundred() -> Outcome {
    let db = TestDb::new().await;
    let conversations = Conversations::new(db.pool.clone());
    let id = begin(&conversations, "ada").await?;
    assert_eq!(heard(&conversations, "ada", id).await?, (vec![], false));
    for number in 0..103 {
        assert!(!say(&conversations, "ada", id, number.to_string()).await?.degraded);
    }
    let expected = (3..103).map(|number| number.to_string()).collect();
    assert_eq!(heard(&conversations, "ada", id).await?, (expected, false));
    conversations.begin(&user("ada"), id).await?;
    assert_eq!(heard(&conversations, "ada", id).await?.0.len(), 100, "begun once");
    Ok(())
}

#[tokio::test]
async fn a_conversation_is_bounded_in_bytes_too_and_keeps_what_is_newest() -> Outcome {
    let db = TestDb::new().await;
    let conversations = Conversations::new(db.pool.clone());
    let id = begin(&conversations, "ada").await?;
    // Four bytes each.
    let long = "\u{1F600}".repeat(16_000);
    for number in 0..8 {
        say(&conversations, "ada", id, number.to_string()).await?;
        say(&conversations, "ada", id, long.clone()).await?;
    }
    let (heard, _) = heard(&conversations, "ada", id).await?;
    assert!(heard.iter().map(String::len).sum::<usize>() <= MAX_BYTES);
    assert_eq!(heard.len(), 8, "four long ones, and what stands before each");
    assert_eq!(heard.last(), Some(&long));
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_sent_again_is_there_once() -> Outcome {
    let db = TestDb::new().await;
    let conversations = Conversations::new(db.pool.clone());
    let id = begin(&conversations, "ada").await?;
    let ada = user("ada");
    let message = MessageInput {
        id: Some(MessageId::new()),
        ..says("hello")
    };
    let first = conversations.append(&ada, id, message.clone()).await?;
    say(&conversations, "ada", id, "and then").await?;
    assert_eq!(conversations.append(&ada, id, message.clone()).await?, first);
    assert_eq!(heard(&conversations, "ada", id).await?.0, ["hello", "and then"]);
    let other = MessageInput {
        content: "good bye".to_owned(),
        ..message
    };
    let refused = conversations.append(&ada, id, other).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_message_that_cannot_be_one_is_refused_by_its_field() -> Outcome {
    let db = TestDb::new().await;
    let conversations = Conversations::new(db.pool.clone());
    let id = begin(&conversations, "ada").await?;
    for content in [String::new(), "x".repeat(16_001), "nul \0".to_owned()] {
        let refused = conversations.append(&user("ada"), id, says(content)).await;
        assert_eq!(refused_field(refused), "content");
    }
    assert_eq!(heard(&conversations, "ada", id).await?.0.len(), 0);
    Ok(())
}

#[tokio::test]
async fn many_who_speak_at_once_are_all_heard() -> Outcome {
    let db = TestDb::new().await;
    let store = Store::new().await;
    for conversations in [Conversations::new(db.pool.clone()), over(&db.pool, &store)] {
        let id = begin(&conversations, "ada").await?;
        let speakers = (0..20).map(|speaker| {
            let conversations = conversations.clone();
            async move {
                for number in 0..4 {
                    say(&conversations, "ada", id, format!("{speaker} says {number}")).await?;
                }
                Ok(())
            }
        });
        at_once(speakers).await?;
        let (mut all, degraded) = heard(&conversations, "ada", id).await?;
        assert!(!degraded);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 80);
    }
    Ok(())
}

#[tokio::test]
async fn nobody_hears_changes_or_deletes_anothers() -> Outcome {
    let db = TestDb::new().await;
    let store = Store::new().await;
    for conversations in [Conversations::new(db.pool.clone()), over(&db.pool, &store)] {
        let id = begin(&conversations, "ada").await?;
        say(&conversations, "ada", id, "secret").await?;
        // Names that would be hers if a key were taken apart carelessly.
        for other in [
            "bob",
            "ad",
            "ada.",
            "ADA",
            &format!("ada.{id}"),
            "../ada",
            "conversation.ada",
        ] {
            let other = user(other);
            assert!(is_missing(&conversations.history(&other, id).await));
            assert!(is_missing(&conversations.append(&other, id, says("mine")).await));
            assert!(is_missing(&conversations.delete(&other, id).await));
            conversations.begin(&other, id).await?;
            assert_eq!(conversations.history(&other, id).await?.items, []);
        }
        assert_eq!(heard(&conversations, "ada", id).await?.0, ["secret"]);
    }
    Ok(())
}

#[tokio::test]
async fn what_was_deleted_is_gone_and_takes_no_more() -> Outcome {
    let db = TestDb::new().await;
    let store = Store::new().await;
    for conversations in [Conversations::new(db.pool.clone()), over(&db.pool, &store)] {
        let id = begin(&conversations, "ada").await?;
        say(&conversations, "ada", id, "forget me").await?;
        conversations.delete(&user("ada"), id).await?;
        assert!(is_missing(&conversations.history(&user("ada"), id).await));
        assert!(is_missing(&conversations.append(&user("ada"), id, says("more")).await));
        assert!(is_missing(&conversations.delete(&user("ada"), id).await));
    }
    Ok(())
}

#[tokio::test]
async fn while_the_store_is_away_the_database_stands_in_and_says_so() -> Outcome {
    let db = TestDb::new().await;
    let store = Store::new().await;
    let conversations = over(&db.pool, &store);
    let id = begin(&conversations, "ada").await?;
    say(&conversations, "ada", id, "before").await?;
    assert_eq!(waiting(&db.pool).await?, 0);

    store.cut(true);
    assert!(say(&conversations, "ada", id, "meanwhile 1").await?.degraded);
    assert!(say(&conversations, "ada", id, "meanwhile 2").await?.degraded);
    assert_eq!(
        heard(&conversations, "ada", id).await?,
        (vec!["meanwhile 1".to_owned(), "meanwhile 2".to_owned()], true)
    );
    let new = ConversationId::new();
    assert!(conversations.begin(&user("ada"), new).await?.degraded);
    assert!(say(&conversations, "ada", new, "a new one").await?.degraded);

    store.cut(false);
    let conversations = over(&db.pool, &store);
    let all = ["before", "meanwhile 1", "meanwhile 2"].map(str::to_owned);
    assert_eq!(heard(&conversations, "ada", id).await?, (all.to_vec(), false));
    assert_eq!(waiting(&db.pool).await?, 1, "merged by reading, and removed");
    say(&conversations, "ada", new, "goes on").await?;
    assert_eq!(
        heard(&conversations, "ada", new).await?,
        (vec!["a new one".to_owned(), "goes on".to_owned()], false)
    );
    assert_eq!(waiting(&db.pool).await?, 0, "merged by writing");
    Ok(())
}

#[tokio::test]
async fn a_store_that_failed_is_not_asked_in_each_request() -> Outcome {
    let db = TestDb::new().await;
    let store = Store::new().await;
    let conversations = over(&db.pool, &store);
    let id = begin(&conversations, "ada").await?;
    store.cut(true);
    store.calls.store(0, Ordering::SeqCst);
    for number in 0..20 {
        say(&conversations, "ada", id, number.to_string()).await?;
    }
    assert_eq!(store.calls.load(Ordering::SeqCst), 1);
    store.cut(false);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let (all, degraded) = heard(&conversations, "ada", id).await?;
    assert_eq!((all.len(), degraded), (20, false));
    Ok(())
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_there_once() -> Outcome {
    let db = TestDb::new().await;
    let store = Store::new().await;
    let conversations = over(&db.pool, &store);
    let id = begin(&conversations, "ada").await?;
    store.loses_answer.store(true, Ordering::SeqCst);
    assert!(say(&conversations, "ada", id, "lost and found").await?.degraded);
    assert!(say(&conversations, "ada", id, "meanwhile").await?.degraded);
    store.cut(false);
    let conversations = over(&db.pool, &store);
    let all = ["lost and found", "meanwhile"].map(str::to_owned).to_vec();
    assert_eq!(heard(&conversations, "ada", id).await?, (all, false));
    Ok(())
}

#[tokio::test]
async fn a_merge_that_was_cut_off_half_way_doubles_nothing() -> Outcome {
    let db = TestDb::new().await;
    let store = Store::new().await;
    let conversations = over(&db.pool, &store);
    let id = begin(&conversations, "ada").await?;
    say(&conversations, "ada", id, "before").await?;
    store.cut(true);
    say(&conversations, "ada", id, "meanwhile").await?;
    store.cut(false);
    store.loses_answer.store(true, Ordering::SeqCst);
    let (_, degraded) = heard(&over(&db.pool, &store), "ada", id).await?;
    assert!(degraded, "the store went away while it was merged into");
    assert_eq!(waiting(&db.pool).await?, 1);
    store.cut(false);
    let all = ["before", "meanwhile"].map(str::to_owned).to_vec();
    assert_eq!(heard(&over(&db.pool, &store), "ada", id).await?, (all, false));
    assert_eq!(waiting(&db.pool).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_deletion_outlives_the_outage() -> Outcome {
    let db = TestDb::new().await;
    let store = Store::new().await;
    let conversations = over(&db.pool, &store);
    let ada = user("ada");
    let id = begin(&conversations, "ada").await?;
    say(&conversations, "ada", id, "forget me").await?;
    store.cut(true);
    conversations.delete(&ada, id).await?;
    assert!(is_missing(&conversations.history(&ada, id).await));
    assert!(is_missing(&conversations.append(&ada, id, says("more")).await));
    store.cut(false);
    let conversations = over(&db.pool, &store);
    assert_eq!(conversations.merge_waiting().await?, 1);
    assert_eq!(waiting(&db.pool).await?, 0);
    assert!(is_missing(&conversations.history(&ada, id).await));
    Ok(())
}

#[tokio::test]
async fn what_was_on_its_way_does_not_bring_a_deleted_conversation_back() -> Outcome {
    let db = TestDb::new().await;
    let store = Store::new().await;
    let conversations = over(&db.pool, &store);
    let id = begin(&conversations, "ada").await?;
    say(&conversations, "ada", id, "forget me").await?;
    conversations.delete(&user("ada"), id).await?;
    store.cut(true);
    // Nobody can know that it is deleted.
    assert!(say(&over(&db.pool, &store), "ada", id, "meanwhile").await?.degraded);
    store.cut(false);
    let conversations = over(&db.pool, &store);
    conversations.merge_waiting().await?;
    assert_eq!(waiting(&db.pool).await?, 0);
    assert!(is_missing(&conversations.history(&user("ada"), id).await));
    Ok(())
}

#[tokio::test]
async fn what_waits_is_merged_without_anybody_asking_by_many_at_once() -> Outcome {
    let db = TestDb::new().await;
    let store = Store::new().await;
    let conversations = over(&db.pool, &store);
    let mut ids = Vec::new();
    for number in 0..120 {
        let id = begin(&conversations, "ada").await?;
        say(&conversations, "ada", id, format!("before {number}")).await?;
        ids.push(id);
    }
    store.cut(true);
    for (number, id) in ids.iter().enumerate() {
        say(&conversations, "ada", *id, format!("meanwhile {number}")).await?;
    }
    assert_eq!(over(&db.pool, &store).merge_waiting().await?, 0, "still away");
    store.cut(false);
    // While others go on speaking.
    let mergers = (0..3).map(|_| {
        let conversations = over(&db.pool, &store);
        async move { Ok(conversations.merge_waiting().await?) }
    });
    let speaker = over(&db.pool, &store);
    let speaking = async {
        for (number, id) in ids.iter().enumerate() {
            say(&speaker, "ada", *id, format!("after {number}")).await?;
        }
        anyhow::Ok(())
    };
    let (merged, spoken) = tokio::join!(at_once(mergers), speaking);
    merged?;
    spoken?;
    assert_eq!(waiting(&db.pool).await?, 0);
    for (number, id) in ids.iter().enumerate() {
        let all = ["before", "meanwhile", "after"].map(|when| format!("{when} {number}"));
        assert_eq!(heard(&speaker, "ada", *id).await?, (all.to_vec(), false));
    }
    Ok(())
}

#[tokio::test]
async fn a_database_full_of_conversations_moves_into_a_store_that_is_added() -> Outcome {
    let db = TestDb::new().await;
    let alone = Conversations::new(db.pool.clone());
    let id = begin(&alone, "ada").await?;
    say(&alone, "ada", id, "from the first rung").await?;
    let store = Store::new().await;
    let conversations = over(&db.pool, &store);
    assert_eq!(conversations.merge_waiting().await?, 1);
    assert_eq!(waiting(&db.pool).await?, 0);
    assert_eq!(
        heard(&conversations, "ada", id).await?,
        (vec!["from the first rung".to_owned()], false)
    );
    Ok(())
}
