//! Tasks under tasks: a tree, never a ring, and of bounded depth.

use std::time::Duration;

use sqlx::PgPool;
use todo_tasks::task::{self, Task, TaskInput};
use todo_tasks::{Caller, Error, TaskId};
use todo_test_db::TestDb;

use crate::fixture::{Outcome, ada, caller, create, edit, get, refused_field};

async fn under(pool: &PgPool, parent: Option<TaskId>) -> anyhow::Result<Task> {
    let input = TaskInput {
        parent_id: parent,
        ..TaskInput::titled("part")
    };
    create(pool, &ada(), input).await
}

/// A chain of tasks, each under the one before it.
async fn chain(pool: &PgPool, length: usize) -> anyhow::Result<Vec<TaskId>> {
    let mut chain: Vec<TaskId> = Vec::new();
    for _ in 0..length {
        chain.push(under(pool, chain.last().copied()).await?.id);
    }
    Ok(chain)
}

async fn hang(pool: &PgPool, caller: &Caller, id: TaskId, parent: TaskId) -> todo_tasks::Result<Task> {
    let mut tx = pool.begin().await?;
    let moved = task::change(&mut tx, caller, id, None, |input| {
        Ok::<_, Error>(TaskInput {
            parent_id: Some(parent),
            ..input
        })
    })
    .await?;
    tx.commit().await?;
    Ok(moved)
}

#[tokio::test]
async fn a_task_never_hangs_under_itself() -> Outcome {
    let db = TestDb::new().await;
    let chain = chain(&db.pool, 4).await?;
    for below in &chain {
        assert_eq!(
            refused_field(hang(&db.pool, &ada(), chain[0], *below).await),
            "parent_id"
        );
    }
    // Sideways and up is fine.
    hang(&db.pool, &ada(), chain[3], chain[1]).await?;
    hang(&db.pool, &ada(), chain[2], chain[3]).await?;
    assert_eq!(get(&db.pool, &ada(), chain[2]).await?.parent_id, Some(chain[3]));
    Ok(())
}

#[tokio::test]
async fn a_parent_is_the_users_own_and_not_deleted() -> Outcome {
    let db = TestDb::new().await;
    let (mine, foreign) = (
        create(&db.pool, &caller("bob"), TaskInput::titled("mine")).await?,
        under(&db.pool, None).await?,
    );
    assert_eq!(
        refused_field(hang(&db.pool, &caller("bob"), mine.id, foreign.id).await),
        "parent_id"
    );
    let deleted = create(&db.pool, &caller("bob"), TaskInput::titled("deleted")).await?;
    commit!(db.pool, |tx| task::delete(&mut tx, &caller("bob"), deleted.id, None))?;
    assert_eq!(
        refused_field(hang(&db.pool, &caller("bob"), mine.id, deleted.id).await),
        "parent_id"
    );
    assert_eq!(get(&db.pool, &caller("bob"), mine.id).await?, mine);
    Ok(())
}

#[tokio::test]
async fn tasks_nest_ten_levels_deep_and_no_deeper_however_they_get_there() -> Outcome {
    let db = TestDb::new().await;
    let deep = chain(&db.pool, 11).await?;
    assert!(under(&db.pool, deep.last().copied()).await.is_err(), "made too deep");

    let single = under(&db.pool, None).await?;
    assert_eq!(
        refused_field(hang(&db.pool, &ada(), single.id, deep[10]).await),
        "parent_id"
    );
    hang(&db.pool, &ada(), single.id, deep[9]).await?;

    // What hangs under a task moves with it.
    let tall = chain(&db.pool, 3).await?;
    assert_eq!(
        refused_field(hang(&db.pool, &ada(), tall[0], deep[8]).await),
        "parent_id"
    );
    hang(&db.pool, &ada(), tall[0], deep[7]).await?;
    Ok(())
}

/// The first move is done but not committed when the second begins.
async fn two_moves(pool: &PgPool, first: (TaskId, TaskId), second: (TaskId, TaskId)) -> anyhow::Result<()> {
    let mut tx = pool.begin().await?;
    task::change(&mut tx, &ada(), first.0, None, |input| {
        Ok::<_, Error>(TaskInput {
            parent_id: Some(first.1),
            ..input
        })
    })
    .await?;
    let concurrent = tokio::spawn({
        let pool = pool.clone();
        async move { hang(&pool, &ada(), second.0, second.1).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    tx.commit().await?;
    assert_eq!(refused_field(concurrent.await?), "parent_id");
    Ok(())
}

#[tokio::test]
async fn two_moves_at_once_cannot_make_a_ring() -> Outcome {
    let db = TestDb::new().await;
    let (one, other) = (chain(&db.pool, 2).await?, chain(&db.pool, 2).await?);
    two_moves(&db.pool, (one[0], other[1]), (other[0], one[1])).await?;
    // Each directly under the other.
    let (one, other) = (under(&db.pool, None).await?, under(&db.pool, None).await?);
    two_moves(&db.pool, (one.id, other.id), (other.id, one.id)).await?;
    Ok(())
}

#[tokio::test]
async fn a_part_can_be_made_while_its_parent_is_being_changed() -> Outcome {
    let db = TestDb::new().await;
    let parent = under(&db.pool, None).await?;
    let mut tx = db.pool.begin().await?;
    task::complete(&mut tx, &ada(), parent.id, None).await?;
    let part = tokio::time::timeout(Duration::from_secs(20), under(&db.pool, Some(parent.id))).await??;
    tx.commit().await?;
    assert_eq!(part.parent_id, Some(parent.id));
    edit(&db.pool, &ada(), part.id, |input| TaskInput {
        parent_id: None,
        ..input
    })
    .await?;
    Ok(())
}
