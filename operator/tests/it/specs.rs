//! Random specs of platforms, each of them valid: every field that there is, in every combination that goes together.
//!
//! Here: [`Specs`], one sequence of specs for each seed, on a [`Ground`]: what there is to refer to. Two specs of one
//! sequence are two that one platform may have after each other, so what may not change in its life is drawn once for
//! the whole sequence, with the reason beside it. Not here: making what specs refer to.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use todo_crds::TodoPlatform;

use crate::schema::leaves;

/// Stands in a spec for the namespace beside the platform's own that has a Kafka cluster, which differs from test to test.
pub(crate) const ELSEWHERE: &str = "elsewhere";

/// What there is for specs to refer to, besides the Secrets of [`SECRETS`].
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// What `spec.kafka` may be, without its topics. Empty where there is none.
    pub(crate) kafkas: Vec<Value>,
    /// Whether a platform whose data have been elsewhere can get a database of its own. Where only the one for evaluation
    /// is to be had, a platform that runs gets no empty one in the place of what it had (`DatabaseLost`).
    pub(crate) makes_databases_later: bool,
    /// Whether specs may say `paused`, which keeps everything as it is.
    pub(crate) pauses: bool,
}

impl Ground {
    /// Where specs are only written down: they may refer to anything.
    pub(crate) fn paper() -> Self {
        let strimzi = |strimzi: Value| json!({"strimzi": strimzi});
        let external = |external: Value| json!({"external": external});
        let mine = |name: &str| json!({"create": false, "secretRef": {"name": name}});
        let authority = |name: &str, key: &str| json!({"name": name, "key": key});
        let login = |mechanism: &str, name: &str| json!({"mechanism": mechanism, "secretRef": {"name": name}});
        Self {
            kafkas: vec![
                strimzi(json!({"cluster": {"name": "events"}})),
                strimzi(json!({"cluster": {"name": "others", "namespace": "kafka"}, "user": {"create": true}})),
                strimzi(json!({"cluster": {"name": "events", "namespace": ELSEWHERE}, "user": mine("login")})),
                strimzi(json!({"cluster": {"name": "events"}, "user": mine("redis")})),
                external(json!({"brokers": ["one:9092", "[::1]:9092"], "tls": false})),
                external(json!({"brokers": ["two:9093"], "caSecretRef": authority("authority", "ca.pem")})),
                external(
                    json!({"brokers": ["two:9093"], "tls": true, "caSecretRef": authority("login", "username"),
                    "sasl": login("SCRAM-SHA-512", "login"), "manageTopics": true}),
                ),
                external(json!({"brokers": ["three:9094"], "sasl": login("PLAIN", "redis"), "manageTopics": false})),
            ],
            makes_databases_later: true,
            pauses: true,
        }
    }
}

/// The Secrets that specs name, each with its keys.
pub(crate) const SECRETS: [(&str, &[&str]); 10] = [
    ("database", &["url"]),
    ("former-database", &["uri"]),
    ("redis", &["host", "password"]),
    ("cache", &["host", "token"]),
    ("tokens", &["secret"]),
    ("login", &["username", "password"]),
    ("authority", &["ca.pem"]),
    ("registry", &[".dockerconfigjson"]),
    ("push", &["private", "public", "subject"]),
    ("mail", &["url"]),
];

/// A sequence of specs.
pub(crate) struct Specs {
    random: StdRng,
    ground: Ground,
    life: Life,
    has_own_database: bool,
    is_first: bool,
}

/// What one platform keeps for life.
struct Life {
    /// CloudNativePG takes no smaller volume. That of the database for evaluation stays, whatever is asked for, and the
    /// status says so: where there is only that, it is drawn for each spec.
    storage: Option<Value>,
    /// Kafka takes no partition away.
    partitions: [u32; 3],
    /// To keep a topic on another number of brokers moves all of its data: Strimzi and the operator leave that to
    /// people. One, because the broker of tests is alone.
    replicas: u32,
}

impl Specs {
    pub(crate) fn new(seed: u64, ground: Ground) -> Self {
        let mut specs = Self {
            random: StdRng::seed_from_u64(seed),
            ground,
            life: Life {
                storage: None,
                partitions: [1; 3],
                replicas: 1,
            },
            has_own_database: false,
            is_first: true,
        };
        let storage = specs.storage();
        let partitions = [(); 3].map(|()| specs.random.random_range(1..4));
        specs.life = Life {
            storage,
            partitions,
            ..specs.life
        };
        specs
    }

