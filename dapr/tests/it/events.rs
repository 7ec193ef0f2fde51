//! The shortest ways to make events.

use serde_json::json;
use todo_events::{Event, EventType, NewEvent};
use uuid::Uuid;

/// The next version of this user's task.
pub(crate) fn event(user: &str, subject: Uuid, version: i64) -> Event {
    Event {
        id: NewEvent::new_id(),
        event_type: if version == 1 {
            EventType::Created
        } else {
            EventType::Updated
        },
        subject,
        user_id: user.to_owned(),
        version,
        actor: user.to_owned(),
        data: json!({"title": format!("version {version}")}),
        previous: (version > 1).then(|| json!({"title": format!("version {}", version - 1)})),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        time: "2026-11-21T08:30:00.123456Z".parse().unwrap(),
    }
}

/// One task each for these users; the versions of all tasks, round by round.
pub(crate) fn history(users: &[&str], versions: i64) -> Vec<Event> {
    let tasks: Vec<_> = users.iter().map(|&user| (user, Uuid::now_v7())).collect();
    (1..=versions)
        .flat_map(|version| tasks.iter().map(move |&(user, task)| event(user, task, version)))
        .collect()
}
