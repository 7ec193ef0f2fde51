//! Schedules: creating, changing, pausing and deleting them, and what their tasks look like.

use jiff::{SignedDuration, Timestamp};
use sqlx::PgPool;
use todo_tasks::schedule::{self, Overlap, Schedule, ScheduleInput, TaskTemplate, TemplateReminder};
use todo_tasks::task::{self, Direction, Filter, ListQuery, Sort, Task};
use todo_tasks::{Caller, Error, ScheduleId, zone_rules};
use todo_test_db::TestDb;

use crate::fixture::{
    Outcome, ada, asleep_since, caller, complete, create_schedule, cron, get_schedule, made_for, number, refused_field,
    schedule_input, template, this_second,
};

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

async fn make_due(pool: &PgPool) -> anyhow::Result<schedule::Made> {
    Ok(commit!(pool, |tx| schedule::make_due(&mut tx, 100))?)
}

async fn change(
    pool: &PgPool,
    id: ScheduleId,
    edit: impl FnOnce(ScheduleInput) -> ScheduleInput,
) -> todo_tasks::Result<Schedule> {
    commit!(pool, |tx| schedule::change(&mut tx, &ada(), id, None, |input| {
        Ok::<_, Error>(edit(input))
    }))
}

/// The tasks that a schedule made, in the order in which it made them.
async fn tasks_of(pool: &PgPool, caller: &Caller, id: ScheduleId) -> anyhow::Result<Vec<Task>> {
    let query = ListQuery {
        filter: Filter {
            schedule_id: Some(id),
            ..Filter::default()
        },
        sort: Sort::CreatedAt,
        direction: Direction::Asc,
        after: None,
        limit: 1000,
    };
    Ok(task::list(&mut *pool.acquire().await?, &caller.user, &query)
        .await?
        .items)
}

/// A rule whose only occurrence is at that instant.
fn once(at: Timestamp) -> todo_recurrence::ScheduleSpec {
    let local = jiff::tz::TimeZone::UTC.to_datetime(at);
    todo_recurrence::ScheduleSpec {
        rrule: Some("FREQ=DAILY;COUNT=1".to_owned()),
        time_zone: "UTC".to_owned(),
        start: Some(local),
        ..todo_recurrence::ScheduleSpec::default()
    }
}

#[tokio::test]
async fn an_occurrence_makes_its_task_with_all_that_the_template_says() -> Outcome {
    let db = TestDb::new().await;
    let input = ScheduleInput {
        template: TaskTemplate {
            title: "Report {{date}} #{{n}}".to_owned(),
            description: "{{weekday}} {{time}} {{date:%B %Y}}".to_owned(),
            category: Some("office".to_owned()),
            tags: vec!["Report".to_owned()],
            due_in: Some("8h".parse()?),
            reminders: vec![TemplateReminder { before: "30m".parse()? }],
            ..TaskTemplate::default()
        },
        ..schedule_input(cron("* * * * *", "Asia/Kolkata"))
    };
    let created = create_schedule(&db.pool, &ada(), input).await?;
    assert!(created.next_at > Some(created.created_at));
    asleep_since(&db.pool, &created, Timestamp::now() - seconds(180)).await?;
    let made = make_due(&db.pool).await?;
    assert_eq!((made.schedules, made.tasks, made.missed), (1, 3, 0));

    let zone = todo_recurrence::zone::time_zone("Asia/Kolkata")?;
    let tasks = tasks_of(&db.pool, &ada(), created.id).await?;
    for (task, n) in tasks.iter().zip(1..) {
        let occurrence = task.occurrence_at.unwrap();
        let local = occurrence.to_zoned(zone.clone());
        assert_eq!(task.title, format!("Report {} #{n}", local.date()));
        assert_eq!(task.description, local.strftime("%A %H:%M %B %Y").to_string());
        assert_eq!(
            (task.category.as_deref(), &*task.tags),
            (Some("office"), &["report".to_owned()][..])
        );
        let due = task.due.as_ref().unwrap();
        assert_eq!(
            (due.at, &*due.time_zone),
            (occurrence + seconds(8 * 3600), "Asia/Kolkata")
        );
        let logged = crate::fixture::events(&db.pool, task.id).await?;
        assert_eq!(logged.len(), 1);
        assert_eq!(
            (&*logged[0].event_type, &*logged[0].actor),
            ("recurring_spawn", "system:recurring")
        );
        assert_eq!(logged[0].data, serde_json::to_value(task)?);
    }
    assert_eq!(
        number(&db.pool, "SELECT count(*) FROM reminders JOIN tasks AS t ON t.id = task_id AND fire_at = due_at - interval '30 minutes'").await?,
        3
    );
    let after = get_schedule(&db.pool, &ada(), created.id).await?;
    assert_eq!((after.made, after.missed, after.skipped), (3, 0, 0));
    assert_eq!(after.last_at, tasks.last().unwrap().occurrence_at);
    assert_eq!(after.version, created.version);
    Ok(())
}

