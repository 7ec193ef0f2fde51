//! The topics of a Kafka that runs elsewhere, as passes over a platform look after them.
//!
//! Nobody tells of a change in such a Kafka, and each look is a connection and a login. So what was found stands for a
//! while, unless something else is asked for. How topics are looked after is [`kafka`](crate::kafka)'s.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use todo_crds::TodoPlatform;
use todo_crds::platform::{ExternalKafka, TopicStatus};
use tokio::time::Instant;

use super::build::topics;
use super::dereference::secret;
use super::status::ConditionType;
use super::{Inputs, Problem, Severity};
use crate::error::{Class, Result};
use crate::kafka::{Admin, KafkaError, Settings, TopicOutcome, TopicSpec, TopicState, look_after};
use crate::names::Names;

/// For how long topics that are as asked for are taken to stay so.
const SETTLED_FOR: Duration = Duration::from_mins(10);
/// How soon it is looked again otherwise.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Where the manifest says how brokers are reached.
const FIELD: &str = "spec.kafka.external";

/// What was found of each platform's topics. Clones share it.
#[derive(Clone, Default)]
pub struct Brokers(Arc<Mutex<HashMap<Names, Look>>>);

/// One look at the brokers.
#[derive(Clone)]
struct Look {
    /// What was asked for, and with which secrets.
    asked: String,
    until: Instant,
    found: Found,
    /// What it was reached with the last time that it was: with its namespace a platform loses the Secrets, and what is
    /// to go at the brokers is still there.
    reached_with: Option<Settings>,
}

/// What there is to tell of a platform's topics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Each topic.
    pub topics: Vec<TopicStatus>,
    /// What stands in the way.
    pub problems: Vec<Problem>,
    /// How soon to look again; `None` without such a Kafka.
    pub look_again: Option<Duration>,
}

impl Found {
    /// What was found the last time, for a pass that does not look: what is there is still there, and goes with the
    /// platform by this list.
    pub(super) fn before(platform: &TodoPlatform) -> Self {
        let kafka = platform.spec.kafka.as_ref();
        let status = platform.status.iter();
        let status = status.filter(|_| kafka.is_some_and(|kafka| kafka.external.is_some()));
        Self {
            topics: status.flat_map(|status| status.topics.clone()).collect(),
            ..Self::default()
        }
    }

    /// Whether every topic is as asked for. Those that nobody looked at are not.
    pub fn is_ready(&self) -> bool {
        self.problems.is_empty() && self.topics.iter().all(|topic| topic.ready)
    }
}

impl Brokers {
    /// Looks after the platform's topics, or says what the last look found.
    ///
    /// # Errors
    /// Those of the API server. What brokers say is a problem of the platform.
    pub(super) async fn look_after(&self, client: &Client, inputs: &Inputs, names: &Names) -> Result<Found> {
        let kafka = inputs.platform.spec.kafka.as_ref();
        let Some(external) = kafka.and_then(|kafka| kafka.external.as_ref()) else {
            self.forget(names);
            return Ok(Found::default());
        };
        let asked = topics(inputs);
        let secrets: BTreeMap<&String, &String> =
            inputs.secrets.iter().map(|(name, facts)| (name, &facts.hash)).collect();
        let key = format!("{external:?} {asked:?} {secrets:?}");
        if let Some(look) = self.looks().get(names)
            && look.asked == key
            && look.until > Instant::now()
        {
            return Ok(look.found.clone());
        }
        let (found, settings) = look(client, external, &asked, names).await?;
        let former = self.looks().get(names).and_then(|look| look.reached_with.clone());
        let stands = found
            .look_again
            .unwrap_or(LOOK_AGAIN)
            .mul_f64(rand::random_range(0.8..1.0));
        let look = Look {
            asked: key,
            until: Instant::now() + stands,
            found: found.clone(),
            reached_with: settings.or(former),
        };
        self.looks().insert(names.clone(), look);
        Ok(found)
    }

    /// Deletes the topics that the operator made. What is left is told with the reason.
    ///
    /// # Errors
    /// Those of the API server. What brokers say is what is left.
    pub(super) async fn delete(
        &self,
        client: &Client,
        external: &ExternalKafka,
        topics: &[&str],
        names: &Names,
    ) -> Result<std::result::Result<(), String>> {
        let settings = match settings(client, external, names).await? {
            Ok(settings) => settings,
            Err(error) => match self.reached_with(names, external) {
                Some(settings) => settings,
                None => return Ok(Err(error.to_string())),
            },
        };
        let deleted = async {
            let mut admin = Admin::connect(&settings).await?;
            admin.delete(topics).await
        };
        Ok(match deleted.await {
            Ok(left) if left.is_empty() => Ok(()),
            Ok(left) => {
                let left = left.into_iter().map(|(topic, refusal)| format!("{topic}: {refusal}"));
                Err(left.collect::<Vec<_>>().join("; "))
            }
            Err(error) => Err(error.to_string()),
        })
    }

