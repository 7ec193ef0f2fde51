//! Reading tasks: one, or a page of those that match a filter.
//!
//! Pages are by keyset: a page's cursor holds the sort key of its last task, so that tasks made or changed meanwhile
//! neither repeat nor hide others, and page 1,000 costs what page 1 costs.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::row::{SELECT_TASKS, TaskRow};
use super::{Priority, Status, Task};
use crate::error::{Error, Invalid, Result};
use crate::id::{ScheduleId, TaskId, UserId};

/// Reads one task.
pub async fn get(conn: &mut PgConnection, user: &UserId, id: TaskId) -> Result<Task> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT_TASKS);
    query.push(" WHERE t.user_id = ").push_bind(user.as_str());
    query.push(" AND t.id = ").push_bind(id.0);
    query.push(" AND t.deleted_at IS NULL");
    let row: Option<TaskRow> = query.build_query_as().fetch_optional(conn).await?;
    row.map(Task::from).ok_or(Error::NotFound("task"))
}

/// What a list is sorted by. Ties are broken by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// When it was made.
    #[default]
    CreatedAt,
    /// When it is due; tasks without a due date come last in both directions.
    DueAt,
    /// How much it matters.
    Priority,
}

/// Which end of the order comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Smallest first.
    Asc,
    /// Largest first.
    #[default]
    Desc,
}

/// Which tasks a list holds; each part that is there must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this status.
    pub status: Option<Status>,
    /// Of this priority.
    pub priority: Option<Priority>,
    /// Of this category.
    pub category: Option<String>,
    /// With each of these tags.
    pub tags: Vec<String>,
    /// Due before this instant.
    pub due_before: Option<Timestamp>,
    /// Due at or after this instant.
    pub due_after: Option<Timestamp>,
    /// Parts of this task.
    pub parent_id: Option<TaskId>,
    /// Made by this schedule.
    pub schedule_id: Option<ScheduleId>,
    /// With this text in title or description, whatever its case.
    pub text: Option<String>,
}

/// Where a page ended: the sort key of its last task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    sort: Sort,
    direction: Direction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    id: Uuid,
}

/// A page of a list to read.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Which tasks.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// Which end first.
    pub direction: Direction,
    /// Read on after this position. Its order must be that of the query.
    pub after: Option<Position>,
    /// At most this many.
    pub limit: u16,
}

/// Part of a list, and where to read on.
#[derive(Clone, Debug)]
pub struct Page<T, P> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<P>,
}

impl Filter {
    /// PostgreSQL's text cannot hold U+0000, so nothing has it.
    fn check(&self) -> Result<(), Invalid> {
        let texts = self.category.iter().map(|text| ("category", text));
        let texts = texts.chain(self.tags.iter().map(|text| ("tags", text)));
        let texts = texts.chain(self.text.iter().map(|text| ("text", text)));
        match texts.into_iter().find(|(_, text)| text.contains('\0')) {
            Some((field, _)) => Err(Invalid::new(field, "must not contain the character U+0000")),
            None => Ok(()),
        }
    }
}

impl Position {
    /// Whether it belongs to lists in this order.
    pub fn fits(&self, sort: Sort, direction: Direction) -> bool {
        self.sort == sort && self.direction == direction
    }

    fn of(task: &Task, query: &ListQuery) -> Self {
        Self {
            sort: query.sort,
            direction: query.direction,
            due_at: task
                .due
                .as_ref()
                .map(|due| due.at)
                .filter(|_| query.sort == Sort::DueAt),
            priority: Some(task.priority).filter(|_| query.sort == Sort::Priority),
            id: task.id.0,
        }
    }
}

/// Reads a page of a user's tasks.
pub async fn list(conn: &mut PgConnection, user: &UserId, list: &ListQuery) -> Result<Page<Task, Position>> {
    list.filter.check()?;
    let mut query = QueryBuilder::<Postgres>::new(SELECT_TASKS);
    query.push(" WHERE t.user_id = ").push_bind(user.as_str());
    query.push(" AND t.deleted_at IS NULL");
    push_filter(&mut query, &list.filter);
    if let Some(after) = &list.after {
        push_after(&mut query, list.direction, after);
    }
    let direction = match list.direction {
        Direction::Asc => "ASC",
        Direction::Desc => "DESC",
    };
    query.push(" ORDER BY ");
    match list.sort {
        Sort::CreatedAt => {}
        Sort::DueAt => {
            query.push("t.due_at ").push(direction).push(" NULLS LAST, ");
        }
        Sort::Priority => {
            query.push("t.priority ").push(direction).push(", ");
        }
    }
    query.push("t.id ").push(direction);
    // One more than asked for tells whether there is a next page.
    query.push(" LIMIT ").push_bind(i64::from(list.limit) + 1);
    let rows: Vec<TaskRow> = query.build_query_as().fetch_all(conn).await?;
    let mut items: Vec<Task> = rows.into_iter().map(Task::from).collect();
    let has_more = items.len() > usize::from(list.limit);
    items.truncate(usize::from(list.limit));
    let next = items.last().filter(|_| has_more).map(|task| Position::of(task, list));
    Ok(Page { items, next })
}

fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if let Some(status) = filter.status {
        query.push(" AND t.status = ").push_bind(status);
    }
    if let Some(priority) = filter.priority {
        query.push(" AND t.priority = ").push_bind(priority);
    }
    if let Some(category) = &filter.category {
        query.push(" AND t.category = ").push_bind(category.clone());
    }
    for tag in &filter.tags {
        query.push(" AND EXISTS (SELECT FROM task_tags AS g WHERE g.task_id = t.id AND g.tag = ");
        query.push_bind(tag.to_lowercase()).push(")");
    }
    if let Some(before) = filter.due_before {
        query.push(" AND t.due_at < ").push_bind(before.to_sqlx());
    }
    if let Some(after) = filter.due_after {
        query.push(" AND t.due_at >= ").push_bind(after.to_sqlx());
    }
    if let Some(parent) = filter.parent_id {
        query.push(" AND t.parent_id = ").push_bind(parent.0);
    }
    if let Some(schedule) = filter.schedule_id {
        query.push(" AND t.schedule_id = ").push_bind(schedule.0);
    }
    if let Some(text) = &filter.text {
        let pattern = format!(
            "%{}%",
            text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
        );
        query.push(" AND (t.title ILIKE ").push_bind(pattern.clone());
        query.push(" OR t.description ILIKE ").push_bind(pattern).push(")");
    }
}

/// What comes after `after` in the list's order.
fn push_after(query: &mut QueryBuilder<Postgres>, direction: Direction, after: &Position) {
    let beyond = match direction {
        Direction::Asc => " > ",
        Direction::Desc => " < ",
    };
    match (after.sort, after.due_at, after.priority) {
        (Sort::DueAt, Some(due_at), _) => {
            query
                .push(" AND ((t.due_at, t.id)")
                .push(beyond)
                .push("(")
                .push_bind(due_at.to_sqlx());
            query.push(", ").push_bind(after.id).push(") OR t.due_at IS NULL)");
        }
        (Sort::DueAt, None, _) => {
            query
                .push(" AND t.due_at IS NULL AND t.id")
                .push(beyond)
                .push_bind(after.id);
        }
        (Sort::Priority, _, Some(priority)) => {
            query
                .push(" AND (t.priority, t.id)")
                .push(beyond)
                .push("(")
                .push_bind(priority);
            query.push(", ").push_bind(after.id).push(")");
        }
        (Sort::Priority, _, None) | (Sort::CreatedAt, _, _) => {
            query.push(" AND t.id").push(beyond).push_bind(after.id);
        }
    }
}
