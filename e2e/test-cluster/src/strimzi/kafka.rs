//! The topics of a Kafka, their settings and who manages them. The Kafka is not there, or a [`Broker`] stands for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A test double of a Kafka, as its topic operator sees it. Clones are the same one.
#[derive(Clone, Default)]
pub struct StandInKafka {
    topics: Arc<Mutex<BTreeMap<String, Managed>>>,
    broker: Option<Arc<dyn Broker>>,
}

/// A real Kafka, which gets the topics that the double is asked for. It may take its time.
pub trait Broker: Send + Sync {
    /// Makes a topic that is not there yet.
    fn make(&self, name: &str, topic: &Topic) -> anyhow::Result<()>;
    /// Removes one with its data.
    fn remove(&self, name: &str) -> anyhow::Result<()>;
    /// Lets a user log in by SCRAM-SHA-512 with this password from now on.
    fn admit(&self, user: &str, password: &str) -> anyhow::Result<()>;
}

/// A topic of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// At least 1, and never fewer than before.
    pub partitions: i64,
    /// The replication factor.
    pub replicas: i64,
    /// What was set; what was not has the broker's default.
    pub config: BTreeMap<String, String>,
}

struct Managed {
    topic: Topic,
    /// The uid and the name of the `KafkaTopic` that manages it.
    by: Option<(String, String)>,
    /// Whether a real Kafka has it.
    is_made: bool,
}

/// Why a topic is not as it was asked for.
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl StandInKafka {
    /// A Kafka without topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// A Kafka with a real one behind it.
    pub fn over(broker: impl Broker + 'static) -> Self {
        Self {
            topics: Arc::default(),
            broker: Some(Arc::new(broker)),
        }
    }

    /// Every topic by its name.
    pub fn topics(&self) -> BTreeMap<String, Topic> {
        let topics = self.lock();
        topics
            .iter()
            .map(|(name, managed)| (name.clone(), managed.topic.clone()))
            .collect()
    }

    /// Makes or changes a topic for the `KafkaTopic` with this uid and name. No number keeps what is there.
    pub(super) fn put(
        &self,
        topic: &str,
        by: (&str, &str),
        partitions: Option<i64>,
        replicas: Option<i64>,
        config: BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        let refuse = |reason, message: String| Err(Refusal { reason, message });
        let mut topics = self.lock();
        // What could not be made is nowhere, and may be asked for otherwise.
        if self.broker.is_some() && topics.get(topic).is_some_and(|managed| !managed.is_made) {
            topics.remove(topic);
        }
        let managed = topics.entry(topic.to_owned()).or_insert_with(|| Managed {
            topic: Topic {
                partitions: partitions.unwrap_or(1),
                replicas: replicas.unwrap_or(1),
                config: BTreeMap::new(),
            },
            by: None,
            is_made: false,
        });
        let (uid, name) = managed.by.get_or_insert_with(|| (by.0.to_owned(), by.1.to_owned()));
        if *uid != by.0 {
            return refuse(
                "ResourceConflict",
                format!("another resource manages this topic: {name}"),
            );
        }
        if replicas.is_some_and(|wanted| wanted != managed.topic.replicas) {
            return refuse(
                "NotSupported",
                "a topic's replication factor cannot be changed without Cruise Control".to_owned(),
            );
        }
        if partitions.is_some_and(|wanted| wanted < managed.topic.partitions) {
            return refuse("NotSupported", "a topic's partitions cannot become fewer".to_owned());
        }
        managed.topic.partitions = partitions.unwrap_or(managed.topic.partitions);
        managed.topic.config = config;
        if let Some(broker) = &self.broker
            && !managed.is_made
        {
            if let Err(error) = broker.make(topic, &managed.topic) {
                return refuse("KafkaError", format!("{error:#}"));
            }
            managed.is_made = true;
        }
        Ok(())
    }

    /// The topic stays, and nobody manages it.
    pub(super) fn release(&self, uid: &str) {
        for managed in self.lock().values_mut() {
            managed.by.take_if(|(by, _)| by == uid);
        }
    }

    /// Removes the topic that this `KafkaTopic` manages, with its data.
    pub(super) fn remove(&self, uid: &str) {
        let mut topics = self.lock();
        let removed = topics.extract_if(.., |_, managed| managed.by.as_ref().is_some_and(|(by, _)| by == uid));
        for (name, managed) in removed {
            if let Some(broker) = self.broker.as_ref().filter(|_| managed.is_made)
                && let Err(error) = broker.remove(&name)
            {
                eprintln!("stand-in for strimzi: the topic {name} stays: {error:#}");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Managed>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
