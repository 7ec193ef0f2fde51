//! What `config/` installs, on a real API server: it is taken, it runs under `restricted`, its roles are what the operator
//! needs, and its policy refuses wrong cron expressions and no right ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use todo_crds::{RecurringSchedule, TodoPlatform};
use todo_operator::child::Kind;
use todo_test_cluster::{Cluster, FakeKubelet, Options};
use tokio::sync::OnceCell;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_mins(1);
/// Where the files put the operator.
const NAMESPACE: &str = "todo-system";
/// Of what belongs to no namespace.
const CLUSTER_NAME: &str = "todo-system-todo-operator";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A cluster of these tests' own: what is installed counts for all of it. In it there is a schedule from before.
async fn cluster() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    let start = async || {
        let cluster = Cluster::start(Options::NONE).await.unwrap();
        let schedules: Api<RecurringSchedule> = Api::namespaced(cluster.client().await.unwrap(), "default");
        let old = schedule("from-before", "this is no rule");
        schedules.create(&PostParams::default(), &old).await.unwrap();
        let mut apply = cluster.kubectl();
        apply
            .current_dir(root())
            .args(["apply", "--server-side", "--force-conflicts", "-k", "config/default"]);
        let applied = tokio::task::spawn_blocking(move || apply.output())
            .await
            .unwrap()
            .unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        cluster
    };
    CLUSTER.get_or_init(start).await
}

fn schedule(name: &str, cron: &str) -> RecurringSchedule {
    let schedule = json!({
        "apiVersion": "todoplatform.dev/v1alpha1",
        "kind": "RecurringSchedule",
        "metadata": {"name": name},
        "spec": {
            "platformRef": {"name": "acme"},
            "user": "alice",
            "schedule": {"cron": cron},
            "template": {"title": "Tick"},
        },
    });
    serde_json::from_value(schedule).unwrap()
}

#[tokio::test]
async fn what_is_installed_runs_under_the_strictest_pod_security() {
    let client = cluster().await.client().await.unwrap();
    let _kubelet = FakeKubelet::start(client.clone(), NAMESPACE);
    let deployments: Api<Deployment> = Api::namespaced(client, NAMESPACE);
    let available = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.available_replicas) == Some(2)
    };
    timeout(PATIENCE, await_condition(deployments, "todo-operator", available))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn every_sample_is_taken() {
    let cluster = cluster().await;
    let made = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(cluster.client().await.unwrap());
    let todo = serde_json::from_value(json!({"metadata": {"name": "todo"}})).unwrap();
    namespaces.create(&made, &todo).await.unwrap();
    let mut apply = cluster.kubectl();
    apply
        .current_dir(root())
        .args(["apply", "--dry-run=server", "-f", "config/samples"]);
    let applied = tokio::task::spawn_blocking(move || apply.output())
        .await
        .unwrap()
        .unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let warned = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert_eq!(warned, "", "the API server warns");
}

/// Verbs by group and resource.
fn granted(rules: &[PolicyRule]) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut granted: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let verbs = granted.entry((group.clone(), resource.clone())).or_default();
                verbs.extend(rule.verbs.iter().cloned());
            }
        }
    }
    granted
}

#[tokio::test]
async fn the_role_is_what_the_kinds_of_children_need_and_little_more() {
    let roles: Api<ClusterRole> = Api::all(cluster().await.client().await.unwrap());
    let role = roles.get(CLUSTER_NAME).await.unwrap();
    let verbs = |verbs: &[&str]| verbs.iter().map(|verb| (*verb).to_owned()).collect::<BTreeSet<_>>();
    let mut needed: BTreeMap<_, _> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let resource = (kind.group().to_owned(), kind.plural().to_owned());
            (resource, verbs(&["get", "list", "watch", "create", "patch", "delete"]))
        })
        .collect();
    for (group, resource, more) in [
        ("todoplatform.dev", "todoplatforms", &["list", "watch", "patch"][..]),
        (
            "todoplatform.dev",
            "recurringschedules",
            &["get", "list", "watch", "patch"],
        ),
        ("todoplatform.dev", "todoplatforms/status", &["patch"]),
        ("todoplatform.dev", "recurringschedules/status", &["patch"]),
        ("todoplatform.dev", "todoplatforms/finalizers", &["update"]),
        ("events.k8s.io", "events", &["create"]),
        ("kafka.strimzi.io", "kafkas", &["get"]),
    ] {
        needed.insert((group.to_owned(), resource.to_owned()), verbs(more));
    }
    assert_eq!(granted(&role.rules.unwrap_or_default()), needed);
}

#[tokio::test]
async fn the_operators_account_gets_nothing_that_its_role_does_not_say() {
    let client = cluster()
        .await
        .client_for_service_account(NAMESPACE, "todo-operator")
        .await
        .unwrap();
    let roles: Api<ClusterRole> = Api::all(client.clone());
    assert!(roles.get(CLUSTER_NAME).await.is_err(), "it may read roles");
    let platforms: Api<TodoPlatform> = Api::all(client.clone());
    platforms.list(&ListParams::default()).await.unwrap();
    let platforms: Api<TodoPlatform> = Api::namespaced(client, "default");
    let deleted = platforms.delete("any", &DeleteParams::default()).await;
    assert!(matches!(deleted, Err(kube::Error::Api(status)) if status.code == 403));
}