#[tokio::test]
async fn due_in_is_real_time_across_a_change_of_clocks() -> Outcome {
    let db = TestDb::new().await;
    let zone = todo_recurrence::zone::time_zone("Europe/Berlin")?;
    let change = zone.preceding(Timestamp::now()).next().unwrap().timestamp();
    // At eight in the evening before, by the clock of the day.
    let eve = zone.to_datetime(change).date().yesterday()?.at(20, 0, 0, 0);
    let input = ScheduleInput {
        template: TaskTemplate {
            due_in: Some("12h".parse()?),
            ..template("night")
        },
        catch_up: schedule::CatchUpInput {
            window: "520w".parse()?,
            ..schedule::CatchUpInput::default()
        },
        ..schedule_input(todo_recurrence::ScheduleSpec {
            start: Some(eve),
            ..cron("0 20 * * *", "Europe/Berlin")
        })
    };
    let created = create_schedule(&db.pool, &ada(), input).await?;
    asleep_since(&db.pool, &created, change - seconds(86_400)).await?;
    make_due(&db.pool).await?;
    let task = tasks_of(&db.pool, &ada(), created.id).await?.remove(0);
    let due = task.due.unwrap();
    assert_eq!(due.at, task.occurrence_at.unwrap() + seconds(12 * 3600));
    assert_eq!(due.local, zone.to_datetime(due.at));
    assert_ne!(
        due.local,
        eve.tomorrow()?.date().at(8, 0, 0, 0),
        "the clocks changed in between"
    );
    Ok(())
}

#[tokio::test]
async fn while_a_task_is_open_skip_makes_none() -> Outcome {
    let db = TestDb::new().await;
    let input = ScheduleInput {
        overlap: Overlap::Skip,
        ..schedule_input(cron("* * * * *", "UTC"))
    };
    let created = create_schedule(&db.pool, &ada(), input).await?;
    let since = Timestamp::now() - seconds(600);
    let rule = asleep_since(&db.pool, &created, since).await?;
    make_due(&db.pool).await?;
    let after = get_schedule(&db.pool, &ada(), created.id).await?;
    let occurrences: Vec<_> = rule
        .after(since)
        .take_while(|at| *at <= after.last_at.unwrap())
        .collect();
    assert!(occurrences.len() >= 10);
    assert_eq!(
        made_for(&db.pool, created.id).await?,
        occurrences[occurrences.len() - 1..]
    );
    assert_eq!((after.made, after.skipped), (1, i64::try_from(occurrences.len())? - 1));

    // Two more come due, the task is open: both are skipped.
    let back = after.last_at.unwrap() - seconds(120);
    sqlx::query("DELETE FROM occurrences").execute(&db.pool).await?;
    asleep_since(&db.pool, &created, back).await?;
    assert_eq!(make_due(&db.pool).await?.tasks, 0);
    let skipped = get_schedule(&db.pool, &ada(), created.id).await?;
    assert!(skipped.skipped >= after.skipped + 2);
    assert_eq!(skipped.made, 1);

    // It is done: the next one is made.
    let open = tasks_of(&db.pool, &ada(), created.id).await?.remove(0);
    complete(&db.pool, &ada(), open.id).await?;
    asleep_since(&db.pool, &created, back).await?;
    assert_eq!(make_due(&db.pool).await?.tasks, 1);
    Ok(())
}

