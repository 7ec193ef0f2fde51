//! Who is known to the platform.

use sqlx::PgPool;
use todo_tasks::{UserId, known_user};
use todo_test_db::TestDb;

use crate::fixture::Outcome;

async fn known(pool: &PgPool) -> anyhow::Result<Vec<String>> {
    Ok(sqlx::query_scalar("SELECT user_id FROM known_users ORDER BY user_id")
        .fetch_all(pool)
        .await?)
}

#[tokio::test]
async fn who_wrote_something_before_there_was_a_list_is_on_it() -> Outcome {
    let db = TestDb::new().await;
    // As the release before it left a database.
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .execute(&db.pool)
        .await?;
    for migration in [
        include_str!("../../../migrations/0001_events.sql"),
        include_str!("../../../migrations/0002_tasks.sql"),
        include_str!("../../../migrations/0003_alarms.sql"),
        include_str!("../../../migrations/0004_state.sql"),
    ] {
        sqlx::raw_sql(migration).execute(&db.pool).await?;
    }
    sqlx::raw_sql(
        r"
        INSERT INTO schedules (id, user_id, external_uid, name, rule, template, anchor_at, cursor_at)
        VALUES
            ('00000000-0000-7000-8000-000000000001', 'scheduled', 'manifest/home/1', 's', '{}', '{}', now(), now()),
            ('00000000-0000-7000-8000-000000000002', 'scheduler', NULL, 's', '{}', '{}', now(), now());
        INSERT INTO tasks (id, user_id, title, schedule_id, occurrence_at)
        VALUES
            ('00000000-0000-7000-8000-000000000003', 'scheduled', 't', '00000000-0000-7000-8000-000000000001', now()),
            ('00000000-0000-7000-8000-000000000004', 'writer', 't', NULL, NULL),
            ('00000000-0000-7000-8000-000000000005', 'writer', 't', NULL, NULL);
        INSERT INTO idempotency_keys (user_id, key, fingerprint)
        VALUES ('sender', 'k', '\x00');
        ",
    )
    .execute(&db.pool)
    .await?;
    let migration = include_str!("../../../migrations/0005_declared_schedules.sql");
    sqlx::raw_sql(migration).execute(&db.pool).await?;
    assert_eq!(known(&db.pool).await?, ["scheduler", "sender", "writer"]);
    Ok(())
}

#[tokio::test]
async fn a_user_is_noted_once_however_many_notice() -> Outcome {
    let db = TestDb::new().await;
    let ada = UserId::parse("ada").unwrap();
    let noticing = (0..8).map(|_| {
        let (pool, ada) = (db.pool.clone(), ada.clone());
        async move { Ok(known_user::record(&pool, &ada).await?) }
    });
    crate::fixture::at_once(noticing).await?;
    known_user::record(&db.pool, &ada).await?;
    assert_eq!(known(&db.pool).await?, ["ada"]);
    Ok(())
}
