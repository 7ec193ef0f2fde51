//! Network policies: nothing may talk to the platform's pods, nor they to anything, but what the platform is made of.
//!
//! A policy for each component, since they need different things: only those that speak to the brokers reach them, only
//! the API takes requests. Where an address is known by its port alone (it is in a Secret, or outside of the cluster),
//! the port is what is opened. The operator's rule for CloudNativePG's own pods is CloudNativePG's.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::dapr::{INTERNAL_PORT, METRICS_PORT, state_store};
use super::database::{self, Place, place};
use super::draft::Draft;
use super::{kafka, monitoring, pod};
use crate::child::{Child, Kind, Tenure};
use crate::names::Component;
use crate::platform::inputs::port;

type Labels = BTreeMap<String, String>;

pub(super) fn build(draft: &Draft) -> Vec<Child> {
    if !draft.spec.network_policy {
        return vec![];
    }
    let names = &draft.names;
    let mut policies = vec![
        Policy::of(every_pod(draft)).made(draft, names.policy("default-deny"), "policy", Tenure::Owned),
        migration(draft),
    ];
    policies.extend(
        draft
            .components()
            .into_iter()
            .map(|component| of_component(draft, component)),
    );
    if database::own(draft) == Some(Place::StatefulSet) {
        let mut policy = Policy::of(database::selector(draft));
        policy.take(&[database::PORT], Some(pods(every_pod(draft))));
        // It stays with the database that it guards.
        policies.push(policy.made(draft, names.database(), "db", draft.tenure_of_data()));
    }
    policies
}

fn of_component(draft: &Draft, component: Component) -> Child {
    let mut policy = Policy::of(draft.names.selector(component));
    let operator = || Some(namespace(&draft.inputs.settings.namespace));
    policy.reach_names();
    reach_database(draft, &mut policy);
    if component == draft.api() {
        policy.take(&[pod::PORT], None);
        if let Some(oidc) = &draft.spec.auth.oidc {
            policy.reach(port(&oidc.issuer), None);
        }
    }
    if monitoring::is_scraped(draft) {
        let sidecar = draft.has_sidecars().then_some(METRICS_PORT);
        let ports: Vec<i32> = [pod::PORT].into_iter().chain(sidecar).collect();
        policy.take(&ports, Some(prometheus()));
    }
    if draft.wants_sidecars() {
        policy.reach_control_plane();
        let tracing = draft.spec.dapr.as_ref().and_then(|dapr| dapr.tracing.as_ref());
        if let Some(tracing) = tracing {
            policy.reach(port(&tracing.otlp_endpoint), None);
        }
        if component == draft.api() {
            policy.take(&[INTERNAL_PORT], operator());
            reach_state(draft, &mut policy);
        }
        if kafka::speaks(component) {
            reach_brokers(draft, &mut policy);
        }
    }
    policy.made(
        draft,
        draft.names.component(component),
        component.as_str(),
        Tenure::Owned,
    )
}

fn migration(draft: &Draft) -> Child {
    let mut labels = every_pod(draft);
    labels.insert("app.kubernetes.io/component".to_owned(), "migrate".to_owned());
    let mut policy = Policy::of(labels);
    policy.reach_names();
    reach_database(draft, &mut policy);
    policy.made(draft, draft.names.migration_account(), "migrate", Tenure::Owned)
}

fn reach_database(draft: &Draft, policy: &mut Policy) {
    let peer = match place(draft) {
        Place::Given | Place::Lost => None,
        Place::Cluster => Some(pods(labels([("cnpg.io/cluster", draft.names.database().as_str())]))),
        Place::StatefulSet => Some(pods(database::selector(draft))),
    };
    let secret = draft.spec.database.url_secret_ref.as_ref();
    let port = secret.and_then(|secret| port_in(draft, &secret.name, &secret.key));
    policy.reach(port.or(u16::try_from(database::PORT).ok()), peer);
}

fn reach_state(draft: &Draft, policy: &mut Policy) {
    let redis = state_store(draft).and_then(|store| store.redis.as_ref());
    if let Some(redis) = redis {
        let host = &redis.host_secret_ref;
        policy.reach(port_in(draft, &host.name, &host.key).or(Some(6379)), None);
    }
}

