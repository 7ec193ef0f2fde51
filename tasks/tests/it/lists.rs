//! Lists: every task once, in order, whatever happens between two pages; and only those that match.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::PgPool;
use todo_tasks::task::{self, Direction, Filter, ListQuery, Position, Priority, Sort, Status, Task, TaskInput};
use todo_tasks::{Error, TaskId};
use todo_test_db::TestDb;

use crate::fixture::{Outcome, ada, complete, create, due_at, edit, refused_field, this_second};

const PRIORITIES: [Priority; 4] = [Priority::Low, Priority::Medium, Priority::High, Priority::Critical];

/// A task like many others: few due dates and priorities, so that the order of most hangs on their ids.
fn nth(n: i64) -> TaskInput {
    let due = this_second() + jiff::SignedDuration::from_hours(n % 5);
    TaskInput {
        due: (n % 3 > 0).then(|| due_at(due)),
        priority: PRIORITIES[usize::try_from(n).unwrap() % 4],
        ..TaskInput::titled(format!("task {n}"))
    }
}

fn in_order(sort: Sort, direction: Direction) -> ListQuery {
    ListQuery {
        filter: Filter::default(),
        sort,
        direction,
        after: None,
        limit: 37,
    }
}

/// Whether two tasks may follow each other.
fn follows(query: &ListQuery, first: &Task, second: &Task) -> bool {
    let ascending = |first: &Task, second: &Task| match query.sort {
        Sort::CreatedAt => first.id < second.id,
        Sort::Priority => (first.priority, first.id) < (second.priority, second.id),
        Sort::DueAt => {
            let due = |task: &Task| task.due.as_ref().map(|due| due.at);
            (due(first), first.id) < (due(second), second.id)
        }
    };
    if query.sort == Sort::DueAt && first.due.is_some() != second.due.is_some() {
        return first.due.is_some();
    }
    match query.direction {
        Direction::Asc => ascending(first, second),
        Direction::Desc => ascending(second, first),
    }
}

