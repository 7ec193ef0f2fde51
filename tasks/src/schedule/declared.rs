//! Schedules that somebody declares from outside: a manifest on this machine, or the resources of a cluster.
//!
//! A declared schedule has a key of its declarer's. Of a manifest it is made of names and is the same for ever. Of a
//! resource it is the UID, which another cluster's copy of the same resource does not have, and a resource may be what
//! a manifest was before: so the operator also sends the resource's origin (`NAMESPACE/NAME`) and the keys that a
//! manifest would have used, and a schedule that goes by one of them becomes the resource's, with its counts and its
//! place in time. No occurrence of it is made twice, and none is left out.
//!
//! Whoever declares decides: what users change over the API is shown as different (the row loses its hash) until it is
//! declared again.

use jiff::Timestamp;
use serde::Deserialize;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use todo_recurrence::ScheduleSpec;

use super::command::{insert, lock, write};
use super::feed::{DeclaredState, state_of};
use super::query::{SELECT_SCHEDULES, ScheduleRow, get};
use super::{CatchUpInput, Overlap, Schedule, ScheduleFields, ScheduleInput, TaskTemplate};
use crate::error::{Error, Invalid, Result};
use crate::id::UserId;
use crate::known_user;

/// The longest key of a declared schedule, in characters.
const MAX_KEY: usize = 255;
/// The longest `NAMESPACE/NAME`, in characters.
const MAX_ORIGIN: usize = 317;
/// The longest hash, in characters.
const MAX_HASH: usize = 128;
/// The most keys that a resource may have had before.
const MAX_ADOPTED: usize = 8;

/// The first key of the advisory locks of origins ("tods" in ASCII).
const ORIGIN_LOCK: i32 = 0x746f_6473;

/// Before anything that a manifest may declare.
const LONG_AGO: Timestamp = Timestamp::constant(946_684_800, 0);

/// A schedule as a resource declares it, with what tells the resource from others.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// The resource, `NAMESPACE/NAME`.
    pub origin: String,
    /// Keys that the same schedule may have had before, the likeliest first.
    #[serde(default)]
    pub adopt: Vec<String>,
    /// Names the content; kept and shown, and not looked into.
    pub hash: String,
    /// Whose tasks it makes.
    pub user: String,
    /// Its name, 1 to 253 characters.
    pub name: String,
    /// When.
    #[serde(deserialize_with = "crate::known_fields::schedule")]
    pub schedule: ScheduleSpec,
    /// What each occurrence makes.
    pub template: TaskTemplate,
    /// What happens while a task that it made is open.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens after downtime.
    #[serde(default)]
    pub catch_up: CatchUpInput,
    /// It makes nothing.
    #[serde(default)]
    pub suspended: bool,
}

impl Declaration {
    /// Whose tasks it makes.
    pub fn user(&self) -> Result<UserId, Invalid> {
        UserId::parse(self.user.as_str()).map_err(in_resource)
    }

    /// What a caller of the domain would write.
    pub fn input(&self) -> ScheduleInput {
        ScheduleInput {
            name: self.name.clone(),
            schedule: self.schedule.clone(),
            template: self.template.clone(),
            overlap: self.overlap,
            catch_up: self.catch_up,
            suspended: self.suspended,
        }
    }

    fn check(&self) -> Result<(), Vec<Invalid>> {
        let mut invalid = Vec::new();
        let parts: Vec<&str> = self.origin.split('/').collect();
        let is_origin = matches!(parts[..], [namespace, name] if !namespace.is_empty() && !name.is_empty());
        if !is_origin || !is_word(&self.origin, MAX_ORIGIN) {
            invalid.push(Invalid::new("origin", "must be NAMESPACE/NAME of the resource"));
        }
        if !is_word(&self.hash, MAX_HASH) {
            invalid.push(Invalid::new(
                "hash",
                format!("must be 1 to {MAX_HASH} visible ASCII characters"),
            ));
        }
        if self.adopt.len() > MAX_ADOPTED || !self.adopt.iter().all(|key| is_word(key, MAX_KEY)) {
            invalid.push(Invalid::new(
                "adopt",
                format!("must be at most {MAX_ADOPTED} keys of 1 to {MAX_KEY} visible ASCII characters"),
            ));
        }
        if invalid.is_empty() { Ok(()) } else { Err(invalid) }
    }
}

fn is_word(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Checks the UID of a resource, which also stands in paths.
fn check_uid(uid: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=MAX_KEY).contains(&uid.len()) && uid.bytes().all(is_plain) {
        return Ok(());
    }
    let message = format!("must be 1 to {MAX_KEY} letters, digits and hyphens");
    Err(Invalid::new("uid", message).into())
}