/// Whether the API server takes a schedule with this rule. Nothing stays.
async fn is_taken(schedules: &Api<RecurringSchedule>, cron: &str) -> Result<(), String> {
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match schedules.create(&parameters, &schedule("probe", cron)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 422 => Err(status.message.clone()),
        Err(error) => panic!("{cron}: {error}"),
    }
}

/// The API server needs a moment to learn of a policy.
async fn schedules_under_the_policy() -> Api<RecurringSchedule> {
    let schedules: Api<RecurringSchedule> = Api::namespaced(cluster().await.client().await.unwrap(), "default");
    let active = async {
        while is_taken(&schedules, "not a rule").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, active).await.expect("the policy is never in force");
    schedules
}

#[tokio::test]
async fn wrong_cron_expressions_are_refused_with_the_field_that_is_wrong() {
    let schedules = schedules_under_the_policy().await;
    for (cron, said) in [
        ("0 9 * *", "five fields"),
        ("0 0 9 * * 1 2", "five fields"),
        ("@fortnightly", "@daily"),
        ("60 9 * * 1", "the minute"),
        ("0 24 * * 1", "the hour"),
        ("0 9 32 * *", "the day of the month"),
        ("0 9 0 * *", "the day of the month"),
        ("0 9 * 13 *", "the month"),
        ("0 9 * * 8", "the weekday"),
        ("0 9 * * MOON", "the weekday"),
        ("0 9 * * 1#6", "the weekday"),
        ("*/0 * * * *", "the minute"),
        ("61 0 9 * * 1", "the second"),
        ("1,,2 * * * *", "the minute"),
        ("1- * * * *", "the minute"),
    ] {
        let refused = is_taken(&schedules, cron).await.expect_err(cron);
        assert!(
            refused.contains("spec.schedule.cron") && refused.contains(said),
            "{cron}: {refused}"
        );
    }
}

#[tokio::test]
async fn no_cron_expression_that_the_platform_takes_is_refused() {
    let schedules = schedules_under_the_policy().await;
    let minutes = ["0", "*", "*/5", "07", "0-59/7", "1,2,30-40", "5/10"];
    let hours = ["9", "*", "0-23", "*/3", "08,17"];
    let dates = ["*", "?", "L", "lw", "L-3", "15W", "1,15,L", "31", "1-7"];
    let months = ["*", "1", "JAN-mar", "*/2", "feb,NOV", "12"];
    let weekdays = [
        "*", "?", "1-5", "7", "SUN", "mon,wed", "5L", "FRI#2", "friL", "*/2", "6-7",
    ];
    let mut crons: Vec<String> = ["@daily", "@HOURLY", " 0  9 * * 1 ", "0\t9 * * 1", "30 0 9 * * 1"]
        .map(str::to_owned)
        .into();
    // Each value of each field, with others that change along.
    for turn in 0..minutes.len().max(dates.len()).max(weekdays.len()) * 3 {
        let pick = |values: &[&str], step: usize| values[(turn * step + turn / 3) % values.len()].to_owned();
        crons.push(format!(
            "{} {} {} {} {}",
            pick(&minutes, 1),
            pick(&hours, 2),
            pick(&dates, 1),
            pick(&months, 5),
            pick(&weekdays, 1)
        ));
    }
    let mut taken = 0;
    for cron in crons {
        if schedule("probe", &cron).validate().is_empty() {
            assert_eq!(is_taken(&schedules, &cron).await, Ok(()), "{cron}");
            taken += 1;
        }
    }
    assert!(taken > 25, "the platform itself takes only {taken}");
}

#[tokio::test]
async fn what_was_there_before_the_policy_can_still_be_labelled_and_deleted() {
    let schedules = schedules_under_the_policy().await;
    let label = json!({"metadata": {"labels": {"team": "finance"}}});
    let parameters = PatchParams::default();
    schedules
        .patch("from-before", &parameters, &Patch::Merge(&label))
        .await
        .unwrap();
    let changed = json!({"spec": {"schedule": {"cron": "still no rule"}}});
    schedules
        .patch("from-before", &parameters, &Patch::Merge(&changed))
        .await
        .unwrap_err();
    schedules.delete("from-before", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn the_window_of_upgrades_is_looked_at_too() {
    schedules_under_the_policy().await;
    let platforms: Api<TodoPlatform> = Api::namespaced(cluster().await.client().await.unwrap(), "default");
    let platform = |cron: &str| -> TodoPlatform {
        let spec: Value = json!({
            "version": "1.0.0",
            "upgrade": {"maintenanceWindow": {"cron": cron, "duration": "4h"}},
        });
        TodoPlatform::new("windows", serde_json::from_value(spec).unwrap())
    };
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    platforms.create(&parameters, &platform("0 2 * * 6")).await.unwrap();
    let refused = async {
        loop {
            // Each policy comes into force by itself.
            if let Err(error) = platforms.create(&parameters, &platform("0 25 * * 6")).await {
                return error.to_string();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let refused = timeout(PATIENCE, refused).await.unwrap();
    assert!(
        refused.contains("spec.upgrade.maintenanceWindow.cron: the hour"),
        "{refused}"
    );
}