    /// The next one, as a person writes it: what is not said has its default.
    pub(crate) fn next(&mut self) -> Value {
        let database = self.database();
        let kafka = self.kafka();
        let mut spec = self.fields([
            ("image", Self::image),
            ("deletionPolicy", |draw| draw.one_of(&["Retain", "Delete"])),
            ("dapr", Self::dapr),
            ("auth", |draw| {
                let issuer = draw.one_of(&["https://id.example.com", "https://login.example.org:8443/realm"]);
                let oidc = json!({"issuer": issuer, "audience": draw.one_of(&["todo", "acme"])});
                let secret = draw.one_of(&[
                    json!({"name": "tokens", "key": "secret"}),
                    json!({"name": "login", "key": "password"}),
                ]);
                draw.one_of(&[json!({}), json!({"oidc": oidc}), json!({"secretRef": secret})])
            }),
            ("api", Self::api),
            ("workers", |draw| {
                draw.fields(
                    ["relay", "recurring", "reminders", "notifications", "audit", "analytics"]
                        .map(|role| (role, Self::worker as Draw)),
                )
            }),
            ("notifications", Self::notifications),
            ("upgrade", Self::upgrade),
            ("observability", |draw| {
                draw.fields([
                    ("podMonitor", Self::flag),
                    ("alerts", Self::flag),
                    ("dashboards", Self::flag),
                    ("logFormat", |draw| draw.one_of(&["text", "json"])),
                ])
            }),
            ("networkPolicy", Self::flag),
        ]);
        spec["version"] = self.one_of(&["1.0.0", "1.1.0", "2.0.0-rc.1"]);
        spec["database"] = database;
        if let Some(kafka) = kafka {
            spec["kafka"] = kafka;
        }
        if self.ground.pauses && self.is_so() {
            spec["paused"] = self.flag();
        }
        self.is_first = false;
        spec
    }

    fn database(&mut self) -> Value {
        let may_be_own = self.is_first || self.has_own_database || self.ground.makes_databases_later;
        let mut database = if may_be_own && self.is_so() {
            self.has_own_database = true;
            let storage = if self.ground.makes_databases_later {
                self.life.storage.clone()
            } else {
                self.storage()
            };
            storage.map_or_else(|| json!({}), |storage| json!({"storage": storage}))
        } else {
            let secret = self.one_of(&[
                json!({"name": "database", "key": "url"}),
                json!({"name": "former-database", "key": "uri"}),
            ]);
            json!({"urlSecretRef": secret})
        };
        if self.is_so() {
            database["pool"] = json!({"max": self.number(4, 60)});
        }
        database
    }

    fn storage(&mut self) -> Option<Value> {
        let class = ("className", (|draw| draw.one_of(&["fast", "slow"])) as Draw);
        let storage = with(self.fields([class]), "size", self.one_of(&["1Gi", "2.5Gi", "10Gi"]));
        self.is_so().then_some(storage)
    }

    fn kafka(&mut self) -> Option<Value> {
        let kinds = self.ground.kafkas.clone();
        if kinds.is_empty() || self.random.random_ratio(1, 3) {
            return None;
        }
        let mut kafka = self.one_of(&kinds);
        let mut topics = json!({});
        for (name, partitions) in ["taskEvents", "taskUpdates", "reminders"]
            .into_iter()
            .zip(self.life.partitions)
        {
            let retention = ("retention", (|draw| draw.one_of(&["36h", "7d", "30d", "2w"])) as Draw);
            topics[name] = self.fields([retention]);
            topics[name]["partitions"] = partitions.into();
            topics[name]["replicas"] = self.life.replicas.into();
        }
        kafka["topics"] = topics;
        Some(kafka)
    }

    fn image(&mut self) -> Value {
        self.fields([
            ("repository", |draw| {
                draw.one_of(&["registry.example.com/todo", "localhost:5000/team/todo"])
            }),
            ("digest", |draw| {
                let digit = draw.one_of(&["0", "a"]);
                format!("sha256:{}", digit.as_str().unwrap_or_default().repeat(64)).into()
            }),
            ("pullPolicy", |draw| draw.one_of(&["IfNotPresent", "Always", "Never"])),
            ("pullSecrets", |draw| {
                draw.one_of(&[
                    json!([{"name": "registry"}]),
                    json!([{"name": "login"}, {"name": "registry"}]),
                ])
            }),
        ])
    }

