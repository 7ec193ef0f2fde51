//! A namespace on a real API server, and the operator's cache and client in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::{BoxFuture, FutureExt as _};
use http::{Method, Request};
use kube::Client;
use kube::client::ClientBuilder;
use serde_json::{Value, json};
use todo_operator::apply::{Applied, apply};
use todo_operator::capabilities::Capabilities;
use todo_operator::child::{Child, ChildKey, Kind, Stage, Tenure, Write};
use todo_operator::discovery::Discovery;
use todo_operator::error::{self, Error};
use todo_operator::live::{Live, Scope};
use todo_operator::names::Names;
use todo_operator::pace::Pace;
use todo_test_cluster::{Cluster, Namespace, Options};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::{Layer, Service};

/// How long a cluster may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One platform's place in a cluster, and what the operator knows of it.
pub(crate) struct Scene {
    pub(crate) namespace: Namespace,
    pub(crate) client: Client,
    pub(crate) capabilities: Capabilities,
    pub(crate) live: Live,
    pub(crate) writes: Writes,
    scope: Scope,
    running: Running,
}

impl Scene {
    /// On the cluster without anyone's CRDs.
    pub(crate) async fn bare(hint: &str) -> Result<Self> {
        Self::on(Cluster::shared_with(Options::NONE).await?, hint).await
    }

    pub(crate) async fn on(cluster: &Cluster, hint: &str) -> Result<Self> {
        Self::watching(cluster, hint, BTreeSet::new()).await
    }

    /// Where a Kafka cluster is in another namespace.
    pub(crate) async fn beside_kafka(cluster: &Cluster, hint: &str, kafka: &str) -> Result<Self> {
        Self::watching(cluster, hint, [kafka.to_owned()].into()).await
    }

    async fn watching(cluster: &Cluster, hint: &str, kafka_namespaces: BTreeSet<String>) -> Result<Self> {
        let namespace = cluster.namespace(hint).await?;
        let writes = Writes::default();
        let client = writes.client(cluster).await?;
        let discovery = Discovery::start(client.clone()).await?;
        let capabilities = discovery.subscribe().borrow().clone();
        let scope = Scope {
            namespaces: Some([namespace.name().to_owned()].into()),
            kafka_namespaces,
        };
        let (live, running) = watching(&client, &discovery, scope.clone()).await?;
        Ok(Self {
            namespace,
            client,
            capabilities,
            live,
            writes,
            scope,
            running,
        })
    }

    /// Lets the cache stand still from here on.
    pub(crate) async fn freeze(&mut self) -> Result<()> {
        self.running.stop.cancel();
        (&mut self.running.task).await?;
        Ok(())
    }

    /// The same with a cache that begins anew, as after a restart.
    pub(crate) async fn restarted(self) -> Result<Self> {
        let discovery = Discovery::start(self.client.clone()).await?;
        let (live, running) = watching(&self.client, &discovery, self.scope.clone()).await?;
        Ok(Self { live, running, ..self })
    }

    pub(crate) fn names(&self) -> Names {
        Names {
            namespace: self.namespace.name().to_owned(),
            platform: "todo".to_owned(),
        }
    }

    pub(crate) fn key(&self, kind: Kind, name: &str) -> ChildKey {
        ChildKey {
            kind,
            namespace: self.namespace.name().to_owned(),
            name: name.to_owned(),
        }
    }

    /// A child with the platform's labels, and `body` besides.
    pub(crate) fn child(&self, kind: Kind, name: &str, body: Value) -> Child {
        let mut object = json!({
            "apiVersion": kind.resource(&self.capabilities).map(|resource| resource.api_version),
            "kind": kind.name(),
            "metadata": {"name": name, "namespace": self.namespace.name(), "labels": self.names().labels()},
        });
        let Value::Object(body) = body else {
            panic!("{name} is no object");
        };
        for (field, value) in body {
            object[field] = value;
        }
        Child {
            key: self.key(kind, name),
            stage: Stage::Base,
            tenure: Tenure::Owned,
            write: Write::Always,
            platform: "1".to_owned(),
            body: object,
        }
    }

    pub(crate) async fn apply(&self, child: &Child) -> error::Result<Applied> {
        apply(&self.client, &self.capabilities, &self.live, child).await
    }