    /// What these brokers were last reached with.
    fn reached_with(&self, names: &Names, external: &ExternalKafka) -> Option<Settings> {
        let settings = self.looks().get(names)?.reached_with.clone();
        settings.filter(|settings| settings.brokers == external.brokers)
    }

    /// The platform is gone, or asks for no such Kafka any more.
    pub(super) fn forget(&self, names: &Names) {
        self.looks().remove(names);
    }

    fn looks(&self) -> MutexGuard<'_, HashMap<Names, Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is, and with which settings the brokers were reached, if they were.
async fn look(
    client: &Client,
    external: &ExternalKafka,
    asked: &[TopicSpec],
    names: &Names,
) -> Result<(Found, Option<Settings>)> {
    let settings = match settings(client, external, names).await? {
        Ok(settings) => settings,
        Err(error) => return Ok((unreachable(external, asked, &error), None)),
    };
    Ok(match look_after(&settings, asked, external.manage_topics).await {
        Ok(states) => (told(&states), Some(settings)),
        Err(error) => (unreachable(external, asked, &error), None),
    })
}

/// The settings with the values of the Secrets that they refer to.
async fn settings(
    client: &Client,
    external: &ExternalKafka,
    names: &Names,
) -> Result<std::result::Result<Settings, KafkaError>> {
    let ca = external.ca_secret_ref.as_ref().map(|secret| &secret.name);
    let login = external.sasl.as_ref().map(|sasl| &sasl.secret_ref.name);
    let mut values = BTreeMap::new();
    for name in ca.into_iter().chain(login) {
        if let Some(secret) = secret(client, &names.namespace, name).await? {
            values.insert(name.clone(), secret.data.unwrap_or_default());
        }
    }
    Ok(Settings::of(external, |name, key| {
        Some(values.get(name)?.get(key)?.0.clone())
    }))
}

fn told(states: &[TopicState]) -> Found {
    let topics = states.iter().map(|state| TopicStatus {
        name: state.name.clone(),
        partitions: state.partitions,
        ready: state.outcome.is_as_asked(),
    });
    let problems: Vec<Problem> = states.iter().filter_map(problem).collect();
    Found {
        topics: topics.collect(),
        look_again: Some(if problems.is_empty() { SETTLED_FOR } else { LOOK_AGAIN }),
        problems,
    }
}

fn problem(state: &TopicState) -> Option<Problem> {
    let name = &state.name;
    let (reason, message) = match &state.outcome {
        outcome if outcome.is_as_asked() => return None,
        TopicOutcome::CannotShrink { have, asked } => (
            "CannotShrink",
            format!(
                "topic {name} has {have} partitions and {asked} are asked for: kafka cannot take partitions away; ask for \
                 {have} or more in spec.kafka.topics"
            ),
        ),
        TopicOutcome::WrongReplicas { have, asked } => (
            "OtherReplicas",
            format!(
                "topic {name} is kept on {have} brokers and {asked} are asked for: that moves all of its data, so it is \
                 left to you; reassign it, or ask for {have} in spec.kafka.topics"
            ),
        ),
        TopicOutcome::NotThere => (
            "TopicNotFound",
            format!("topic {name} is not there: create it, or set spec.kafka.external.manageTopics to true"),
        ),
        TopicOutcome::Failed(refusal) => ("BrokerRefused", format!("topic {name}: {refusal}")),
        _ => return None,
    };
    Some(Problem {
        about: ConditionType::TopicsReady,
        reason,
        message,
        severity: Severity::Impaired,
    })
}

fn unreachable(external: &ExternalKafka, asked: &[TopicSpec], error: &KafkaError) -> Found {
    let reason = match error.class() {
        Class::Denied => "LoginRefused",
        Class::Invalid => "Unusable",
        _ => "BrokersUnreachable",
    };
    let mut message = error.to_string();
    if !message.starts_with(FIELD) {
        message = format!("{FIELD}: {message}");
    }
    if let (KafkaError::Login { .. }, Some(sasl)) = (error, &external.sasl) {
        let secret = &sasl.secret_ref.name;
        message = format!("{message}: put a username and password into the Secret {secret} that the brokers take");
    }
    Found {
        topics: asked
            .iter()
            .map(|topic| TopicStatus {
                name: topic.name.clone(),
                partitions: None,
                ready: false,
            })
            .collect(),
        problems: vec![Problem {
            about: ConditionType::TopicsReady,
            reason,
            message,
            severity: Severity::Impaired,
        }],
        look_again: Some(LOOK_AGAIN),
    }
}