    fn dapr(&mut self) -> Value {
        self.fields([
            ("stateStore", |draw| {
                let host = draw.one_of(&[
                    json!({"name": "redis", "key": "host"}),
                    json!({"name": "cache", "key": "host"}),
                ]);
                let password: (&str, Draw) = ("passwordSecretRef", |draw| {
                    draw.one_of(&[
                        json!({"name": "redis", "key": "password"}),
                        json!({"name": "cache", "key": "token"}),
                    ])
                });
                let redis = with(draw.fields([password]), "hostSecretRef", host);
                draw.one_of(&[json!({"redis": redis}), json!({"postgresql": {}})])
            }),
            (
                "tracing",
                |draw| json!({"otlpEndpoint": draw.one_of(&["collector.observability:4317", "10.0.0.9:14317"])}),
            ),
        ])
    }

    fn api(&mut self) -> Value {
        let mut api = self.fields([
            ("resources", Self::resources),
            ("suspend", Self::seldom),
            ("limits", |draw| {
                draw.fields([
                    ("maxPageSize", |draw| draw.number(1, 1000)),
                    ("maxBodyBytes", |draw| draw.number(1024, 1 << 20)),
                ])
            }),
            ("rateLimit", |draw| {
                draw.fields([
                    ("perSecond", |draw| draw.number(1, 500)),
                    ("burst", |draw| draw.number(1, 500)),
                ])
            }),
        ]);
        self.scale(&mut api, &[("targetCPU", 100), ("targetMemory", 100)]);
        let host = self.one_of(&["todo.example.com", "tasks.example.org"]);
        match self.random.random_range(0..4) {
            0 | 1 => {
                let ingress = self.fields([
                    ("className", |draw| draw.one_of(&["nginx", "traefik"])),
                    ("tlsSecretName", |draw| draw.one_of(&["todo-tls", "wildcard"])),
                ]);
                api["ingress"] = with(ingress, "host", host);
            }
            2 => {
                let gateway = self.fields([
                    ("namespace", |draw| draw.one_of(&["gateways", "web"])),
                    ("sectionName", |draw| draw.one_of(&["https", "internal"])),
                ]);
                let gateway = with(gateway, "name", self.one_of(&["public", "private"]));
                api["httpRoute"] = json!({"host": host, "parentRefs": [gateway]});
            }
            _ => {}
        }
        api
    }

    fn worker(&mut self) -> Value {
        let mut worker = self.fields([("resources", Self::resources), ("suspend", Self::seldom)]);
        self.scale(
            &mut worker,
            &[("targetCPU", 100), ("targetMemory", 100), ("targetLag", 1000)],
        );
        worker
    }

    /// Says how many pods there are, or what they grow by, or nothing. `targets` have their largest values.
    fn scale(&mut self, workload: &mut Value, targets: &[(&str, u32)]) {
        match self.random.random_range(0..3) {
            0 => workload["replicas"] = self.number(1, 3),
            1 => {
                let least = self.random.random_range(1..4_u32);
                let mut autoscaling = json!({"max": self.number(least, least + 3)});
                if least > 1 || self.is_so() {
                    autoscaling["min"] = least.into();
                }
                let needed = self.random.random_range(0..targets.len());
                for (place, (target, most)) in targets.iter().enumerate() {
                    if place == needed || self.is_so() {
                        autoscaling[*target] = self.number(1, *most);
                    }
                }
                workload["autoscaling"] = autoscaling;
            }
            _ => {}
        }
    }

    /// Amounts in the ways that people write them, no request above a limit.
    fn resources(&mut self) -> Value {
        self.fields([
            ("requests", |draw| {
                draw.fields([
                    ("cpu", |draw| {
                        draw.one_of(&[json!("50m"), json!("0.1"), json!(1), json!("0.05")])
                    }),
                    ("memory", |draw| {
                        draw.one_of(&[json!("64Mi"), json!("65536Ki"), json!(67_108_864), json!("0.1G")])
                    }),
                ])
            }),
            ("limits", |draw| {
                draw.fields([
                    ("cpu", |draw| draw.one_of(&[json!("1500m"), json!(2), json!("1")])),
                    ("memory", |draw| {
                        draw.one_of(&[json!("256Mi"), json!("1Gi"), json!("0.5Gi")])
                    }),
                ])
            }),
        ])
    }

    fn notifications(&mut self) -> Value {
        self.fields([
            (
                "webPush",
                |draw| json!({"vapidSecretRef": {"name": draw.one_of(&["push", "login"])}}),
            ),
            ("email", |draw| {
                let url = draw.one_of(&[
                    json!({"name": "mail", "key": "url"}),
                    json!({"name": "push", "key": "private"}),
                ]);
                let from = draw.one_of(&["todo@example.com", "tasks@example.org"]);
                json!({"smtp": {"urlSecretRef": url, "from": from}})
            }),
        ])
    }

