//! Following the changes of declared schedules: each is heard of, whatever commits when.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{UID, count, minutely, put, spawn};
use crate::app::{Reply, User};

/// Somebody who reads on from where they were.
pub(super) struct Follower<'a> {
    operator: &'a User,
    cursor: Option<String>,
    limit: u16,
}

impl<'a> Follower<'a> {
    pub(super) fn new(operator: &'a User) -> Self {
        Self {
            operator,
            cursor: None,
            limit: 1000,
        }
    }

    /// What has changed since the last time, and whether there is more.
    async fn read(&mut self) -> (Vec<Value>, bool) {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.cursor.clone().map(|cursor| ("after", cursor)));
        let request = self
            .operator
            .request(Method::GET, "/internal/v1/schedules")
            .query(&query);
        let mut body = Reply::to(request).await.expect(200).body;
        self.cursor = Some(body["cursor"].as_str().unwrap().to_owned());
        let items = body["items"].take();
        (items.as_array().unwrap().clone(), body["has_more"].as_bool().unwrap())
    }

    /// Reads until what was read is enough. Transactions of other tests on the same server may hold it back.
    pub(super) async fn until(&mut self, is_enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        for _ in 0..400 {
            seen.extend(self.read().await.0);
            if is_enough(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not enough after 20 s: {seen:?}");
    }
}

/// So many declared schedules, written as one statement.
async fn declare_many(pool: &PgPool, number: i32) {
    sqlx::query(
        "INSERT INTO schedules (
            id, user_id, external_uid, origin, external_hash, name, rule, template, anchor_at, cursor_at, next_at
        )
        SELECT
            gen_random_uuid(), 'user-' || n % 100, 'uid-' || n, 'team/n' || n, 'h', 'n' || n,
            '{\"cron\": \"0 9 * * *\", \"time_zone\": \"UTC\"}', '{\"title\": \"t\"}', now(), now(),
            now() + interval '1 day'
        FROM generate_series(1, $1) AS n",
    )
    .bind(number)
    .execute(pool)
    .await
    .unwrap();
}