#[tokio::test]
async fn a_walk_over_pages_neither_repeats_nor_loses_while_tasks_are_made_and_changed() -> Outcome {
    let db = TestDb::new().await;
    let mut all: Vec<TaskId> = Vec::new();
    for n in 0..500 {
        all.push(create(&db.pool, &ada(), nth(n)).await?.id);
    }
    for sort in [Sort::CreatedAt, Sort::DueAt, Sort::Priority] {
        for direction in [Direction::Asc, Direction::Desc] {
            let mut query = in_order(sort, direction);
            let (mut seen, mut pages): (Vec<Task>, _) = (Vec::new(), 0);
            let mut made_meanwhile = Vec::new();
            loop {
                let page = task::list(&mut *db.pool.acquire().await?, &ada().user, &query).await?;
                assert!(page.items.len() <= 37);
                seen.extend(page.items);
                pages += 1;
                let Some(next) = page.next else { break };
                assert!(next.fits(sort, direction));
                // As a client keeps it.
                query.after = Some(serde_json::from_value::<Position>(serde_json::to_value(&next)?)?);
                // One is made, one that was seen and one that was not are changed.
                made_meanwhile.push(create(&db.pool, &ada(), nth(pages)).await?.id);
                for id in [seen[0].id, all[usize::try_from(pages)? * 7]] {
                    edit(&db.pool, &ada(), id, |input| TaskInput {
                        title: format!("changed {pages}"),
                        tags: vec!["changed".to_owned()],
                        ..input
                    })
                    .await?;
                }
            }
            let distinct: HashSet<TaskId> = seen.iter().map(|task| task.id).collect();
            assert_eq!(distinct.len(), seen.len(), "{sort:?} {direction:?} repeats");
            assert!(
                all.iter().all(|id| distinct.contains(id)),
                "{sort:?} {direction:?} loses"
            );
            assert!(
                seen.windows(2).all(|pair| follows(&query, &pair[0], &pair[1])),
                "{sort:?} {direction:?} is out of order"
            );
            all.extend(made_meanwhile);
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_last_page_says_that_it_is_the_last() -> Outcome {
    let db = TestDb::new().await;
    for n in 0..4 {
        create(&db.pool, &ada(), nth(n)).await?;
    }
    for (limit, items, more) in [(3, 3, true), (4, 4, false), (5, 4, false)] {
        let query = ListQuery {
            limit,
            ..in_order(Sort::DueAt, Direction::Desc)
        };
        let page = task::list(&mut *db.pool.acquire().await?, &ada().user, &query).await?;
        assert_eq!((page.items.len(), page.next.is_some()), (items, more));
    }
    let empty = ListQuery {
        filter: Filter {
            status: Some(Status::Completed),
            ..Filter::default()
        },
        ..in_order(Sort::Priority, Direction::Asc)
    };
    let page = task::list(&mut *db.pool.acquire().await?, &ada().user, &empty).await?;
    assert!(page.items.is_empty() && page.next.is_none());
    Ok(())
}

/// The titles of the tasks that match, in the order in which they were made.
async fn titles(pool: &PgPool, filter: Filter) -> anyhow::Result<Vec<String>> {
    let query = ListQuery {
        filter,
        ..in_order(Sort::CreatedAt, Direction::Asc)
    };
    let page = task::list(&mut *pool.acquire().await?, &ada().user, &query).await?;
    Ok(page.items.into_iter().map(|task| task.title).collect())
}

#[tokio::test]
async fn text_is_searched_for_as_it_is_written() -> Outcome {
    let db = TestDb::new().await;
    for title in [
        "100% sure",
        "100 sure",
        "snake_case",
        "snakeXcase",
        r"back\slash",
        r"back\\slash",
        "Käse",
    ] {
        create(&db.pool, &ada(), TaskInput::titled(title)).await?;
    }
    let described = TaskInput {
        description: "holes in the KÄSE".to_owned(),
        ..TaskInput::titled("described")
    };
    create(&db.pool, &ada(), described).await?;
    for (text, expected) in [
        ("100%", &["100% sure"][..]),
        ("E_C", &["snake_case"]),
        (r"k\s", &[r"back\slash"]),
        (r"\\", &[r"back\\slash"]),
        ("%", &["100% sure"]),
        ("_", &["snake_case"]),
        ("'; DROP TABLE tasks; --", &[]),
        ("holes in", &["described"]),
        ("käse", &["Käse", "described"]),
    ] {
        let filter = Filter {
            text: Some(text.to_owned()),
            ..Filter::default()
        };
        let found = titles(&db.pool, filter).await?;
        // Without a locale of its own the database folds the case of ASCII letters only.
        if text.is_ascii() {
            assert_eq!(found, expected, "{text}");
        } else {
            assert!(
                found.iter().all(|title| expected.contains(&&**title)),
                "{text}: {found:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn each_filter_holds_and_all_of_them_together() -> Outcome {
    let db = TestDb::new().await;
    let noon: Timestamp = "2101-06-01T12:00:00Z".parse()?;
    let parent = create(&db.pool, &ada(), TaskInput::titled("parent")).await?;
    let tagged = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    let full = TaskInput {
        priority: Priority::High,
        category: Some("home".to_owned()),
        tags: tagged(&["a", "b"]),
        due: Some(due_at(noon)),
        parent_id: Some(parent.id),
        ..TaskInput::titled("full")
    };
    let full = create(&db.pool, &ada(), full).await?;
    complete(&db.pool, &ada(), full.id).await?;
    let half = TaskInput {
        tags: tagged(&["a"]),
        due: Some(due_at(noon + jiff::SignedDuration::from_secs(1))),
        ..TaskInput::titled("half")
    };
    create(&db.pool, &ada(), half).await?;

    let none = Filter::default;
    let of_tags = |tags: &[&str]| Filter {
        tags: tagged(tags),
        ..none()
    };
    let everything = Filter {
        status: Some(Status::Completed),
        priority: Some(Priority::High),
        category: Some("home".to_owned()),
        tags: tagged(&["B", "a"]),
        due_before: Some(noon + jiff::SignedDuration::from_secs(1)),
        due_after: Some(noon),
        parent_id: Some(parent.id),
        schedule_id: None,
        text: Some("FUL".to_owned()),
    };
    let other_schedule = Filter {
        schedule_id: Some(todo_tasks::ScheduleId::new()),
        ..everything.clone()
    };
    for (filter, expected) in [
        (none(), &["parent", "full", "half"][..]),
        (
            Filter {
                status: Some(Status::Open),
                ..none()
            },
            &["parent", "half"],
        ),
        (
            Filter {
                status: Some(Status::Completed),
                ..none()
            },
            &["full"],
        ),
        (
            Filter {
                priority: Some(Priority::Medium),
                ..none()
            },
            &["parent", "half"],
        ),
        (
            Filter {
                category: Some("home".to_owned()),
                ..none()
            },
            &["full"],
        ),
        (of_tags(&["a"]), &["full", "half"]),
        (of_tags(&["A", "b"]), &["full"]),
        (of_tags(&["a", "c"]), &[]),
        (
            Filter {
                due_before: Some(noon),
                ..none()
            },
            &[],
        ),
        (
            Filter {
                due_before: Some(noon + jiff::SignedDuration::from_secs(1)),
                ..none()
            },
            &["full"],
        ),
        (
            Filter {
                due_after: Some(noon),
                ..none()
            },
            &["full", "half"],
        ),
        (
            Filter {
                parent_id: Some(parent.id),
                ..none()
            },
            &["full"],
        ),
        (everything, &["full"]),
        (other_schedule, &[]),
    ] {
        assert_eq!(titles(&db.pool, filter.clone()).await?, expected, "{filter:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_filter_that_no_text_can_match_is_refused() -> Outcome {
    let db = TestDb::new().await;
    let nul = || Some("a\0b".to_owned());
    for (filter, field) in [
        (
            Filter {
                text: nul(),
                ..Filter::default()
            },
            "text",
        ),
        (
            Filter {
                category: nul(),
                ..Filter::default()
            },
            "category",
        ),
        (
            Filter {
                tags: nul().into_iter().collect(),
                ..Filter::default()
            },
            "tags",
        ),
    ] {
        let query = ListQuery {
            filter,
            ..in_order(Sort::CreatedAt, Direction::Asc)
        };
        let outcome: Result<_, Error> = task::list(&mut *db.pool.acquire().await?, &ada().user, &query).await;
        assert_eq!(refused_field(outcome), field);
    }
    Ok(())
}