fn reach_brokers(draft: &Draft, policy: &mut Policy) {
    let Some(brokers) = kafka::brokers(draft) else {
        return;
    };
    let peer = draft.strimzi().map(|strimzi| NetworkPolicyPeer {
        pod_selector: Some(select(labels([("strimzi.io/cluster", strimzi.cluster.name.as_str())]))),
        ..namespace(draft.kafka_namespace().unwrap_or_default())
    });
    let ports: BTreeSet<u16> = brokers.addresses.split(',').filter_map(port).collect();
    for port in ports {
        policy.reach(Some(port), peer.clone());
    }
}

/// The port in a Secret's value, as far as the Secret is there.
fn port_in(draft: &Draft, secret: &str, key: &str) -> Option<u16> {
    draft.inputs.secrets.get(secret)?.ports.get(key).copied()
}

/// A policy that is being written. It denies what is not in it.
struct Policy {
    pods: Labels,
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Vec<NetworkPolicyEgressRule>,
}

impl Policy {
    fn of(pods: Labels) -> Self {
        Self {
            pods,
            ingress: vec![],
            egress: vec![],
        }
    }

    /// Lets `from`, or anyone, call these ports.
    fn take(&mut self, ports: &[i32], from: Option<NetworkPolicyPeer>) {
        self.ingress.push(NetworkPolicyIngressRule {
            ports: Some(ports.iter().map(|port| open(*port, "TCP")).collect()),
            from: from.map(|peer| vec![peer]),
        });
    }

    /// Lets the pods call this port of `to`, or of anyone.
    fn reach(&mut self, port: Option<u16>, to: Option<NetworkPolicyPeer>) {
        self.egress.push(NetworkPolicyEgressRule {
            ports: port.map(|port| vec![open(i32::from(port), "TCP")]),
            to: to.map(|peer| vec![peer]),
        });
    }

    /// Lets the pods ask for names, of whoever answers: a cluster's DNS may be a pod or an address on the node.
    fn reach_names(&mut self) {
        self.egress.push(NetworkPolicyEgressRule {
            ports: Some(vec![open(53, "UDP"), open(53, "TCP")]),
            to: None,
        });
    }

    /// Lets the sidecars speak to Dapr's own pods, in whichever namespace.
    fn reach_control_plane(&mut self) {
        self.egress.push(NetworkPolicyEgressRule {
            ports: None,
            to: Some(vec![anywhere(labels([("app.kubernetes.io/part-of", "dapr")]))]),
        });
    }

    fn made(self, draft: &Draft, name: String, component: &str, tenure: Tenure) -> Child {
        let policy = NetworkPolicy {
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(select(self.pods)),
                policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
                ingress: Some(self.ingress).filter(|rules| !rules.is_empty()),
                egress: Some(self.egress).filter(|rules| !rules.is_empty()),
            }),
            ..NetworkPolicy::default()
        };
        let object = draft.object(Kind::NetworkPolicy, name).component(component);
        object.tenure(tenure).content(&policy)
    }
}

fn every_pod(draft: &Draft) -> Labels {
    labels([
        ("app.kubernetes.io/name", "todo-platform"),
        ("app.kubernetes.io/instance", draft.names.platform.as_str()),
    ])
}

fn labels<const N: usize>(labels: [(&str, &str); N]) -> Labels {
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn select(labels: Labels) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels),
        ..LabelSelector::default()
    }
}

/// Pods of the platform's own namespace.
fn pods(labels: Labels) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(select(labels)),
        ..NetworkPolicyPeer::default()
    }
}

/// Pods of any namespace.
fn anywhere(labels: Labels) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        ..pods(labels)
    }
}

/// Every pod of a namespace.
fn namespace(name: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(select(labels([("kubernetes.io/metadata.name", name)]))),
        ..NetworkPolicyPeer::default()
    }
}

/// Prometheus, by the label that its operator and its chart give it.
fn prometheus() -> NetworkPolicyPeer {
    anywhere(labels([("app.kubernetes.io/name", "prometheus")]))
}

fn open(port: i32, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some(protocol.to_owned()),
        ..NetworkPolicyPort::default()
    }
}
