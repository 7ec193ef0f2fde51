//! How large an event may get: a broker refuses for good what is larger than it takes, and no later event of any task
//! would get past it.

use serde_json::json;
use todo_events::{CloudEvent, Event, NewEvent};
use todo_tasks::Caller;
use todo_tasks::task::{Priority, TaskInput};
use todo_test_db::TestDb;

use crate::fixture::{Outcome, at, caller, create, due_local, edit, events};

/// What the platform's Kafka component takes as one message (`maxMessageBytes`), key, headers and all.
const LARGEST_MESSAGE: usize = 1_000_000;

/// The longest name of a time zone.
const ZONE: &str = "America/Argentina/ComodRivadavia";

/// Every field at its limit, in characters that JSON needs six bytes for. `seed` is one of them.
fn largest(seed: char) -> TaskInput {
    let text = |length: usize| seed.to_string().repeat(length);
    let rule = format!("FREQ=YEARLY;BYMONTHDAY={}1", "31,".repeat(1_300));
    TaskInput {
        description: text(20_000),
        priority: Priority::Medium,
        category: Some(text(100)),
        tags: (0..50).map(|tag| format!("{}{tag:02}", text(48))).collect(),
        due: Some(due_local("2101-03-01T09:00:00", ZONE)),
        recurrence: Some(serde_json::from_value(json!({"rrule": rule})).unwrap()),
        reminders: (0..20)
            .map(|minute| at(due_local(&format!("2101-02-01T08:{minute:02}:00"), ZONE)))
            .collect(),
        ..TaskInput::titled(text(500))
    }
}

#[tokio::test]
async fn the_largest_event_of_a_task_fits_into_a_message_of_kafka() -> Outcome {
    let db = TestDb::new().await;
    let caller = Caller {
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ..caller(&"\u{1f600}".repeat(255))
    };
    let task = create(&db.pool, &caller, largest('\u{1}')).await?;
    edit(&db.pool, &caller, task.id, |_| largest('\u{2}')).await?;

    let logged = events(&db.pool, task.id).await?.pop().unwrap();
    let event = Event {
        id: NewEvent::new_id(),
        event_type: logged.event_type.parse()?,
        subject: task.id.0,
        user_id: logged.user_id,
        version: logged.version,
        actor: logged.actor,
        data: logged.data,
        previous: logged.previous,
        traceparent: caller.traceparent,
        time: "2026-11-21T08:30:00.123456Z".parse()?,
    };
    let user = event.user_id.len();
    let length = serde_json::to_string(&CloudEvent::from(&event))?.len();
    println!("the largest event has {length} bytes");
    // Both texts, before and after, are in it.
    assert!(length > 2 * 6 * 20_000, "{length}");
    // The user's id is the key and a header; a kilobyte for what else is around it.
    assert!(length + 2 * user + 1_000 < LARGEST_MESSAGE, "{length}");
    Ok(())
}