#[tokio::test]
async fn an_edit_just_after_an_occurrence_came_due_does_not_lose_it() -> Outcome {
    let db = TestDb::new().await;
    let created = create_schedule(&db.pool, &ada(), schedule_input(cron("* * * * *", "UTC"))).await?;
    asleep_since(&db.pool, &created, Timestamp::now() - seconds(60)).await?;
    let changed = change(&db.pool, created.id, |input| ScheduleInput {
        template: template("other"),
        ..input
    })
    .await?;
    assert_eq!((changed.version, changed.made), (2, 1));
    assert_eq!(tasks_of(&db.pool, &ada(), created.id).await?[0].title, "again");

    asleep_since(&db.pool, &changed, Timestamp::now() - seconds(120)).await?;
    let changed = change(&db.pool, created.id, |input| ScheduleInput {
        schedule: cron("0 0 1 1 *", "UTC"),
        ..input
    })
    .await?;
    assert!(changed.made >= 2);
    assert!(changed.next_at > Some(Timestamp::now()));
    let tasks = tasks_of(&db.pool, &ada(), created.id).await?;
    assert_eq!(tasks.last().unwrap().title, "other");
    Ok(())
}

#[tokio::test]
async fn saying_the_same_again_changes_nothing() -> Outcome {
    let db = TestDb::new().await;
    let created = create_schedule(&db.pool, &ada(), schedule_input(cron("0 9 * * *", "UTC"))).await?;
    assert_eq!(change(&db.pool, created.id, |input| input).await?, created);
    let mut tx = db.pool.begin().await?;
    let stale = schedule::delete(&mut tx, &ada(), created.id, Some(7)).await;
    assert!(matches!(stale, Err(Error::VersionMismatch { current: 1 })), "{stale:?}");
    Ok(())
}

#[tokio::test]
async fn what_falls_into_a_pause_is_neither_made_nor_missed() -> Outcome {
    let db = TestDb::new().await;
    let created = create_schedule(&db.pool, &ada(), schedule_input(cron("* * * * *", "UTC"))).await?;
    let paused = commit!(db.pool, |tx| schedule::pause(&mut tx, &ada(), created.id))?;
    assert!(paused.suspended);
    asleep_since(&db.pool, &created, Timestamp::now() - seconds(600)).await?;
    assert_eq!(make_due(&db.pool).await?, schedule::Made::default());
    let resumed = commit!(db.pool, |tx| schedule::resume(&mut tx, &ada(), created.id))?;
    assert!(!resumed.suspended);
    assert_eq!((resumed.made, resumed.missed, resumed.skipped), (0, 0, 0));
    assert!(resumed.next_at > Some(resumed.updated_at));
    assert_eq!(make_due(&db.pool).await?.schedules, 0);
    Ok(())
}

#[tokio::test]
async fn a_schedule_that_has_ended_can_still_be_paused_and_renamed() -> Outcome {
    let db = TestDb::new().await;
    let created = create_schedule(
        &db.pool,
        &ada(),
        schedule_input(todo_recurrence::ScheduleSpec {
            end: Some("2101-01-01T00:00:00".parse()?),
            ..cron("0 9 * * *", "UTC")
        }),
    )
    .await?;
    sqlx::query(
        r#"UPDATE schedules
        SET rule = rule || '{"end": "2020-01-02T00:00:00"}',
            anchor_at = '2020-01-01T00:00:00Z',
            next_at = NULL"#,
    )
    .execute(&db.pool)
    .await?;
    commit!(db.pool, |tx| schedule::pause(&mut tx, &ada(), created.id))?;
    let renamed = change(&db.pool, created.id, |input| ScheduleInput {
        name: "over".to_owned(),
        ..input
    })
    .await?;
    assert_eq!((&*renamed.name, renamed.next_at), ("over", None));
    Ok(())
}

