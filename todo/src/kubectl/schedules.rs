//! `kubectl todo schedules`: what comes back, and when next.

use anyhow::Result;
use clap::Args;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::ListParams;
use todo_crds::RecurringSchedule;

use super::{Cluster, Place, said, table};
use crate::failure::Refused;

/// How many are read at once.
const PAGE: u32 = 500;

/// List schedules with what they made, missed and skipped; what is due next comes first
#[derive(Args, Debug)]
pub(crate) struct SchedulesCommand {
    /// Only those of this platform
    platform: Option<String>,

    #[command(flatten)]
    place: Place,
}

/// Runs the command.
pub(crate) async fn run(command: &SchedulesCommand) -> Result<()> {
    let cluster = Cluster::open(&command.place).await?;
    let api = cluster.api::<RecurringSchedule>();
    let mut schedules = vec![];
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let found = api.list(&page).await.map_err(|error| said(&error))?;
        schedules.extend(found.items);
        match found.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    if let Some(platform) = &command.platform {
        schedules.retain(|schedule| schedule.spec.platform_ref.name == *platform);
    }
    if schedules.is_empty() {
        return Err(Refused::because(format_args!(
            "no RecurringSchedule in namespace {}",
            cluster.namespace
        )));
    }
    let next = |schedule: &RecurringSchedule| {
        schedule
            .status
            .as_ref()
            .and_then(|status| Some(status.next.as_ref()?.0))
    };
    schedules.sort_by_key(|schedule| (next(schedule).is_none(), next(schedule), schedule.name_any()));
    let rows: Vec<Vec<String>> = schedules.iter().map(row).collect();
    let headings = [
        "NAME", "PLATFORM", "USER", "SCHEDULE", "NEXT", "LAST", "MADE", "MISSED", "SKIPPED", "READY",
    ];
    println!("{}", table(&headings, &rows));
    Ok(())
}

fn row(schedule: &RecurringSchedule) -> Vec<String> {
    let status = schedule.status.clone().unwrap_or_default();
    let time = |time: Option<Time>| time.map_or_else(|| "-".to_owned(), |time| time.0.to_string());
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let ready = ready.map_or_else(
        || "unseen by the operator".to_owned(),
        |ready| match ready.status.as_str() {
            "True" => ready.reason.clone(),
            _ => format!("{}: {}", ready.reason, ready.message),
        },
    );
    vec![
        schedule.name_any(),
        schedule.spec.platform_ref.name.clone(),
        schedule.spec.user.clone(),
        schedule.spec.schedule.shown(),
        time(status.next),
        time(status.last),
        status.made.to_string(),
        status.missed.to_string(),
        status.skipped.to_string(),
        ready,
    ]
}
