//! Ten thousand schedules of one platform: what they cost in memory, and how soon the operator comes to a new one.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};

use crate::ground::{Ground, Told, apply, at_once, platforms, schedules};
use crate::platform::Platform;
use crate::watch::{Watch, is_current, is_settled, says};
use crate::{figure, number};
use todo_e2e::figures::percentile;

/// How many schedules, and then platforms, are made one after another beside those that have settled.
const NEW_SCHEDULES: usize = 300;
const NEW_PLATFORMS: usize = 100;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn measure(count: usize) -> Result<()> {
    let (ground, namespaces) = Ground::new(&["schedules"]).await?;
    let namespace = namespaces[0].name();
    let platform = Platform::start().await?;
    let told = Told {
        internal_api: Some(&platform.url),
        ..Told::default()
    };
    ground.database(namespace).await?;
    let mut homes = Watch::start(platforms(&ground.client, namespace));
    let mut operator = ground.operator(told).await?;
    ground.platform(namespace, "home").await?;
    operator.during(homes.until(is_settled)).await?;

    eprintln!("{count} schedules");
    let mut seen = Watch::start(schedules(&ground.client, namespace));
    let began = Instant::now();
    let all = schedules(&ground.client, namespace);
    at_once(count, move |number| make(all.clone(), format!("schedule-{number:05}"))).await?;
    let mut settled = HashSet::new();
    let all_settled = seen.until(|schedule| {
        if says(schedule, "Ready", "True") {
            settled.insert(schedule.name_any());
        }
        settled.len() == count
    });
    let last = operator.during(all_settled).await?;
    let come = operator.memory_at_rest().await?;
    operator.stop().await?;
    let mut operator = ground.operator(told).await?;
    let there = operator.memory_at_rest().await?;
    figure("schedules", number(count));
    figure("schedules_settled_s", (last - began).as_secs_f64());
    figure("schedules_mib", come.now.max(there.now));
    figure("schedules_peak_mib", come.peak);
    figure("schedules_restart_peak_mib", there.peak);

    eprintln!("{NEW_SCHEDULES} new schedules beside them");
    let mut took = vec![];
    for number in 0..NEW_SCHEDULES {
        let name = format!("new-{number:03}");
        let sent = Instant::now();
        make(schedules(&ground.client, namespace), name.clone()).await?;
        let is_it = |schedule: &DynamicObject| schedule.name_any() == name && is_current(schedule);
        took.push(milliseconds(operator.during(seen.until(is_it)).await? - sent));
        tokio::time::sleep(PAUSE).await;
    }
    figure("new_schedule_p50_ms", percentile(&took, 50));
    figure("new_schedule_p99_ms", percentile(&took, 99));

    eprintln!("{NEW_PLATFORMS} new platforms beside them");
    let mut took = vec![];
    for number in 0..NEW_PLATFORMS {
        let name = format!("new-{number:03}");
        let sent = Instant::now();
        ground.platform(namespace, &name).await?;
        let is_it = |platform: &DynamicObject| platform.name_any() == name && is_current(platform);
        took.push(milliseconds(operator.during(homes.until(is_it)).await? - sent));
        tokio::time::sleep(PAUSE).await;
    }
    figure("new_platform_p50_ms", percentile(&took, 50));
    figure("new_platform_p99_ms", percentile(&took, 99));
    operator.stop().await
}

async fn make(schedules: Api<DynamicObject>, name: String) -> Result<()> {
    apply(&schedules, "RecurringSchedule", &name, &json!({"spec": spec(&name)})).await?;
    Ok(())
}

/// One as a person writes it.
fn spec(name: &str) -> Value {
    json!({
        "platformRef": {"name": "home"},
        "user": "alice",
        "schedule": {"cron": "0 9 * * 1"},
        "timeZone": "Europe/Berlin",
        "template": {
            "title": format!("{name}: weekly review {{{{date}}}}"),
            "description": "Read last week's notes, close what is done, and write down what comes next.",
            "priority": "high",
            "tags": ["review", "weekly"],
            "dueIn": "8h",
            "reminders": [{"before": "30m"}],
        },
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