/// The field of a resource that a field of a [`Declaration`] comes from, so that whoever wrote the resource finds it:
/// `spec.timeZone` for `schedule.time_zone`.
pub fn resource_field(field: &str) -> String {
    let (first, rest) = field
        .split_once('.')
        .map_or((field, None), |(first, rest)| (first, Some(rest)));
    let within = |parent: &str, rest: Option<&str>| match rest {
        Some(rest) => format!("{parent}.{}", camel_case(rest)),
        None => parent.to_owned(),
    };
    match (first, rest) {
        ("name", _) => "metadata.name".to_owned(),
        ("user", _) => "spec.user".to_owned(),
        ("suspended", _) => "spec.suspend".to_owned(),
        ("overlap", _) => "spec.overlap".to_owned(),
        ("schedule", Some(rule @ ("cron" | "rrule" | "every"))) => format!("spec.schedule.{rule}"),
        ("schedule", Some(other)) => within("spec", Some(other)),
        ("schedule", None) => "spec.schedule".to_owned(),
        ("template", rest) => within("spec.template", rest),
        ("catch_up", rest) => within("spec.catchUp", rest),
        // The operator's own, such as `origin`.
        _ => field.to_owned(),
    }
}

/// `due_in` as `dueIn`.
fn camel_case(path: &str) -> String {
    let mut words = path.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (initial, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        camel.push_str(&initial.to_ascii_uppercase());
        camel.push_str(rest);
    }
    camel
}

fn in_resource(invalid: Invalid) -> Invalid {
    Invalid {
        field: resource_field(&invalid.field),
        ..invalid
    }
}

/// Creates or changes the schedule that the resource with this UID declares, or takes over the one that it was before.
/// Saying the same again changes nothing. Fields that are wrong are named as the resource has them. Call in a
/// transaction.
pub async fn put_declared(conn: &mut PgConnection, uid: &str, declaration: &Declaration) -> Result<DeclaredState> {
    check_uid(uid)?;
    declaration.check().map_err(Error::Invalid)?;
    let user = declaration.user()?;
    // Two operators at once, or two copies of one resource, each after the other.
    sqlx::query!(
        "SELECT pg_advisory_xact_lock($1, hashtext($2))",
        ORIGIN_LOCK,
        declaration.origin,
    )
    .execute(&mut *conn)
    .await?;
    known_user::hold(conn, &user).await?;
    take_over(conn, uid, declaration).await?;
    put(conn, &user, uid, declaration.input()).await?;
    sqlx::query!(
        r#"
        UPDATE schedules
        SET origin = $2,
            external_hash = $3
        WHERE external_uid = $1
            AND (origin IS DISTINCT FROM $2 OR external_hash IS DISTINCT FROM $3)
        "#,
        uid,
        declaration.origin,
        declaration.hash,
    )
    .execute(&mut *conn)
    .await?;
    let state = state_of(conn, uid).await?;
    sqlx::query!(
        r#"
        INSERT INTO adopted_keys (key, schedule_id)
        SELECT DISTINCT key, $2::uuid
        FROM UNNEST($1::text[]) AS adopted (key)
        ON CONFLICT (key) DO UPDATE
        SET schedule_id = EXCLUDED.schedule_id
        WHERE adopted_keys.schedule_id <> EXCLUDED.schedule_id
        "#,
        &declaration.adopt,
        state.id.0,
    )
    .execute(conn)
    .await?;
    Ok(state)
}

