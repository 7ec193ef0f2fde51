//! The charts on a real API server: installed, upgraded to fewer rights, taken away.
//!
//! No operator runs here: that its pods are ready, the fake kubelet says.

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::wait::{await_condition, conditions};
use todo_crds::TodoPlatform;
use todo_test_cluster::{Cluster, FakeKubelet, Options};

const NAMESPACE: &str = "todo-system";
const CRDS: [&str; 2] = ["todoplatforms.todoplatform.dev", "recurringschedules.todoplatform.dev"];

async fn run(mut command: Command) -> String {
    let done = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

async fn helm(cluster: &Cluster, home: &Path, arguments: &[&str]) -> String {
    helm_in(cluster, home, NAMESPACE, arguments).await
}

async fn helm_in(cluster: &Cluster, home: &Path, namespace: &str, arguments: &[&str]) -> String {
    let program = tokio::task::spawn_blocking(todo_test_tools::helm)
        .await
        .unwrap()
        .unwrap();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args(["--namespace", namespace])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .env("HOME", home)
        .env("KUBECONFIG", cluster.kubeconfig());
    run(command).await
}

#[tokio::test]
async fn charts_install_upgrade_to_fewer_rights_and_leave_the_resource_types_behind() {
    let cluster = Cluster::start(Options::NONE).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let client = cluster.client().await.unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in CRDS {
        // The cluster comes with them; here the chart makes them.
        let uid = crds.get(name).await.unwrap().metadata.uid.unwrap();
        crds.delete(name, &DeleteParams::default()).await.unwrap();
        await_condition(crds.clone(), name, conditions::is_deleted(&uid))
            .await
            .unwrap();
    }
    let _kubelet = FakeKubelet::start_everywhere(client.clone());

    let install = [
        "install",
        "todo-operator-crds",
        "charts/todo-operator-crds",
        "--create-namespace",
    ];
    helm(&cluster, home.path(), &install).await;
    let install = [
        "install",
        "todo-operator",
        "charts/todo-operator",
        "--wait",
        "--timeout",
        "1m",
    ];
    let notes = helm(&cluster, home.path(), &install).await;
    assert!(notes.contains("looks after platforms in every namespace"), "{notes}");
    let cluster_roles: Api<ClusterRole> = Api::all(client.clone());
    cluster_roles.get("todo-system-todo-operator").await.unwrap();

    let upgrade = [
        "upgrade",
        "todo-operator",
        "charts/todo-operator",
        "--set",
        "watchNamespaces={default},replicas=3",
        "--wait",
        "--timeout",
        "1m",
    ];
    helm(&cluster, home.path(), &upgrade).await;
    let ours = ListParams::default().labels("app.kubernetes.io/instance=todo-operator");
    assert_eq!(cluster_roles.list(&ours).await.unwrap().items, []);
    let roles: Api<Role> = Api::namespaced(client.clone(), "default");
    roles.get("todo-system-todo-operator").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let replicas = pods.list(&ours).await.unwrap().items;
    let running = replicas.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let arguments: Vec<_> = running
        .map(|pod| pod.spec.as_ref().unwrap().containers[0].args.clone().unwrap())
        .collect();
    assert_eq!(arguments.len(), 3);
    assert!(
        arguments
            .iter()
            .all(|arguments| arguments.contains(&"--watch-namespaces=default".to_owned()))
    );

    for release in ["todo-operator", "todo-operator-crds"] {
        helm(
            &cluster,
            home.path(),
            &["uninstall", release, "--wait", "--timeout", "1m"],
        )
        .await;
    }
    let platforms: Api<TodoPlatform> = Api::namespaced(client, "default");
    platforms
        .list(&ListParams::default())
        .await
        .expect("the resource types are kept");
    assert!(
        roles.get("todo-system-todo-operator").await.is_err(),
        "a role is left behind"
    );
}

#[tokio::test]
async fn every_switch_makes_what_the_api_server_takes_without_a_warning() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("everything").await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let values = "charts/todo-operator/tests/values/everything.yaml";
    let arguments = ["template", "todo", "charts/todo-operator", "--values", values];
    let rendered = helm_in(cluster, home.path(), namespace.name(), &arguments).await;
    let file = home.path().join("rendered.yaml");
    std::fs::write(&file, rendered).unwrap();
    let mut apply = cluster.kubectl();
    apply
        .args(["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f"])
        .arg(file);
    let applied = tokio::task::spawn_blocking(move || apply.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&applied.stderr);
    assert!(applied.status.success() && said.is_empty(), "{said}");
    let made = String::from_utf8_lossy(&applied.stdout);
    for kind in [
        "deployment",
        "poddisruptionbudget",
        "networkpolicy",
        "podmonitor",
        "prometheusrule",
        "validatingadmissionpolicy",
    ] {
        assert!(made.contains(kind), "no {kind}: {made}");
    }
}
