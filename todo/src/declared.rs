//! Schedules that a manifest declares, brought into the database.

use anyhow::{Context, Result};
use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};
use todo_crds::{CatchUpPolicy, Manifest, Overlap, RecurringSchedule, RecurringScheduleSpec};
use todo_tasks::schedule::{self, CatchUpInput, ScheduleFields, ScheduleInput, TaskTemplate, TemplateReminder};
use todo_tasks::task::Priority;
use todo_tasks::{Caller, Invalid, UserId};

use crate::failure::Refused;

/// Creates and changes the manifest's schedules, and deletes those that it no longer declares. All or nothing.
pub(crate) async fn apply(pool: &PgPool, manifest: &Manifest) -> Result<()> {
    let prefix = format!(
        "manifest/{}/",
        manifest.platform.metadata.name.as_deref().unwrap_or_default()
    );
    let mut uids = Vec::with_capacity(manifest.schedules.len());
    let mut tx = pool.begin().await?;
    for (declared, origin) in manifest.schedules.iter().zip(&manifest.schedule_origins) {
        let refused = |reason: String| Refused::because(format_args!("{}:{}: {reason}", origin.file, origin.line));
        let name = declared.metadata.name.clone().unwrap_or_default();
        let user = UserId::parse(declared.spec.user.as_str()).map_err(|invalid| refused(format!("spec.{invalid}")))?;
        let input = input(name, &declared.spec).map_err(|error| refused(format!("spec.{error}")))?;
        let uid = format!("{prefix}{}", declared.stable_uid());
        let fields = parse(&mut tx, &uid, input).await?.map_err(|invalid| {
            let invalid: Vec<String> = invalid.iter().map(ToString::to_string).collect();
            refused(invalid.join("; "))
        })?;
        schedule::put_external(&mut tx, &Caller::system("manifest", user), &uid, fields)
            .await
            .with_context(|| format!("cannot apply the schedule {}", shown(declared)))?;
        uids.push(uid);
    }
    let deleted = schedule::retain_external(&mut tx, &prefix, &uids).await?;
    tx.commit().await?;
    if deleted > 0 {
        tracing::info!(
            schedules = deleted,
            "deleted schedules that the manifest no longer declares; their tasks stay"
        );
    }
    Ok(())
}

/// Before anything that a manifest may declare.
const LONG_AGO: Timestamp = Timestamp::constant(946_684_800, 0);

/// Checks a declared schedule, counting from where it counts already, else from now.
///
/// One that has ended is no mistake: its manifest may be applied for as long as it likes.
async fn parse(
    conn: &mut PgConnection,
    uid: &str,
    input: ScheduleInput,
) -> Result<Result<ScheduleFields, Vec<Invalid>>> {
    let counts_from = match schedule::get_external(conn, uid).await {
        Ok(known) if known.schedule == input.schedule => known.counts_from(),
        Ok(_) | Err(todo_tasks::Error::NotFound(_)) => Timestamp::now(),
        Err(error) => return Err(error.into()),
    };
    let parsed = input.clone().parse(counts_from);
    Ok(parsed.or_else(|invalid| input.parse(LONG_AGO).map_err(|_| invalid)))
}

fn shown(schedule: &RecurringSchedule) -> &str {
    schedule.metadata.name.as_deref().unwrap_or_default()
}

/// A declared schedule as a caller of the domain would write it.
fn input(name: String, spec: &RecurringScheduleSpec) -> Result<ScheduleInput, todo_recurrence::SpecError> {
    let template = &spec.template;
    Ok(ScheduleInput {
        name,
        schedule: spec.recurrence()?,
        template: TaskTemplate {
            title: template.title.clone(),
            description: template.description.clone().unwrap_or_default(),
            priority: match template.priority {
                todo_crds::Priority::Low => Priority::Low,
                todo_crds::Priority::Medium => Priority::Medium,
                todo_crds::Priority::High => Priority::High,
                todo_crds::Priority::Critical => Priority::Critical,
            },
            category: template.category.clone(),
            tags: template.tags.clone(),
            due_in: template.due_in,
            reminders: template
                .reminders
                .iter()
                .map(|reminder| TemplateReminder {
                    before: reminder.before,
                })
                .collect(),
        },
        overlap: match spec.overlap {
            Overlap::Allow => schedule::Overlap::Allow,
            Overlap::Skip => schedule::Overlap::Skip,
        },
        catch_up: CatchUpInput {
            policy: match spec.catch_up.policy {
                CatchUpPolicy::All => schedule::CatchUpPolicy::All,
                CatchUpPolicy::Latest => schedule::CatchUpPolicy::Latest,
                CatchUpPolicy::None => schedule::CatchUpPolicy::None,
            },
            window: spec.catch_up.window,
            max: i32::try_from(spec.catch_up.max).unwrap_or(i32::MAX),
        },
        suspended: spec.suspend,
    })
}