fn uids(items: &[Value]) -> HashSet<&str> {
    items.iter().map(|item| item["uid"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn ten_thousand_are_read_page_by_page_and_then_only_what_changes() {
    let (app, operator) = spawn().await;
    let pool = &app.db.pool;
    declare_many(pool, 10_000).await;
    let mut follower = Follower::new(&operator);
    let all = follower.until(|items| items.len() >= 10_000).await;
    assert_eq!((all.len(), uids(&all).len()), (10_000, 10_000), "each once");
    assert_eq!(follower.read().await, (vec![], false));

    for round in 0..20 {
        let uid = format!("uid-{}", 1 + round * 37);
        sqlx::query("UPDATE schedules SET made = made + 1 WHERE external_uid = $1")
            .bind(&uid)
            .execute(pool)
            .await
            .unwrap();
        let changed = follower.until(|items| !items.is_empty()).await;
        assert_eq!(uids(&changed), HashSet::from([uid.as_str()]));
        assert_eq!(changed.len(), 1, "once");
        assert_eq!(changed[0]["made"], 1);
    }
    assert_eq!(follower.read().await, (vec![], false));
}

#[tokio::test]
async fn an_index_serves_the_changes() {
    let (app, _operator) = spawn().await;
    let pool = &app.db.pool;
    declare_many(pool, 10_000).await;
    sqlx::query("ANALYZE schedules").execute(pool).await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN
        SELECT id
        FROM schedules
        WHERE origin IS NOT NULL
            AND (changed_xid, id) > ('1000000000'::xid8, '00000000-0000-0000-0000-000000000000'::uuid)
            AND changed_xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY changed_xid, id
        LIMIT 1001",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("schedules_changed") && !plan.contains("Sort"), "{plan}");
}

#[tokio::test]
async fn pages_end_where_they_should_whatever_their_size() {
    let (app, operator) = spawn().await;
    declare_many(&app.db.pool, 20).await;
    Follower::new(&operator).until(|items| items.len() == 20).await;
    for (limit, sizes) in [(7, vec![7, 7, 6]), (10, vec![10, 10]), (20, vec![20]), (1000, vec![20])] {
        let mut follower = Follower {
            limit,
            ..Follower::new(&operator)
        };
        let mut read = Vec::new();
        loop {
            let (items, has_more) = follower.read().await;
            read.push(items.len());
            if !has_more {
                break;
            }
        }
        assert_eq!(read, sizes);
    }
}

#[tokio::test]
async fn a_commit_that_was_slow_is_not_passed_over() {
    let (app, operator) = spawn().await;
    let pool = &app.db.pool;
    declare_many(pool, 3).await;
    let mut follower = Follower::new(&operator);
    follower.until(|items| items.len() == 3).await;

    let made =
        |uid: &'static str| sqlx::query("UPDATE schedules SET made = made + 1 WHERE external_uid = $1").bind(uid);
    let mut slow = pool.begin().await.unwrap();
    made("uid-1").execute(&mut *slow).await.unwrap();
    // Later, and committed before.
    made("uid-2").execute(pool).await.unwrap();
    put(&operator, UID, &minutely("tick")).await.expect(200);
    for _ in 0..5 {
        assert_eq!(
            follower.read().await,
            (vec![], false),
            "nothing may overtake the slow one"
        );
    }
    slow.commit().await.unwrap();
    let changed = follower.until(|items| items.len() >= 3).await;
    assert_eq!(changed.len(), 3, "each once");
    assert_eq!(uids(&changed), HashSet::from(["uid-1", "uid-2", UID]));
}

#[tokio::test]
async fn many_writers_at_once_are_all_heard() {
    let (app, operator) = spawn().await;
    let pool = app.db.another_pool(8).await;
    declare_many(&pool, 50).await;
    let writers = (0..8_i32).map(|writer| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for round in 0..40_i32 {
                let mut tx = pool.begin().await.unwrap();
                sqlx::query("UPDATE schedules SET made = made + 1 WHERE external_uid = 'uid-' || $1")
                    .bind(1 + (writer * 7 + round) % 50)
                    .execute(&mut *tx)
                    .await
                    .unwrap();
                // Some hold their transaction while others overtake them.
                tokio::time::sleep(Duration::from_millis(u64::try_from((writer + round) % 4).unwrap() * 3)).await;
                tx.commit().await.unwrap();
            }
        })
    });
    let writing = tokio::spawn(futures::future::join_all(writers));
    let mut follower = Follower::new(&operator);
    let mut heard = std::collections::HashMap::new();
    for _ in 0..2_000 {
        let is_last = writing.is_finished();
        for item in follower.read().await.0 {
            heard.insert(item["uid"].as_str().unwrap().to_owned(), item["made"].as_i64().unwrap());
        }
        if is_last && heard.values().sum::<i64>() == 320 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for done in writing.await.unwrap() {
        done.unwrap();
    }
    assert_eq!(heard.values().sum::<i64>(), 320, "what was heard last is what there is");
    assert_eq!(count(&pool, "schedules").await, 50);
}

#[tokio::test]
async fn a_deletion_by_its_user_and_a_change_are_heard() {
    let (app, operator) = spawn().await;
    let state = put(&operator, UID, &minutely("tick")).await.expect(200).body;
    let mut follower = Follower::new(&operator);
    let first = follower.until(|items| !items.is_empty()).await;
    assert_eq!(first.iter().collect::<Vec<_>>(), [&state]);
    let (ada, path) = (
        app.user("ada"),
        format!("/api/v1/schedules/{}", state["id"].as_str().unwrap()),
    );
    ada.patch(&path, &json!({"name": "mine"})).await.expect(200);
    follower
        .until(|items| {
            items
                .iter()
                .any(|item| item["hash"] == Value::Null && item["deleted"] == false)
        })
        .await;
    ada.delete(&path).await.expect(204);
    let gone = follower
        .until(|items| items.iter().any(|item| item["deleted"] == true))
        .await;
    assert_eq!(gone.last().unwrap()["next_at"], Value::Null);

    // Whoever deletes the resource knows it.
    operator
        .delete(&format!("/internal/v1/schedules/{UID}"))
        .await
        .expect(204);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(follower.read().await, (vec![], false));
}

#[tokio::test]
async fn after_a_restore_to_another_server_changes_are_heard_again() {
    let (app, operator) = spawn().await;
    let pool = &app.db.pool;
    declare_many(pool, 5).await;
    let mut follower = Follower::new(&operator);
    follower.until(|items| items.len() == 5).await;
    // As a dump of a server far ahead leaves it, with a follower that knows that server.
    for statement in [
        "ALTER TABLE schedules DISABLE TRIGGER schedule_changed",
        "UPDATE schedules SET changed_xid = '900000000000'::xid8",
        "ALTER TABLE schedules ENABLE TRIGGER schedule_changed",
    ] {
        sqlx::query(statement).execute(pool).await.unwrap();
    }
    let ahead = base64_url(&json!({
        "list": "declared",
        "after": {"xid": 900_000_000_000_i64, "id": "ffffffff-ffff-ffff-ffff-ffffffffffff"},
    }));
    follower.cursor = Some(ahead);
    assert_eq!(todo_tasks::schedule::rebase_after_restore(pool).await.unwrap(), 5);
    assert_eq!(todo_tasks::schedule::rebase_after_restore(pool).await.unwrap(), 0);
    let again = follower.until(|items| items.len() >= 5).await;
    assert_eq!(uids(&again).len(), 5);
    assert_eq!(follower.read().await, (vec![], false));
}

fn base64_url(value: &Value) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
}