    /// The same, again while a controller is faster, as a reconciler would.
    pub(crate) async fn apply_again(&self, child: &Child) -> error::Result<Applied> {
        loop {
            match self.apply(child).await {
                Err(Error::Conflict { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                applied => return applied,
            }
        }
    }

    /// Waits until the cache shows the child as `is_so` says.
    pub(crate) async fn until(&self, key: &ChildKey, is_so: impl Fn(Option<Value>) -> bool) -> Result<()> {
        eventually(|| is_so(self.live.get(key).map(|object| object.value())))
            .await
            .with_context(|| format!("{key} is {:?}", self.live.get(key).map(|object| object.value())))
    }
}

/// The watches of a cache. They end with it.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    _guard: DropGuard,
}

async fn watching(client: &Client, discovery: &Discovery, scope: Scope) -> Result<(Live, Running)> {
    let stop = CancellationToken::new();
    let live = Live::default();
    let running = {
        let (live, client, stop) = (live.clone(), client.clone(), stop.clone());
        let capabilities = discovery.subscribe();
        async move {
            live.run(client, capabilities, scope, Pace::default().look_anew, stop)
                .await;
        }
    };
    let running = Running {
        task: tokio::spawn(running),
        _guard: stop.clone().drop_guard(),
        stop,
    };
    tokio::time::timeout(PATIENCE, live.ready())
        .await
        .with_context(|| format!("the cache is not ready: {:?}", live.problems()))?;
    Ok((live, running))
}

/// Waits until `is_so`.
pub(crate) async fn eventually(mut is_so: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !is_so() {
        anyhow::ensure!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The writes that a client has sent, in order: `PATCH /api/v1/…`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes(Arc<Mutex<Vec<String>>>);

impl Writes {
    pub(crate) async fn client(&self, cluster: &Cluster) -> Result<Client> {
        let builder = ClientBuilder::try_from(cluster.config().await?)?;
        Ok(builder.with_layer(self).build())
    }

    /// Those since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl<S> Layer<S> for Writes {
    type Service = Noted<S>;

    fn layer(&self, inner: S) -> Noted<S> {
        Noted {
            inner,
            writes: self.clone(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Noted<S> {
    inner: S,
    writes: Writes,
}

impl<S, B> Service<Request<B>> for Noted<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let write = format!("{} {}", request.method(), request.uri().path());
            self.writes.0.lock().unwrap().push(write);
        }
        self.inner.call(request).boxed()
    }
}

/// What a platform is made of, of each kind of Kubernetes itself, written in ways that the API server does not keep.
pub(crate) fn every_kind(scene: &Scene) -> BTreeMap<&'static str, Child> {
    let pod = json!({
        "metadata": {"labels": {"app": "a"}, "annotations": {}},
        "spec": {
            "serviceAccountName": "account", "automountServiceAccountToken": false, "hostNetwork": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "a"}}}],
            "terminationGracePeriodSeconds": 40, "tolerations": [], "nodeSelector": {},
            "containers": [{
                "name": "todo", "image": "todo:1", "args": ["api"],
                "env": [{"name": "EMPTY", "value": ""}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "ports": [{"name": "http", "containerPort": 8080}],
                "resources": {"requests": {"cpu": "0.1", "memory": "1024Mi"}, "limits": {"cpu": "1000m", "memory": "1.5Gi"}},
                "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5, "initialDelaySeconds": 0},
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp", "readOnly": false}],
            }],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1024Ki"}},
                {"name": "secret", "secret": {"secretName": "secret", "optional": false, "defaultMode": 288}}],
        },
    });
    let mut job = pod.clone();
    job["spec"]["restartPolicy"] = json!("Never");
    let own = |kind, body| scene.child(kind, "todo-a", body);
    [
        ("account", own(Kind::ServiceAccount, json!({"automountServiceAccountToken": false}))),
        ("map", own(Kind::ConfigMap, json!({"data": {"todo.env": "A=1\n", "empty": ""}, "binaryData": {}}))),
        ("secret", own(Kind::Secret, json!({"data": {"key": "aHVudGVyMg=="}}))),
        (
            "service",
            own(
                Kind::Service,
                json!({"spec": {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
                    "publishNotReadyAddresses": false}}),
            ),
        ),
        (
            "policy",
            own(
                Kind::NetworkPolicy,
                json!({"spec": {"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Ingress", "Egress"], "egress": [{}],
                    "ingress": [{"ports": [{"port": 8080}], "from": [{"namespaceSelector": {}}]}]}}),
            ),
        ),
        (
            "set",
            own(
                Kind::StatefulSet,
                json!({"spec": {"replicas": 1, "serviceName": "todo-a", "selector": {"matchLabels": {"app": "a"}}, "template": pod,
                    "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "1024Mi"}}}}]}}),
            ),
        ),
        (
            "job",
            own(Kind::Job, json!({"spec": {"backoffLimit": 6, "template": job, "ttlSecondsAfterFinished": null}})),
        ),
        (
            "deployment",
            own(
                Kind::Deployment,
                json!({"spec": {"replicas": 2, "minReadySeconds": 0, "selector": {"matchLabels": {"app": "a"}}, "template": pod,
                    "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "0%"}}}}),
            ),
        ),
        (
            "autoscaler",
            own(
                Kind::HorizontalPodAutoscaler,
                json!({"spec": {"minReplicas": 2, "maxReplicas": 5,
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "todo-a"},
                    "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
                        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "0.5Gi"}}}],
                    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}}}}),
            ),
        ),
        (
            "budget",
            own(
                Kind::PodDisruptionBudget,
                json!({"spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "a"}}}}),
            ),
        ),
        (
            "ingress",
            own(
                Kind::Ingress,
                json!({"spec": {"rules": [{"host": "todo.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": "todo-a", "port": {"name": "http"}}}}]}}]}}),
            ),
        ),
    ]
    .into()
}
