//! New time-zone rules: what was said stays, what was computed is computed again, what was sent stays sent.
//!
//! The tests set instants as an older release would have computed them: British Columbia keeps summer time all year
//! since release 2026b, so nine o'clock in December is 16:00 UTC and was 17:00 UTC.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::PgPool;
use todo_recurrence::zone;
use todo_tasks::reminder;
use todo_tasks::task::{Task, TaskInput};
use todo_tasks::zone_rules::{self, Refreshed};
use todo_tasks::{DueInput, TaskId};
use todo_test_db::TestDb;

use crate::fixture::{
    Outcome, ada, at, before, create, create_schedule, cron, due_at, due_local, events, get, get_schedule, number,
    schedule_input,
};

const NINE: &str = "2101-12-01T09:00:00";

async fn in_vancouver(pool: &PgPool) -> anyhow::Result<Task> {
    let input = TaskInput {
        due: Some(due_local(NINE, "America/Vancouver")),
        reminders: vec![
            before("1h"),
            before("2h"),
            at(due_local("2101-12-01T08:30:00", "America/Vancouver")),
        ],
        ..TaskInput::titled("ferry")
    };
    let task = create(pool, &ada(), input).await?;
    assert_eq!(task.due.as_ref().unwrap().at, "2101-12-01T16:00:00Z".parse()?);
    Ok(task)
}

/// Sets all instants to what they were under the old rules, an hour later.
async fn under_old_rules(pool: &PgPool) -> Outcome {
    for query in [
        "UPDATE tasks SET due_at = due_at + interval '1 hour'",
        "UPDATE reminders SET fire_at = fire_at + interval '1 hour'",
    ] {
        sqlx::query(query).execute(pool).await?;
    }
    Ok(())
}

async fn fire_times(pool: &PgPool, id: TaskId) -> anyhow::Result<Vec<Timestamp>> {
    let reminders = reminder::list(&mut *pool.acquire().await?, &ada().user, id).await?;
    Ok(reminders
        .into_iter()
        .map(|reminder| reminder.fire_at.unwrap())
        .collect())
}

#[tokio::test]
async fn an_instant_of_old_rules_moves_with_its_unsent_reminders() -> Outcome {
    let db = TestDb::new().await;
    let task = in_vancouver(&db.pool).await?;
    let right = fire_times(&db.pool, task.id).await?;
    under_old_rules(&db.pool).await?;
    let wrong = get(&db.pool, &ada(), task.id).await?.due;

    let refreshed = zone_rules::refresh(&db.pool, "2026e").await?;
    assert_eq!(
        refreshed,
        Some(Refreshed {
            tasks: 1,
            reminders: 1,
            schedules: 0
        })
    );
    let after = get(&db.pool, &ada(), task.id).await?;
    assert_eq!((&after.due, after.version), (&task.due, 2));
    assert_eq!(fire_times(&db.pool, task.id).await?, right);
    let logged = events(&db.pool, task.id).await?;
    assert_eq!(logged.len(), 2);
    assert_eq!(
        (&*logged[1].event_type, &*logged[1].actor),
        ("updated", "system:time-zones")
    );
    assert_eq!(logged[1].data, serde_json::to_value(&after)?);
    assert_eq!(logged[1].previous, Some(json!({ "due": wrong })));

    assert_eq!(zone_rules::refresh(&db.pool, "2026e").await?, None);
    let nothing = Refreshed::default();
    assert_eq!(zone_rules::refresh(&db.pool, "2027a").await?, Some(nothing));
    assert_eq!(events(&db.pool, task.id).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_reminder_that_went_out_under_the_old_rules_stays_sent() -> Outcome {
    let db = TestDb::new().await;
    let task = in_vancouver(&db.pool).await?;
    under_old_rules(&db.pool).await?;
    sqlx::query("UPDATE reminders SET sent_at = fire_at")
        .execute(&db.pool)
        .await?;
    let sent = fire_times(&db.pool, task.id).await?;
    let refreshed = zone_rules::refresh(&db.pool, "2026e").await?;
    assert_eq!(
        refreshed,
        Some(Refreshed {
            tasks: 1,
            reminders: 0,
            schedules: 0
        })
    );
    assert_eq!(fire_times(&db.pool, task.id).await?, sent);
    assert_eq!(number(&db.pool, "SELECT count(sent_at) FROM reminders").await?, 3);
    Ok(())
}

#[tokio::test]
async fn an_instant_that_is_right_stays_in_either_pass_and_out_of_a_gap() -> Outcome {
    let db = TestDb::new().await;
    let new_york = zone::time_zone("America/New_York")?;
    let half_an_hour = SignedDuration::from_mins(30);
    let mut changes = new_york.following("2101-01-01T00:00:00Z".parse()?);
    let (forward, back) = (changes.next().unwrap().timestamp(), changes.next().unwrap().timestamp());
    // Half past two, when the clock goes from two to three.
    let in_the_gap = new_york.to_datetime(forward - half_an_hour) + jiff::Span::new().hours(1);
    let dues = [
        DueInput {
            time_zone: Some("America/New_York".to_owned()),
            ..due_at(back - half_an_hour)
        },
        DueInput {
            time_zone: Some("America/New_York".to_owned()),
            ..due_at(back + half_an_hour)
        },
        due_local(&in_the_gap.to_string(), "America/New_York"),
    ];
    let mut tasks = Vec::new();
    for due in dues {
        let input = TaskInput {
            due: Some(due),
            ..TaskInput::titled("odd")
        };
        tasks.push(create(&db.pool, &ada(), input).await?);
    }
    assert_eq!(
        tasks[0].due.as_ref().unwrap().local,
        tasks[1].due.as_ref().unwrap().local
    );
    assert_eq!(
        zone_rules::refresh(&db.pool, "2026e").await?,
        Some(Refreshed::default())
    );
    for task in tasks {
        assert_eq!(get(&db.pool, &ada(), task.id).await?, task);
    }
    Ok(())
}

#[tokio::test]
async fn a_schedules_next_occurrence_is_computed_again() -> Outcome {
    let db = TestDb::new().await;
    let created = create_schedule(&db.pool, &ada(), schedule_input(cron("0 9 * * *", "America/Vancouver"))).await?;
    sqlx::query("UPDATE schedules SET next_at = next_at + interval '1 hour'")
        .execute(&db.pool)
        .await?;
    let refreshed = zone_rules::refresh(&db.pool, "2026e").await?;
    assert_eq!(
        refreshed,
        Some(Refreshed {
            tasks: 0,
            reminders: 0,
            schedules: 1
        })
    );
    assert_eq!(
        get_schedule(&db.pool, &ada(), created.id).await?.next_at,
        created.next_at
    );
    Ok(())
}
