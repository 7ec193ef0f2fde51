//! Schedules that a manifest declares, brought into the database.

use anyhow::{Context, Result};
use sqlx::PgPool;
use todo_crds::declared::manifest_prefix;
use todo_crds::{DeclaredSchedule, Manifest};
use todo_tasks::schedule::{self, Declaration};

use crate::failure::Refused;

/// Creates and changes the manifest's schedules, and deletes those that it no longer declares. All or nothing.
pub(crate) async fn apply(pool: &PgPool, manifest: &Manifest) -> Result<()> {
    let platform = manifest.platform.metadata.name.as_deref().unwrap_or_default();
    let mut keys = Vec::with_capacity(manifest.schedules.len());
    let mut tx = pool.begin().await?;
    for (schedule, origin) in manifest.schedules.iter().zip(&manifest.schedule_origins) {
        let refused = |reason: &dyn std::fmt::Display| {
            Refused::because(format_args!("{}:{}: {reason}", origin.file, origin.line))
        };
        let declared = schedule.declared(platform).map_err(|problem| refused(&problem))?;
        let declaration = declaration(&declared)?;
        let user = declaration.user().map_err(|invalid| refused(&invalid))?;
        let key = schedule.manifest_key(platform);
        match schedule::put_external(&mut tx, &user, &key, declaration.input()).await {
            Ok(_) => keys.push(key),
            Err(error @ todo_tasks::Error::Invalid(_)) => return Err(refused(&error)),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot apply the schedule {}", declared.name));
            }
        }
    }
    let deleted = schedule::retain_external(&mut tx, &manifest_prefix(platform), &keys).await?;
    tx.commit().await?;
    if deleted > 0 {
        tracing::info!(
            schedules = deleted,
            "deleted schedules that the manifest no longer declares; their tasks stay"
        );
    }
    Ok(())
}

/// What the API reads of a declared schedule that the operator sends.
fn declaration(declared: &DeclaredSchedule) -> Result<Declaration> {
    let json = serde_json::to_value(declared)?;
    serde_json::from_value(json).with_context(|| format!("the schedule {} is not understood", declared.name))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use todo_crds::{RecurringSchedule, manifest};
    use todo_tasks::schedule::DeclaredState;
    use todo_test_db::TestDb;

    use super::*;

    const SAMPLE: &str = include_str!("../../config/samples/platform.yaml");

    fn load(text: &str) -> Manifest {
        manifest::load(&[("-", text)]).unwrap()
    }

    const MINUTELY: &str = "
apiVersion: todoplatform.dev/v1alpha1
kind: TodoPlatform
metadata: {name: home}
spec: {version: 0.1.0}
---
apiVersion: todoplatform.dev/v1alpha1
kind: RecurringSchedule
metadata: {name: tick}
spec:
  platformRef: {name: home}
  user: ada
  schedule: {cron: '* * * * *'}
  template: {title: 'tick {{n}}'}
";

    /// The same as a cluster has it.
    fn resource(schedule: &RecurringSchedule, namespace: &str, uid: &str) -> RecurringSchedule {
        let mut resource = schedule.clone();
        resource.metadata.namespace = Some(namespace.to_owned());
        resource.metadata.uid = Some(uid.to_owned());
        resource
    }

    async fn put(pool: &PgPool, resource: &RecurringSchedule) -> DeclaredState {
        let declared = resource.declared("home").unwrap();
        let uid = resource.metadata.uid.as_deref().unwrap();
        let mut tx = pool.begin().await.unwrap();
        let state = schedule::put_declared(&mut tx, uid, &declaration(&declared).unwrap()).await;
        tx.commit().await.unwrap();
        state.unwrap()
    }

    /// Lets all schedules have slept for five minutes, and then be looked at.
    async fn wake_after_five_minutes(pool: &PgPool) {
        sqlx::query(
            "UPDATE schedules
             SET cursor_at = date_trunc('minute', now()) - interval '5 minutes',
                 next_at = date_trunc('minute', now()) - interval '4 minutes'",
        )
        .execute(pool)
        .await
        .unwrap();
        let mut tx = pool.begin().await.unwrap();
        schedule::make_due(&mut tx, 100).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn occurrences(pool: &PgPool) -> Vec<Timestamp> {
        let at: Vec<String> = sqlx::query_scalar(
            "SELECT to_char(occurrence_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
             FROM tasks
             ORDER BY occurrence_at",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        at.iter().map(|at| at.parse().unwrap()).collect()
    }

    async fn schedules(pool: &PgPool) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM schedules WHERE deleted_at IS NULL")
            .fetch_one(pool)
            .await
            .unwrap()
    }

    #[test]
    fn the_api_reads_whatever_a_resource_declares() {
        let manifest = load(SAMPLE);
        assert_eq!(manifest.schedules.len(), 3);
        for schedule in &manifest.schedules {
            let declared = schedule.declared("home").unwrap();
            let declaration = declaration(&declared).unwrap();
            assert_eq!(declaration.schedule, schedule.spec.recurrence().unwrap());
            assert_eq!(declaration.suspended, schedule.spec.suspend);
            assert_eq!(declaration.template.title, schedule.spec.template.title);
            assert_eq!(declaration.hash, declared.hash);
        }
    }

    #[tokio::test]
    async fn a_schedule_climbs_from_one_machine_to_a_cluster_without_a_second_task() {
        for namespace in ["default", "team"] {
            let db = TestDb::new().await;
            let manifest = load(MINUTELY);
            apply(&db.pool, &manifest).await.unwrap();
            wake_after_five_minutes(&db.pool).await;
            let before = occurrences(&db.pool).await;
            assert!(before.len() >= 5, "{before:?}");

            let tick = resource(
                &manifest.schedules[0],
                namespace,
                "0b6c9a52-3d5e-4b6f-8a11-2f3f61f1a6c1",
            );
            let state = put(&db.pool, &tick).await;
            assert_eq!(state.made, i64::try_from(before.len()).unwrap(), "{namespace}");
            assert_eq!(state.last_at, before.last().copied());
            assert!(state.next_at > state.last_at);
            assert_eq!(occurrences(&db.pool).await, before);

            // However often it is looked at, and wherever the cursor stands.
            wake_after_five_minutes(&db.pool).await;
            let after = occurrences(&db.pool).await;
            assert!(after.windows(2).all(|pair| pair[0] < pair[1]), "{after:?}");
            assert!(after.len() <= before.len() + 1, "{after:?}");
            assert_eq!(put(&db.pool, &tick).await.id, state.id);

            // The manifest run once more on the cluster's database leaves the resource's schedule alone, ...
            apply(&db.pool, &manifest).await.unwrap();
            assert_eq!(schedules(&db.pool).await, 1);
            // ... and makes its own again when the resource is gone.
            let mut tx = db.pool.begin().await.unwrap();
            schedule::delete_declared(&mut tx, &state.uid).await.unwrap();
            tx.commit().await.unwrap();
            apply(&db.pool, &manifest).await.unwrap();
            assert_eq!(schedules(&db.pool).await, 1);
        }
    }
}
