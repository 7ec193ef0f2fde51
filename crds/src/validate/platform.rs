//! What a platform's fields must be to each other, and in themselves beyond the schema.

use todo_recurrence::span::Span;
use url::Url;

use super::names::{is_host, is_host_port};
use super::{Problem, given, schedule};
use crate::platform::{
    AuthSpec, DaprSpec, DatabaseSpec, ExternalKafka, KafkaSpec, Resources, SaslMechanism, TodoPlatform, UpgradeSpec,
};
use crate::quantity::thousandths;
use crate::settings::Role;
use crate::words::quoted;

const REPLICAS_OR_AUTOSCALING: &str =
    "replicas and autoscaling at once: the autoscaler owns the number; give one of them";

impl TodoPlatform {
    /// What the schema does not say: the CEL rules, and what CEL cannot say.
    pub(crate) fn rules(&self, problems: &mut Vec<Problem>) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if !is_platform_name(name) {
            problems.push(Problem::new(
                "metadata.name",
                format!(
                    "{} cannot begin the names of the platform's parts; allowed: 1 to 40 lower-case letters, digits and hyphens, a letter first, no hyphen last",
                    quoted(name)
                ),
            ));
        }
        let spec = &self.spec;
        database(&spec.database, problems);
        if let Some(spec) = &spec.kafka {
            kafka(spec, problems);
        }
        if let Some(spec) = &spec.dapr {
            dapr(spec, problems);
        }
        auth(&spec.auth, problems);
        api(&spec.api, problems);
        for role in Role::ALL {
            worker(role, role.of(&spec.workers), problems);
        }
        upgrade(&spec.upgrade, problems);
    }
}

fn is_platform_name(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
}

fn database(spec: &DatabaseSpec, problems: &mut Vec<Problem>) {
    if spec.url_secret_ref.is_some() && spec.storage.is_some() {
        let message =
            "storage is for the PostgreSQL that the platform makes itself; give either urlSecretRef or storage";
        problems.push(Problem::new("spec.database.storage", message));
    }
    if let Some(storage) = &spec.storage
        && thousandths(&storage.size).is_none_or(|size| size == 0)
    {
        problems.push(not_a_quantity("spec.database.storage.size", &storage.size));
    }
}

fn kafka(spec: &KafkaSpec, problems: &mut Vec<Problem>) {
    if given([spec.strimzi.is_some(), spec.external.is_some()]) != 1 {
        let message = "not exactly one kind of kafka is given; give one of strimzi, external, or leave kafka out";
        problems.push(Problem::new("spec.kafka", message));
    }
    if let Some(strimzi) = &spec.strimzi
        && strimzi.user.create
        && strimzi.user.secret_ref.is_some()
    {
        let message = "a user that is created gets its own secret; set create to false to use secretRef";
        problems.push(Problem::new("spec.kafka.strimzi.user.secretRef", message));
    }
    if let Some(kafka) = &spec.external {
        external_kafka(kafka, problems);
    }
}

fn external_kafka(kafka: &ExternalKafka, problems: &mut Vec<Problem>) {
    for (index, broker) in kafka.brokers.iter().enumerate() {
        if !is_host_port(broker) {
            let message = format!(
                "{} is not an address; allowed: host:port, such as kafka.example.com:9092",
                quoted(broker)
            );
            problems.push(Problem::new(format!("spec.kafka.external.brokers[{index}]"), message));
        }
    }
    if kafka.ca_secret_ref.is_some() && !kafka.tls {
        let message = "a certificate authority is of no use without tls; set tls to true or leave this out";
        problems.push(Problem::new("spec.kafka.external.caSecretRef", message));
    }
    if kafka
        .sasl
        .as_ref()
        .is_some_and(|sasl| sasl.mechanism == SaslMechanism::Plain)
        && !kafka.tls
    {
        let message =
            "PLAIN would send the password in the clear; set tls to true, or use SCRAM-SHA-256 or SCRAM-SHA-512";
        problems.push(Problem::new("spec.kafka.external.sasl.mechanism", message));
    }
}

fn dapr(spec: &DaprSpec, problems: &mut Vec<Problem>) {
    if let Some(store) = &spec.state_store
        && given([store.redis.is_some(), store.postgresql.is_some()]) != 1
    {
        let message = "not exactly one state store is given; give one of redis, postgresql, or leave stateStore out";
        problems.push(Problem::new("spec.dapr.stateStore", message));
    }
    if let Some(tracing) = &spec.tracing
        && !is_host_port(&tracing.otlp_endpoint)
    {
        let message = format!(
            "{} is not an address; allowed: host:port, such as otel-collector:4317",
            quoted(&tracing.otlp_endpoint)
        );
        problems.push(Problem::new("spec.dapr.tracing.otlpEndpoint", message));
    }
}

fn auth(spec: &AuthSpec, problems: &mut Vec<Problem>) {
    if spec.oidc.is_some() && spec.secret_ref.is_some() {
        let message = "oidc and secretRef are given at once; give at most one of them";
        problems.push(Problem::new("spec.auth.secretRef", message));
    }
    if let Some(oidc) = &spec.oidc
        && !is_issuer(&oidc.issuer)
    {
        let message = format!(
            "{} cannot be trusted as an issuer; allowed: an https:// URL without query and fragment (http:// within a cluster or on this machine)",
            quoted(&oidc.issuer)
        );
        problems.push(Problem::new("spec.auth.oidc.issuer", message));
    }
}