#[tokio::test]
async fn a_deleted_schedule_makes_nothing_and_its_tasks_stay() -> Outcome {
    let db = TestDb::new().await;
    let created = create_schedule(&db.pool, &ada(), schedule_input(cron("* * * * *", "UTC"))).await?;
    asleep_since(&db.pool, &created, Timestamp::now() - seconds(60)).await?;
    make_due(&db.pool).await?;
    commit!(db.pool, |tx| schedule::delete(&mut tx, &ada(), created.id, None))?;
    asleep_since(&db.pool, &created, Timestamp::now() - seconds(600)).await?;
    assert_eq!(make_due(&db.pool).await?, schedule::Made::default());
    assert_eq!(tasks_of(&db.pool, &ada(), created.id).await?.len(), 1);
    assert!(get_schedule(&db.pool, &ada(), created.id).await.is_err());
    Ok(())
}

async fn put(pool: &PgPool, user: &str, uid: &str, input: ScheduleInput) -> anyhow::Result<Schedule> {
    let user = caller(user).user;
    Ok(commit!(pool, |tx| schedule::put_external(&mut tx, &user, uid, input))?)
}

#[tokio::test]
async fn a_declared_schedule_is_put_as_often_as_one_likes() -> Outcome {
    let db = TestDb::new().await;
    let input = schedule_input(cron("* * * * *", "UTC"));
    let first = put(&db.pool, "ada", "file:a", input.clone()).await?;
    assert_eq!(put(&db.pool, "ada", "file:a", input.clone()).await?, first);
    let renamed = ScheduleInput {
        name: "renamed".to_owned(),
        ..input.clone()
    };
    let changed = put(&db.pool, "ada", "file:a", renamed).await?;
    assert_eq!((changed.id, changed.version, &*changed.name), (first.id, 2, "renamed"));
    assert_eq!(number(&db.pool, "SELECT count(*) FROM schedules").await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_declared_schedule_that_comes_back_counts_from_then() -> Outcome {
    let db = TestDb::new().await;
    let input = schedule_input(cron("* * * * *", "UTC"));
    let first = put(&db.pool, "ada", "file:a", input.clone()).await?;
    let deleted = commit!(db.pool, |tx| schedule::retain_external(&mut tx, "file:", &[]))?;
    assert_eq!(deleted, 1);
    asleep_since(&db.pool, &first, Timestamp::now() - seconds(600)).await?;
    let back = put(&db.pool, "ada", "file:a", input).await?;
    assert_eq!((back.id, back.suspended), (first.id, false));
    assert!(back.version > first.version);
    assert_eq!((back.made, back.missed), (0, 0));
    assert_eq!(make_due(&db.pool).await?.tasks, 0);
    Ok(())
}

#[tokio::test]
async fn a_declared_schedule_may_change_its_user() -> Outcome {
    let db = TestDb::new().await;
    let input = schedule_input(cron("* * * * *", "UTC"));
    let adas = put(&db.pool, "ada", "file:a", input.clone()).await?;
    let bobs = put(&db.pool, "bob", "file:a", input).await?;
    assert_eq!((bobs.id, bobs.user_id.as_str()), (adas.id, "bob"));
    assert!(bobs.version > adas.version);
    assert!(get_schedule(&db.pool, &ada(), adas.id).await.is_err());
    asleep_since(&db.pool, &bobs, Timestamp::now() - seconds(60)).await?;
    make_due(&db.pool).await?;
    assert_eq!(tasks_of(&db.pool, &caller("bob"), bobs.id).await?.len(), 1);
    assert_eq!(tasks_of(&db.pool, &ada(), bobs.id).await?.len(), 0);
    Ok(())
}

#[tokio::test]
async fn what_is_no_longer_declared_goes_and_nothing_else() -> Outcome {
    let db = TestDb::new().await;
    for uid in ["file:a", "file:b", "file:c", "file_a", "other:a"] {
        put(&db.pool, "ada", uid, schedule_input(cron("0 9 * * *", "UTC"))).await?;
    }
    create_schedule(&db.pool, &ada(), schedule_input(cron("0 9 * * *", "UTC"))).await?;
    let kept = ["file:b".to_owned()];
    let retain = async || -> anyhow::Result<u64> {
        Ok(schedule::retain_external(&mut *db.pool.acquire().await?, "file:", &kept).await?)
    };
    assert_eq!(retain().await?, 2);
    assert_eq!(retain().await?, 0);
    let left: Vec<Option<String>> = sqlx::query_scalar(
        "SELECT external_uid FROM schedules WHERE deleted_at IS NULL ORDER BY external_uid COLLATE \"C\" NULLS LAST",
    )
    .fetch_all(&db.pool)
    .await?;
    let left: Vec<_> = left.iter().map(Option::as_deref).collect();
    assert_eq!(left, [Some("file:b"), Some("file_a"), Some("other:a"), None]);
    Ok(())
}

#[tokio::test]
async fn what_this_version_cannot_read_is_stopped_and_blocks_no_other() -> Outcome {
    let db = TestDb::new().await;
    let mut schedules = Vec::new();
    for _ in 0..5 {
        let created = create_schedule(&db.pool, &ada(), schedule_input(cron("* * * * *", "UTC"))).await?;
        asleep_since(&db.pool, &created, Timestamp::now() - seconds(60)).await?;
        schedules.push(created);
    }
    for (schedule, change) in schedules.iter().zip([
        r#"rule = '{"cron": 5}'"#,
        r#"rule = '{"cron": "* * * * *", "time_zone": "Mars/Olympus"}'"#,
        r#"template = template || '{"a_field_of_the_future": 1}'"#,
        r#"template = template || '{"title": "{{unknown}}"}'"#,
    ]) {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE schedules SET {change} WHERE id = $1"
        )))
        .bind(schedule.id.0)
        .execute(&db.pool)
        .await?;
    }
    // New rules of time zones do not stumble over them either.
    zone_rules::refresh(&db.pool, "another").await?;
    let made = make_due(&db.pool).await?;
    assert_eq!((made.schedules, made.problems, made.tasks), (5, 4, 1));
    assert_eq!(make_due(&db.pool).await?, schedule::Made::default());

    let page = schedule::list(&mut *db.pool.acquire().await?, &ada().user, None, 10).await?;
    let problems: Vec<_> = page.items.iter().map(|schedule| schedule.problem.is_some()).collect();
    assert_eq!(problems, [true, true, true, true, false]);

    // Half an edit of what cannot be read is refused; all of it anew is the cure.
    let half = change(&db.pool, schedules[0].id, |input| ScheduleInput {
        name: "half".to_owned(),
        ..input
    })
    .await;
    assert!(refused_field(half).starts_with("schedule."));
    for schedule in &schedules[..4] {
        let cured = change(&db.pool, schedule.id, |_| schedule_input(cron("* * * * *", "UTC"))).await?;
        assert_eq!(cured.problem, None);
    }
    Ok(())
}

#[tokio::test]
async fn a_rule_that_has_ended_has_no_next() -> Outcome {
    let db = TestDb::new().await;
    let at = this_second() + seconds(3600);
    let created = create_schedule(&db.pool, &ada(), schedule_input(once(at))).await?;
    assert_eq!(created.next_at, Some(at));
    assert_eq!(schedule::upcoming(&created, Timestamp::now(), 10), [at]);
    let wait = schedule::until_next(&mut *db.pool.acquire().await?).await?.unwrap();
    assert!((3500..=3600).contains(&wait.as_secs()), "{wait:?}");

    let earlier = once(this_second() - seconds(30));
    sqlx::query("UPDATE schedules SET rule = $1, cursor_at = now() - interval '1 hour', next_at = now() - interval '30 seconds'")
        .bind(serde_json::to_value(&earlier)?)
        .execute(&db.pool)
        .await?;
    assert_eq!(make_due(&db.pool).await?.tasks, 1);
    let ended = get_schedule(&db.pool, &ada(), created.id).await?;
    assert_eq!((ended.next_at, ended.made), (None, 1));
    assert_eq!(schedule::until_next(&mut *db.pool.acquire().await?).await?, None);
    Ok(())
}