    fn upgrade(&mut self) -> Value {
        self.fields([
            ("strategy", |draw| draw.one_of(&["Automatic", "Manual"])),
            ("autoRollback", Self::flag),
            ("soak", |draw| draw.one_of(&["90s", "2m"])),
            // Long enough for a machine that has other things to do.
            ("timeout", |draw| draw.one_of(&["10m", "1h"])),
            ("maintenanceWindow", |draw| {
                let zone: (&str, Draw) = ("timeZone", |draw| draw.one_of(&["Europe/Berlin", "America/New_York"]));
                let window = with(draw.fields([zone]), "cron", draw.one_of(&["0 2 * * 6", "@daily"]));
                with(window, "duration", draw.one_of(&["4h", "90m"]))
            }),
        ])
    }

    /// Each of these fields, or not. One that turns out empty is left out: where it was not empty before, server-side
    /// apply makes null of `{}`, and the API server refuses that (kubernetes/kubernetes#135841).
    fn fields<const N: usize>(&mut self, fields: [(&str, Draw); N]) -> Value {
        let mut drawn = Map::new();
        for (name, draw) in fields {
            let value = if self.is_so() { draw(self) } else { json!({}) };
            if value != json!({}) {
                drawn.insert(name.to_owned(), value);
            }
        }
        drawn.into()
    }

    fn one_of<T: Clone + Into<Value>>(&mut self, choices: &[T]) -> Value {
        let chosen = self.random.random_range(0..choices.len());
        choices[chosen].clone().into()
    }

    fn number(&mut self, least: u32, most: u32) -> Value {
        self.random.random_range(least..=most).into()
    }

    fn flag(&mut self) -> Value {
        self.is_so().into()
    }

    fn seldom(&mut self) -> Value {
        self.random.random_ratio(1, 4).into()
    }

    fn is_so(&mut self) -> bool {
        self.random.random_ratio(1, 2)
    }
}

/// Draws one field's value.
type Draw = fn(&mut Specs) -> Value;

fn with(mut fields: Value, name: &str, value: Value) -> Value {
    fields[name] = value;
    fields
}

/// The values that are drawn for each field, by its path.
fn drawn(sequences: u64) -> BTreeMap<String, BTreeSet<String>> {
    let mut drawn: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for seed in 0..sequences {
        note(&Specs::new(seed, Ground::paper()).next(), String::new(), &mut drawn);
    }
    drawn
}

fn note(value: &Value, path: String, drawn: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                note(value, format!("{path}/{name}"), drawn);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| note(item, format!("{path}/*"), drawn)),
        value => {
            drawn.entry(path).or_default().insert(value.to_string());
        }
    }
}

/// So that a field that is added and forgotten here fails.
#[test]
fn every_field_of_the_schema_is_drawn_with_different_values() {
    // Different in one platform's life they may not be, or there is nothing to be different.
    let drawn = drawn(600);
    let always_alike = [
        "/dapr/stateStore/postgresql",
        "/dapr/stateStore/redis/hostSecretRef/key",
        "/kafka/topics/*/replicas",
    ];
    let mut poor = vec![];
    for (path, _) in leaves("todoplatforms") {
        let values = drawn.get(&path).map_or(0, BTreeSet::len);
        let is_alike = always_alike.iter().any(|alike| is_like(&path, alike));
        if values < if is_alike { 1 } else { 2 } {
            poor.push((path.clone(), drawn.get(&path)));
        }
    }
    assert!(poor.is_empty(), "{poor:#?}");
}

fn is_like(path: &str, pattern: &str) -> bool {
    let (path, pattern) = (path.split('/'), pattern.split('/'));
    path.clone().count() == pattern.clone().count() && path.zip(pattern).all(|(part, like)| like == "*" || part == like)
}

#[test]
fn every_spec_that_is_drawn_is_valid() {
    for seed in 0..300 {
        let mut specs = Specs::new(seed, Ground::paper());
        for spec in [specs.next(), specs.next()] {
            let platform: TodoPlatform = serde_json::from_value(json!({
                "apiVersion": "todoplatform.dev/v1alpha1",
                "kind": "TodoPlatform",
                "metadata": {"name": "acme"},
                "spec": spec,
            }))
            .unwrap();
            assert_eq!(platform.validate(), [], "{spec:#}");
        }
    }
}

#[test]
fn one_seed_is_one_sequence() {
    let sequence = |seed| {
        let mut specs = Specs::new(seed, Ground::paper());
        [specs.next(), specs.next(), specs.next()]
    };
    assert_eq!(sequence(7), sequence(7));
    assert_ne!(sequence(7), sequence(8));
}
