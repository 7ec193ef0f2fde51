//! Schedules after a long sleep.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use todo_e2e::check::{self, Schedule};
use todo_e2e::scene::Scene;
use todo_e2e::{database, wait_for};

/// What is at most so old was made on time, and no policy decides about it.
const ON_TIME: SignedDuration = SignedDuration::from_secs(60);
/// How long they sleep: 600 occurrences of a minute each.
const SLEEP: SignedDuration = SignedDuration::from_hours(10);

/// A schedule, and which of the occurrences that it slept over get a task.
struct Case {
    name: &'static str,
    rule: Value,
    catch_up: Value,
    overlap: &'static str,
    keep: usize,
    window: SignedDuration,
}

fn cases() -> Vec<Case> {
    let cron = || json!({"cron": "* * * * *", "time_zone": "Europe/Berlin"});
    let case = |name, rule, catch_up, keep, window| Case {
        name,
        rule,
        catch_up,
        overlap: "allow",
        keep,
        window,
    };
    let month = SignedDuration::from_hours(30 * 24);
    vec![
        case("all", cron(), json!({"policy": "all"}), usize::MAX, month),
        case(
            "all-at-most-100",
            cron(),
            json!({"policy": "all", "max": 100}),
            100,
            month,
        ),
        case(
            "all-of-two-hours",
            cron(),
            json!({"policy": "all", "window": "2h"}),
            usize::MAX,
            SignedDuration::from_hours(2),
        ),
        case("latest", cron(), json!({"policy": "latest"}), 1, month),
        case("none", cron(), json!({"policy": "none"}), 0, month),
        case(
            "interval",
            json!({"every": "1m", "time_zone": "UTC"}),
            json!({"policy": "all", "max": 550}),
            550,
            month,
        ),
        Case {
            overlap: "skip",
            ..case("one-at-a-time", cron(), json!({"policy": "all"}), usize::MAX, month)
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_slept_over_500_occurrences_catches_up_by_its_policy() -> Result<()> {
    let scene = Scene::new()?;
    let url = database::fresh().await?;
    let mut first = scene.up("first", &url, &[]).await?;
    let alice = scene.client(&first.base, "alice").await?;
    for case in cases() {
        let schedule = json!({
            "name": case.name,
            "schedule": case.rule,
            "catch_up": case.catch_up,
            "overlap": case.overlap,
            "template": {"title": "{{n}}"},
        });
        alice.post("/schedules", &schedule).await?;
    }
    ensure!(first.process.stop().await?.success(), "the first stop");

    let pool = database::open(&url).await?;
    // As if they had been made, and had last been looked at, so long ago. A minute may have begun while it ran.
    let made_already: Vec<_> = check::schedules(&pool)
        .await?
        .into_iter()
        .map(|s| s.made_for())
        .collect();
    sqlx::query(
        "UPDATE schedules
         SET anchor_at = anchor_at - $1 * interval '1 second',
             created_at = created_at - $1 * interval '1 second',
             cursor_at = cursor_at - $1 * interval '1 second',
             next_at = next_at - $1 * interval '1 second'",
    )
    .bind(SLEEP.as_secs_f64())
    .execute(&pool)
    .await?;
    let slept_from = check::schedules(&pool).await?;

    let mut second = scene.up("second", &url, &[]).await?;
    wait_for("all to catch up", Duration::from_secs(30), || async {
        let behind: i64 = sqlx::query_scalar("SELECT count(*) FROM schedules WHERE next_at <= now()")
            .fetch_one(&pool)
            .await?;
        Ok((behind == 0).then_some(()))
    })
    .await?;
    check::wait_until_quiet(&pool, Duration::from_secs(30)).await?;
    ensure!(second.process.stop().await?.success(), "the second stop");

    let caught_up = check::schedules(&pool).await?;
    for (((case, before), after), made) in cases().iter().zip(&slept_from).zip(&caught_up).zip(&made_already) {
        judge(case, before, after, made).with_context(|| case.name)?;
    }
    check::promises(&pool).await
}

fn judge(case: &Case, before: &Schedule, after: &Schedule, made_already: &BTreeSet<Timestamp>) -> Result<()> {
    let expected = after.expected(before.cursor)?;
    ensure!(
        expected.len() >= 600,
        "it slept over {} occurrences only",
        expected.len()
    );
    let new: Vec<_> = after
        .occurrences
        .iter()
        .filter(|(at, _)| !made_already.contains(at))
        .collect();
    // The pass that caught up is the first one: the latest occurrence of a minute is always on time.
    let caught_up_at = *new
        .iter()
        .map(|(_, made_at)| *made_at)
        .min()
        .context("it made nothing")?;
    let late: Vec<Timestamp> = expected
        .iter()
        .copied()
        .filter(|at| *at < caught_up_at - ON_TIME)
        .collect();
    ensure!(late.len() >= 500, "only {} were late", late.len());
    let in_window = late.iter().filter(|at| **at >= caught_up_at - case.window).count();
    let kept = &late[late.len() - in_window.min(case.keep)..];
    let on_time = expected.iter().filter(|at| **at >= caught_up_at - ON_TIME);

    let mut should: BTreeSet<Timestamp> = kept.iter().chain(on_time).copied().collect();
    let mut skipped = 0;
    if after.skips {
        // The latest of the pass is made, and is open while the later ones come due.
        let latest = should
            .iter()
            .copied()
            .rfind(|at| *at <= caught_up_at)
            .context("none was due")?;
        skipped = should.len() - 1;
        should = BTreeSet::from([latest]);
    }
    // What was made while the first process ran is an occurrence of its own, and may be met again.
    should.extend(made_already);
    let made = after.made_for();
    ensure!(
        made == should,
        "it made {} tasks and should have made {}; too many: {:?}, too few: {:?}",
        made.len(),
        should.len(),
        made.difference(&should).take(3).collect::<Vec<_>>(),
        should.difference(&made).take(3).collect::<Vec<_>>()
    );
    let missed = i64::try_from(late.len() - kept.len())?;
    ensure!(
        after.missed == missed,
        "it counts {} missed, and missed {missed}",
        after.missed
    );
    ensure!(
        after.skipped == i64::try_from(skipped)?,
        "it counts {} skipped, and skipped {skipped}",
        after.skipped
    );
    Ok(())
}