/// Gives the schedule that the resource was before its UID, unless there is one with it. Others that would make the
/// same tasks are deleted; their tasks stay.
async fn take_over(conn: &mut PgConnection, uid: &str, declaration: &Declaration) -> Result<()> {
    sqlx::query!(
        r#"
        UPDATE schedules
        SET external_uid = $1,
            version = version + 1
        WHERE NOT EXISTS (
                SELECT
                FROM schedules
                WHERE external_uid = $1
            )
            AND id = (
                SELECT id
                FROM schedules
                WHERE origin = $2
                    OR (external_uid = ANY ($3) AND deleted_at IS NULL)
                ORDER BY (origin IS NOT DISTINCT FROM $2) DESC, array_position($3, external_uid)
                LIMIT 1
            )
        "#,
        uid,
        declaration.origin,
        &declaration.adopt,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        UPDATE schedules
        SET deleted_at = COALESCE(deleted_at, now()),
            origin = NULL,
            external_hash = NULL,
            version = version + 1
        WHERE external_uid <> $1
            AND (origin = $2 OR (external_uid = ANY ($3) AND deleted_at IS NULL))
        "#,
        uid,
        declaration.origin,
        &declaration.adopt,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes the schedule that the resource with this UID declared, if there is one. Its tasks stay.
pub async fn delete_declared(conn: &mut PgConnection, uid: &str) -> Result<()> {
    check_uid(uid)?;
    sqlx::query!(
        r#"
        UPDATE schedules
        SET deleted_at = COALESCE(deleted_at, now()),
            origin = NULL,
            external_hash = NULL,
            version = version + 1
        WHERE external_uid = $1
            AND (deleted_at IS NULL OR origin IS NOT NULL)
        "#,
        uid,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Creates or changes the schedule that goes by this key. Saying the same again changes nothing. Fields that are wrong
/// are named as a resource has them. One that a resource has taken over is the resource's, and left as it is: another
/// one would make its tasks once more. Call in a transaction.
pub async fn put_external(conn: &mut PgConnection, user: &UserId, uid: &str, input: ScheduleInput) -> Result<Schedule> {
    let Some(adopted) = find_adopted(conn, uid).await? else {
        return put(conn, user, uid, input).await;
    };
    tracing::info!(schedule = %adopted.id, key = uid, "a cluster's resource declares this schedule: it is left alone");
    Ok(adopted)
}

async fn put(conn: &mut PgConnection, user: &UserId, uid: &str, input: ScheduleInput) -> Result<Schedule> {
    // It may have been there and deleted: then it comes back as one that was suspended meanwhile.
    sqlx::query!(
        r#"
        UPDATE schedules
        SET deleted_at = NULL,
            suspended = TRUE
        WHERE external_uid = $1
            AND deleted_at IS NOT NULL
        "#,
        uid,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        UPDATE schedules
        SET user_id = $2,
            version = version + 1,
            updated_at = now()
        WHERE external_uid = $1
            AND user_id <> $2
        "#,
        uid,
        user.as_str(),
    )
    .execute(&mut *conn)
    .await?;
    if let Some(known) = find(conn, uid).await? {
        return change(conn, known, input).await;
    }
    let fields = parse(input.clone(), Timestamp::now())?;
    if let Some(id) = insert(conn, user, Some(uid), &fields).await? {
        return get(conn, user, id).await;
    }
    // Somebody was faster.
    let known = find(conn, uid).await?.ok_or(Error::NotFound("schedule"))?;
    change(conn, known, input).await
}

async fn change(conn: &mut PgConnection, known: Schedule, input: ScheduleInput) -> Result<Schedule> {
    let before = lock(conn, &known.user_id, known.id, None).await?;
    let counts_from = if before.schedule == input.schedule {
        before.anchor_at
    } else {
        Timestamp::now()
    };
    let fields = parse(input, counts_from)?;
    write(conn, before, fields).await
}

/// Checks a declared schedule. One that has ended is no mistake: it may be declared for as long as anyone likes.
fn parse(input: ScheduleInput, counts_from: Timestamp) -> Result<ScheduleFields> {
    input
        .clone()
        .parse(counts_from)
        .or_else(|invalid| input.parse(LONG_AGO).map_err(|_| invalid))
        .map_err(|invalid| Error::Invalid(invalid.into_iter().map(in_resource).collect()))
}

/// The schedule of the resource that stands for this key.
async fn find_adopted(conn: &mut PgConnection, key: &str) -> Result<Option<Schedule>> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT_SCHEDULES);
    query
        .push(" WHERE deleted_at IS NULL AND origin IS NOT NULL")
        .push(" AND id = (SELECT schedule_id FROM adopted_keys WHERE key = ")
        .push_bind(key)
        .push(")");
    let row: Option<ScheduleRow> = query.build_query_as().fetch_optional(conn).await?;
    Ok(row.map(Schedule::from))
}

/// The schedule that goes by this key, unless it was deleted.
async fn find(conn: &mut PgConnection, uid: &str) -> Result<Option<Schedule>> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT_SCHEDULES);
    query
        .push(" WHERE deleted_at IS NULL AND external_uid = ")
        .push_bind(uid);
    let row: Option<ScheduleRow> = query.build_query_as().fetch_optional(conn).await?;
    Ok(row.map(Schedule::from))
}

/// Deletes the schedules whose UIDs begin with `prefix` and are not among `uids`, and says how many. Their tasks stay.
pub async fn retain_external(conn: &mut PgConnection, prefix: &str, uids: &[String]) -> Result<u64> {
    let deleted = sqlx::query!(
        r#"
        UPDATE schedules
        SET deleted_at = now(),
            version = version + 1
        WHERE starts_with(external_uid, $1)
            AND external_uid <> ALL ($2)
            AND deleted_at IS NULL
        "#,
        prefix,
        uids,
    )
    .execute(conn)
    .await?
    .rows_affected();
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named_as_the_resource_has_it() {
        for (field, of_resource) in [
            ("name", "metadata.name"),
            ("user", "spec.user"),
            ("schedule", "spec.schedule"),
            ("schedule.cron", "spec.schedule.cron"),
            ("schedule.time_zone", "spec.timeZone"),
            ("schedule.month_end", "spec.monthEnd"),
            ("schedule.at", "spec.at"),
            ("template.title", "spec.template.title"),
            ("template.due_in", "spec.template.dueIn"),
            ("template.reminders[1].before", "spec.template.reminders[1].before"),
            ("catch_up.window", "spec.catchUp.window"),
            ("overlap", "spec.overlap"),
            ("suspended", "spec.suspend"),
            ("origin", "origin"),
        ] {
            assert_eq!(resource_field(field), of_resource);
        }
    }
}
