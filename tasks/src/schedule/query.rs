//! Reading schedules.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use todo_recurrence::{Schedule as Rule, span::Span};
use uuid::Uuid;

use super::{CatchUpInput, CatchUpPolicy, Overlap, Schedule, ScheduleFields};
use crate::error::{Error, Invalid, Result};
use crate::id::{ScheduleId, UserId};
use crate::task::Page;

/// A schedule as the database holds it.
#[derive(sqlx::FromRow)]
pub(super) struct ScheduleRow {
    id: Uuid,
    user_id: String,
    name: String,
    rule: Value,
    template: Value,
    overlap: String,
    catch_up_policy: String,
    catch_up_window_seconds: i64,
    catch_up_max: i32,
    suspended: bool,
    anchor_at: jiff_sqlx::Timestamp,
    cursor_at: jiff_sqlx::Timestamp,
    next_at: Option<jiff_sqlx::Timestamp>,
    last_at: Option<jiff_sqlx::Timestamp>,
    made: i64,
    missed: i64,
    skipped: i64,
    problem: Option<String>,
    version: i64,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
}

/// The start of every query that reads whole schedules.
pub(super) const SELECT_SCHEDULES: &str = "
    SELECT
        id, user_id, name, rule, template, overlap, catch_up_policy, catch_up_window_seconds, catch_up_max,
        suspended, anchor_at, cursor_at, next_at, last_at, made, missed, skipped, problem, version,
        created_at, updated_at
    FROM schedules
";

impl From<ScheduleRow> for Schedule {
    /// A rule or template that this version cannot read, such as one that a newer version wrote, is shown empty and
    /// is its `problem`: one schedule must not stand in the way of a list, nor of the worker.
    fn from(row: ScheduleRow) -> Self {
        let rule = read("schedule", row.rule);
        let template = read("template", row.template);
        let unreadable = rule.as_ref().err().or(template.as_ref().err()).map(Invalid::to_string);
        Self {
            id: row.id.into(),
            user_id: UserId::stored(row.user_id),
            name: row.name,
            schedule: rule.unwrap_or_default(),
            template: template.unwrap_or_default(),
            overlap: if row.overlap == "skip" {
                Overlap::Skip
            } else {
                Overlap::Allow
            },
            catch_up: CatchUpInput {
                policy: match row.catch_up_policy.as_str() {
                    "latest" => CatchUpPolicy::Latest,
                    "none" => CatchUpPolicy::None,
                    _ => CatchUpPolicy::All,
                },
                window: Span::from_seconds(u64::try_from(row.catch_up_window_seconds).unwrap_or_default()),
                max: row.catch_up_max,
            },
            suspended: row.suspended,
            next_at: row.next_at.map(jiff_sqlx::Timestamp::to_jiff),
            last_at: row.last_at.map(jiff_sqlx::Timestamp::to_jiff),
            made: row.made,
            missed: row.missed,
            skipped: row.skipped,
            problem: row.problem.or(unreadable),
            version: row.version,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            anchor_at: row.anchor_at.to_jiff(),
            cursor_at: row.cursor_at.to_jiff(),
        }
    }
}

/// Reads a part of a schedule that is kept as JSON.
fn read<T: DeserializeOwned>(field: &str, stored: Value) -> Result<T, Invalid> {
    serde_json::from_value(stored).map_err(|error| Invalid::new(field, format!("this version cannot read it: {error}")))
}

/// Reads one schedule.
pub async fn get(conn: &mut PgConnection, user: &UserId, id: ScheduleId) -> Result<Schedule> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT_SCHEDULES);
    query
        .push(" WHERE deleted_at IS NULL AND user_id = ")
        .push_bind(user.as_str());
    query.push(" AND id = ").push_bind(id.0);
    let row: Option<ScheduleRow> = query.build_query_as().fetch_optional(conn).await?;
    row.map(Schedule::from).ok_or(Error::NotFound("schedule"))
}

/// A page of a user's schedules, in the order in which they were made.
pub async fn list(
    conn: &mut PgConnection,
    user: &UserId,
    after: Option<ScheduleId>,
    limit: u16,
) -> Result<Page<Schedule, ScheduleId>> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT_SCHEDULES);
    query
        .push(" WHERE deleted_at IS NULL AND user_id = ")
        .push_bind(user.as_str());
    if let Some(after) = after {
        query.push(" AND id > ").push_bind(after.0);
    }
    query.push(" ORDER BY id LIMIT ").push_bind(i64::from(limit) + 1);
    let rows: Vec<ScheduleRow> = query.build_query_as().fetch_all(conn).await?;
    let mut items: Vec<Schedule> = rows.into_iter().map(Schedule::from).collect();
    let has_more = items.len() > usize::from(limit);
    items.truncate(usize::from(limit));
    let next = items.last().filter(|_| has_more).map(|last| last.id);
    Ok(Page { items, next })
}

/// The next `count` occurrences of a schedule after `from`, whether or not it is suspended.
pub fn upcoming(schedule: &Schedule, from: Timestamp, count: usize) -> Vec<Timestamp> {
    Rule::new(&schedule.schedule, schedule.anchor_at)
        .map(|rule| rule.after(from).take(count).collect())
        .unwrap_or_default()
}

impl ScheduleFields {
    /// The next `count` occurrences after `from` of a schedule that was not saved.
    pub fn upcoming(&self, from: Timestamp, count: usize) -> Vec<Timestamp> {
        Rule::new(&self.spec, self.anchor)
            .map(|rule| rule.after(from).take(count).collect())
            .unwrap_or_default()
    }
}
