//! After a sleep: each occurrence is made once, missed or skipped, and nothing is unaccounted for.

use jiff::{SignedDuration, Timestamp};
use sqlx::PgPool;
use todo_recurrence::Schedule as Rule;
use todo_tasks::Error;
use todo_tasks::schedule::{self, CatchUpInput, CatchUpPolicy, Schedule, ScheduleInput};
use todo_test_db::TestDb;

use crate::fixture::{
    Outcome, ada, asleep_since, at_once, create_schedule, cron, get_schedule, made_for, number, schedule_input,
};

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn catching_up(policy: CatchUpPolicy, window: &str, max: i32) -> CatchUpInput {
    CatchUpInput {
        policy,
        window: window.parse().unwrap(),
        max,
    }
}

/// Makes what is due, and says what the time was by the database's clock.
async fn make_due(pool: &PgPool) -> anyhow::Result<(schedule::Made, Timestamp)> {
    let mut tx = pool.begin().await?;
    let now: jiff_sqlx::Timestamp = sqlx::query_scalar("SELECT now()").fetch_one(&mut *tx).await?;
    let made = schedule::make_due(&mut tx, 100).await?;
    tx.commit().await?;
    Ok((made, now.to_jiff()))
}

/// The occurrences that a policy asks for, found the long way round: those of the last minute, and of the others the
/// latest, within window and maximum.
fn expected(rule: &Rule, catch_up: CatchUpInput, since: Timestamp, now: Timestamp) -> (Vec<Timestamp>, usize) {
    let all: Vec<_> = rule.after(since).take_while(|at| *at <= now).collect();
    let (late, on_time): (Vec<_>, Vec<_>) = all.iter().partition(|at| **at < now - seconds(60));
    let mut caught_up: Vec<_> = late
        .into_iter()
        .filter(|at| *at >= now - catch_up.window.duration())
        .collect();
    let keep = match catch_up.policy {
        CatchUpPolicy::All => usize::try_from(catch_up.max).unwrap(),
        CatchUpPolicy::Latest => 1,
        CatchUpPolicy::None => 0,
    };
    caught_up.drain(..caught_up.len().saturating_sub(keep));
    caught_up.extend(on_time);
    let missed = all.len() - caught_up.len();
    (caught_up, missed)
}

#[tokio::test]
async fn after_a_long_sleep_exactly_what_the_policy_asks_for_is_made() -> Outcome {
    let db = TestDb::new().await;
    for catch_up in [
        catching_up(CatchUpPolicy::All, "30d", 1000),
        catching_up(CatchUpPolicy::All, "30d", 100),
        catching_up(CatchUpPolicy::All, "2h", 1000),
        catching_up(CatchUpPolicy::All, "2h", 7),
        catching_up(CatchUpPolicy::All, "0s", 1000),
        catching_up(CatchUpPolicy::Latest, "30d", 1000),
        catching_up(CatchUpPolicy::Latest, "1m", 1000),
        catching_up(CatchUpPolicy::None, "30d", 1000),
    ] {
        let input = ScheduleInput {
            catch_up,
            ..schedule_input(cron("* * * * *", "Europe/Berlin"))
        };
        let created = create_schedule(&db.pool, &ada(), input).await?;
        let since = Timestamp::now() - seconds(600 * 60);
        let rule = asleep_since(&db.pool, &created, since).await?;
        let (made, now) = make_due(&db.pool).await?;
        let (expected, missed) = expected(&rule, catch_up, since, now);
        assert_eq!(made_for(&db.pool, created.id).await?, expected, "{catch_up:?}");
        assert_eq!(
            (made.tasks, made.missed),
            (expected.len(), missed as u64),
            "{catch_up:?}"
        );
        let after = get_schedule(&db.pool, &ada(), created.id).await?;
        assert_eq!(
            (after.made, after.missed),
            (i64::try_from(expected.len())?, i64::try_from(missed)?)
        );
        assert_eq!(after.next_at, rule.next_after(now));
        assert!(made.tasks + missed >= 600);
        commit!(db.pool, |tx| schedule::delete(&mut tx, &ada(), created.id, None))?;
    }
    Ok(())
}

/// A schedule that fires every second and slept so many of them, of which it makes the latest few.
async fn every_second(pool: &PgPool, slept: i64) -> anyhow::Result<(Schedule, Timestamp, Rule)> {
    let input = ScheduleInput {
        catch_up: catching_up(CatchUpPolicy::All, "30d", 300),
        ..schedule_input(cron("* * * * * *", "UTC"))
    };
    let created = create_schedule(pool, &ada(), input).await?;
    let since = Timestamp::now() - seconds(slept);
    let rule = asleep_since(pool, &created, since).await?;
    Ok((created, since, rule))
}

/// How many of the occurrences since an instant the schedule has accounted for, and how many there are.
async fn accounts(pool: &PgPool, schedule: &Schedule, since: Timestamp, rule: &Rule) -> anyhow::Result<(i64, usize)> {
    let schedule = get_schedule(pool, &ada(), schedule.id).await?;
    let until = schedule.next_at.unwrap();
    let occurrences = rule.after(since).take_while(|at| *at < until).count();
    assert_eq!(
        made_for(pool, schedule.id).await?.len(),
        usize::try_from(schedule.made)?
    );
    Ok((schedule.made + schedule.missed + schedule.skipped, occurrences))
}