/// An issuer's keys decide who is who: over plain HTTP only where the network is the cluster's own or none at all.
fn is_issuer(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let Some(host) = url.host_str() else { return false };
    let private = host == "localhost"
        || host == "127.0.0.1"
        || host == "[::1]"
        || host.strip_suffix(".cluster.local").unwrap_or(host).rsplit('.').next() == Some("svc");
    (url.scheme() == "https" || (url.scheme() == "http" && private))
        && url.query().is_none()
        && url.fragment().is_none()
}

fn api(spec: &crate::platform::ApiSpec, problems: &mut Vec<Problem>) {
    if spec.replicas.is_some() && spec.autoscaling.is_some() {
        problems.push(Problem::new("spec.api.replicas", REPLICAS_OR_AUTOSCALING));
    }
    if let Some(scaling) = &spec.autoscaling {
        autoscaling("spec.api.autoscaling", scaling.min, scaling.max, problems);
        if given([scaling.target_cpu.is_some(), scaling.target_memory.is_some()]) == 0 {
            let message = "nothing to aim for; give at least one of targetCPU, targetMemory";
            problems.push(Problem::new("spec.api.autoscaling", message));
        }
    }
    resources("spec.api.resources", spec.resources.as_ref(), problems);
    if spec.ingress.is_some() && spec.http_route.is_some() {
        let message = "ingress and httpRoute at once: the API has one way in; give at most one of them";
        problems.push(Problem::new("spec.api.httpRoute", message));
    }
    let ingress = spec.ingress.as_ref().map(|ingress| ("ingress", &ingress.host));
    let route = spec.http_route.as_ref().map(|route| ("httpRoute", &route.host));
    for (field, host) in ingress.into_iter().chain(route) {
        if !is_host(host) {
            let message = format!(
                "{} is not a host name; allowed: a DNS name such as todo.example.com",
                quoted(host)
            );
            problems.push(Problem::new(format!("spec.api.{field}.host"), message));
        }
    }
}

fn worker(role: Role, spec: &crate::platform::WorkerSpec, problems: &mut Vec<Problem>) {
    let at = format!("spec.workers.{role}");
    if spec.replicas.is_some() && spec.autoscaling.is_some() {
        problems.push(Problem::new(format!("{at}.replicas"), REPLICAS_OR_AUTOSCALING));
    }
    if let Some(scaling) = &spec.autoscaling {
        let at = format!("{at}.autoscaling");
        autoscaling(&at, scaling.min, scaling.max, problems);
        if given([
            scaling.target_cpu.is_some(),
            scaling.target_memory.is_some(),
            scaling.target_lag.is_some(),
        ]) == 0
        {
            let message = "nothing to aim for; give at least one of targetCPU, targetMemory, targetLag";
            problems.push(Problem::new(at, message));
        }
    }
    resources(&format!("{at}.resources"), spec.resources.as_ref(), problems);
}

fn autoscaling(at: &str, min: u32, max: u32, problems: &mut Vec<Problem>) {
    if min > max {
        problems.push(Problem::new(
            format!("{at}.max"),
            format!("{max} is below min; allowed: {min} or more, or a smaller min"),
        ));
    }
}

fn resources(at: &str, resources: Option<&Resources>, problems: &mut Vec<Problem>) {
    let Some(Resources { requests, limits }) = resources else {
        return;
    };
    for (name, request, limit) in [
        ("cpu", &requests.cpu, &limits.cpu),
        ("memory", &requests.memory, &limits.memory),
    ] {
        let mut worth = |part: &str, quantity: &Option<k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
            let text = &quantity.as_ref()?.0;
            let worth = thousandths(text);
            if worth.is_none() {
                problems.push(not_a_quantity(&format!("{at}.{part}.{name}"), text));
            }
            worth
        };
        let (request_worth, limit_worth) = (worth("requests", request), worth("limits", limit));
        if let (Some(least), Some(most)) = (request_worth, limit_worth)
            && least > most
        {
            problems.push(Problem::new(
                format!("{at}.requests.{name}"),
                format!("more than limits.{name}; allowed: at most the limit"),
            ));
        }
    }
}

fn not_a_quantity(at: &str, text: &str) -> Problem {
    Problem::new(
        at,
        format!(
            "{} is not an amount; allowed: a Kubernetes quantity such as 100m, 2, 64Mi or 10Gi",
            quoted(text)
        ),
    )
}

fn upgrade(spec: &UpgradeSpec, problems: &mut Vec<Problem>) {
    if spec.timeout < Span::minutes(1) {
        let message = format!("{} is too short for a pod to start; allowed: 1m or more", spec.timeout);
        problems.push(Problem::new("spec.upgrade.timeout", message));
    }
    if let Some(window) = &spec.maintenance_window {
        let at = "spec.upgrade.maintenanceWindow";
        schedule::cron(&window.cron, &window.time_zone, at, problems);
        if window.duration < Span::minutes(1) || window.duration > Span::days(7) {
            let message = format!("{} is not a window; allowed: 1m to 7d", window.duration);
            problems.push(Problem::new(format!("{at}.duration"), message));
        }
    }
}