#[tokio::test]
async fn a_sleep_that_takes_several_turns_adds_up() -> Outcome {
    let db = TestDb::new().await;
    let (created, since, rule) = every_second(&db.pool, 45_000).await?;
    let mut turns = 0;
    loop {
        let (_, now) = make_due(&db.pool).await?;
        let (accounted, occurrences) = accounts(&db.pool, &created, since, &rule).await?;
        assert_eq!(accounted, i64::try_from(occurrences)?);
        turns += 1;
        if get_schedule(&db.pool, &ada(), created.id).await?.next_at > Some(now) {
            break;
        }
    }
    assert!(turns > 1);
    let after = get_schedule(&db.pool, &ada(), created.id).await?;
    assert!((300..=400).contains(&after.made), "{after:?}");
    assert!(after.made + after.missed >= 45_000);
    Ok(())
}

#[tokio::test]
async fn an_edit_after_a_sleep_of_several_turns_loses_nothing() -> Outcome {
    let db = TestDb::new().await;
    let (created, since, rule) = every_second(&db.pool, 45_000).await?;
    let mut tx = db.pool.begin().await?;
    let now: jiff_sqlx::Timestamp = sqlx::query_scalar("SELECT now()").fetch_one(&mut *tx).await?;
    let changed = schedule::change(&mut tx, &ada(), created.id, None, |input| {
        Ok::<_, Error>(ScheduleInput {
            schedule: cron("0 0 1 1 *", "UTC"),
            ..input
        })
    })
    .await?;
    tx.commit().await?;
    let occurrences = rule.after(since).take_while(|at| *at <= now.to_jiff()).count();
    assert_eq!(changed.made + changed.missed, i64::try_from(occurrences)?);
    Ok(())
}

#[tokio::test]
async fn a_cursor_that_was_set_back_by_hand_doubles_nothing() -> Outcome {
    let db = TestDb::new().await;
    let created = create_schedule(&db.pool, &ada(), schedule_input(cron("* * * * *", "UTC"))).await?;
    asleep_since(&db.pool, &created, Timestamp::now() - seconds(600)).await?;
    make_due(&db.pool).await?;
    let once = made_for(&db.pool, created.id).await?;
    asleep_since(&db.pool, &created, Timestamp::now() - seconds(660)).await?;
    make_due(&db.pool).await?;
    let twice = made_for(&db.pool, created.id).await?;
    assert!(twice.len() > once.len());
    assert!(once.iter().all(|at| twice.contains(at)));
    let count = i64::try_from(twice.len())?;
    assert_eq!(number(&db.pool, "SELECT count(*) FROM tasks").await?, count);
    assert_eq!(get_schedule(&db.pool, &ada(), created.id).await?.made, count);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn four_makers_make_each_occurrence_of_two_thousand_schedules_once() -> Outcome {
    const SCHEDULES: i64 = 2_000;
    let db = TestDb::new().await;
    // An occurrence an hour, of which the last three are due, and none comes due while the test runs.
    let minute = jiff::tz::TimeZone::UTC
        .to_datetime(Timestamp::now() - seconds(1200))
        .minute();
    let created = create_schedule(
        &db.pool,
        &ada(),
        schedule_input(cron(&format!("{minute} * * * *"), "UTC")),
    )
    .await?;
    let since = Timestamp::now() - seconds(3 * 3600 - 60);
    let rule = asleep_since(&db.pool, &created, since).await?;
    sqlx::query(
        "INSERT INTO schedules (id, user_id, name, rule, template, anchor_at, cursor_at, next_at)
        SELECT gen_random_uuid(), 'user' || n % 50, name, rule, template, anchor_at, cursor_at, next_at
        FROM schedules, generate_series(2, $1) AS n",
    )
    .bind(i32::try_from(SCHEDULES)?)
    .execute(&db.pool)
    .await?;
    let pool = db.another_pool(4).await;
    let makers = (0..4).map(|_| {
        let pool = pool.clone();
        async move {
            let mut total = 0;
            loop {
                let made = commit!(pool, |tx| schedule::make_due(&mut tx, 60))?;
                if made.schedules == 0 {
                    return Ok(total);
                }
                total += made.tasks;
            }
        }
    });
    let total: usize = at_once(makers).await?.into_iter().sum();
    let occurrences = rule.after(since).take_while(|at| *at <= Timestamp::now()).count();
    assert_eq!(occurrences, 3);
    let expected = SCHEDULES * 3;
    assert_eq!(i64::try_from(total)?, expected);
    for query in [
        "SELECT count(DISTINCT (schedule_id, occurrence_at)) FROM tasks",
        "SELECT count(*) FROM tasks",
        "SELECT count(*) FROM occurrences",
        "SELECT count(*) FROM outbox WHERE event_type = 'recurring_spawn'",
        "SELECT sum(made)::bigint FROM schedules WHERE next_at > now()",
    ] {
        assert_eq!(number(&db.pool, query).await?, expected, "{query}");
    }
    pool.close().await;
    Ok(())
}
