//! The topics of a platform in a Kafka that runs elsewhere, where no Strimzi looks after them.
//!
//! Here: a client for what is asked of such a Kafka, and for nothing else: it makes topics ([`Admin::ensure`]), gives them
//! more partitions, sets their configuration, looks whether they are there ([`Admin::find`]) and deletes them
//! ([`Admin::delete`]). [`look_after`] is a whole pass. Not here: events, which the sidecars carry, and when to call this.
//!
//! One pass: connect and log in → look at the topics → decide (`topics`, pure) → at most three requests that change
//! something → a state per topic. Every step may be repeated: what is there already is not made again, and a pass that
//! ended half-way is finished by the next. Nothing waits longer than [`Settings::timeout`].
//!
//! Why its own client: what is needed are nine messages in one old version each. Of the crates, `rskafka` cannot add
//! partitions or change configurations, `rdkafka` is a C library of megabytes, and the decoder of `kafka-protocol` makes
//! room for as many items as an answer claims to have: anyone who may write a manifest could name a broker that ends the
//! operator with a single number.

mod connection;
mod error;
mod messages;
mod scram;
mod settings;
mod topics;
mod wire;

use std::fmt;
use std::time::Duration;

pub use self::error::{KafkaError, Refusal};
pub use self::settings::{Sasl, Settings, Tls};
pub use self::topics::{TopicOutcome, TopicSpec, TopicState};

use self::connection::{Connection, Dialer};
use self::error::code;
use self::messages::{
    AlterConfigs, Cluster, Config, Configs, CreatePartitions, CreateTopics, DeleteTopics, DescribeConfigs, Layout,
    Metadata, Request, Results,
};
use self::topics::{Adjustment, Step, step};

/// One pass over the topics of a platform, from the connection to a state per topic in the order asked. Without
/// `manages` it only looks whether they are there.
pub async fn look_after(
    settings: &Settings,
    topics: &[TopicSpec],
    manages: bool,
) -> Result<Vec<TopicState>, KafkaError> {
    let mut admin = Admin::connect(settings).await?;
    if manages {
        return admin.ensure(topics).await;
    }
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    admin.find(&names).await
}

const SETTLE_LOOKS: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// A client of one cluster, logged in, with its controller on the line.
pub struct Admin {
    connection: Connection,
}

impl fmt::Debug for Admin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Admin")
            .field("broker", &self.connection.broker())
            .finish_non_exhaustive()
    }
}

impl Admin {
    /// Connects to the first broker that can be reached, and from there to the cluster's controller: the one that
    /// changes topics in clusters that still run `ZooKeeper`.
    ///
    /// A broker that refuses the login or shows a wrong certificate ends the search: the others are no different, and
    /// each try may count against the user.
    pub async fn connect(settings: &Settings) -> Result<Self, KafkaError> {
        let dialer = Dialer::new(settings)?;
        let mut connection = first_reachable(&dialer, settings).await?;
        let cluster = connection.call(&Metadata(&[])).await?;
        if let Some(controller) = cluster
            .controller
            .filter(|controller| *controller != connection.broker())
        {
            connection = dialer.dial(&controller).await?;
        }
        Ok(Self { connection })
    }

    /// Brings topics to what is asked for, as far as that loses nothing, and says what is the case, in the order asked.
    /// A topic that somebody else makes at the same time is looked at again, for a second at most.
    ///
    /// An error is one of the connection; what a broker has against a single topic is in that topic's state.
    pub async fn ensure(&mut self, asked: &[TopicSpec]) -> Result<Vec<TopicState>, KafkaError> {
        let asked: Vec<&TopicSpec> = asked.iter().collect();
        let mut states = self.pass(&asked).await?;
        for _ in 0..SETTLE_LOOKS {
            let beaten = (0..states.len()).filter(|&place| states[place].outcome.is_made_by_another());
            let beaten: Vec<usize> = beaten.collect();
            if beaten.is_empty() {
                break;
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
            let again: Vec<&TopicSpec> = beaten.iter().map(|&place| asked[place]).collect();
            for (place, state) in std::iter::zip(beaten, self.pass(&again).await?) {
                states[place] = state;
            }
        }
        Ok(states)
    }

    async fn pass(&mut self, asked: &[&TopicSpec]) -> Result<Vec<TopicState>, KafkaError> {
        let (found, configs) = self.look(asked).await?;
        let steps: Vec<_> = asked.iter().map(|topic| decide(topic, &found, &configs)).collect();
        let (created, grown, set) = self.carry_out(asked, &steps).await?;
        let changed = |topic: &&TopicSpec| {
            [&created, &grown, &set]
                .iter()
                .any(|did| did.get(&topic.name) == Some(&Ok(())))
        };
        self.settle(asked.iter().copied().filter(changed).collect()).await?;
        let states = std::iter::zip(asked, steps).map(|(topic, step)| {
            let outcome = match step {
                Err(refusal) => TopicOutcome::Failed(refusal),
                Ok(Step::Create) => outcome_of(&created, &topic.name, TopicOutcome::Created),
                Ok(Step::Adjust(adjustment)) => adjusted(&topic.name, adjustment, &grown, &set),
            };
            let before = layout(&found, &topic.name)
                .ok()
                .flatten()
                .map(|layout| layout.partitions);
            let partitions = match outcome {
                TopicOutcome::Created => Some(topic.partitions),
                TopicOutcome::Grown { to, .. } => Some(to),
                _ if matches!(grown.get(&topic.name), Some(Ok(()))) => Some(topic.partitions),
                _ => before,
            };
            TopicState {
                name: topic.name.clone(),
                partitions,
                outcome,
            }
        });
        Ok(states.collect())
    }

    /// Whether topics are there that somebody else makes, in the order asked. Changes nothing.
    pub async fn find(&mut self, names: &[&str]) -> Result<Vec<TopicState>, KafkaError> {
        let found = self.connection.call(&Metadata(names)).await?;
        let states = names.iter().map(|name| {
            let layout = layout(&found, name);
            TopicState {
                name: (*name).to_owned(),
                partitions: layout
                    .as_ref()
                    .ok()
                    .and_then(|found| found.map(|layout| layout.partitions)),
                outcome: match layout {
                    Ok(Some(_)) => TopicOutcome::There,
                    Ok(None) => TopicOutcome::NotThere,
                    Err(refusal) => TopicOutcome::Failed(refusal),
                },
            }
        });
        Ok(states.collect())
    }

    /// Deletes topics with all that is in them. One that is not there is as good as deleted. Returns those that are
    /// still there, with the reason.
    pub async fn delete(&mut self, names: &[&str]) -> Result<Vec<(String, Refusal)>, KafkaError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let request = DeleteTopics {
            topics: names,
            timeout_ms: self.connection.patience_ms(),
        };
        let results = self.connection.call(&request).await?;
        let left = results.into_iter().filter_map(|(name, result)| {
            let refusal = result.err().filter(|refusal| refusal.code != code::UNKNOWN_TOPIC)?;
            Some((name, refusal))
        });
        Ok(left.collect())
    }

    /// How topics are laid out, and what is in force of what is asked for.
    async fn look(&mut self, asked: &[&TopicSpec]) -> Result<(Cluster, Configs), KafkaError> {
        let names: Vec<&str> = asked.iter().map(|topic| topic.name.as_str()).collect();
        let found = self.connection.call(&Metadata(&names)).await?;
        let is_there = |topic: &&TopicSpec| matches!(layout(&found, &topic.name), Ok(Some(_)));
        let configured = asked
            .iter()
            .copied()
            .filter(|topic| is_there(topic) && !topic.config.is_empty());
        let configured: Vec<&TopicSpec> = configured.collect();
        let configs = if configured.is_empty() {
            Configs::new()
        } else {
            self.connection.call(&DescribeConfigs(&configured)).await?
        };
        Ok((found, configs))
    }

    /// Waits, for a second at most, until the broker also shows what was changed: it learns of it after the controller,
    /// and the next pass would take what it does not show yet for something to do.
    async fn settle(&mut self, mut changed: Vec<&TopicSpec>) -> Result<(), KafkaError> {
        for _ in 0..SETTLE_LOOKS {
            if changed.is_empty() {
                break;
            }
            let (found, configs) = self.look(&changed).await?;
            changed.retain(|topic| match decide(topic, &found, &configs) {
                Ok(Step::Create) | Err(_) => true,
                Ok(Step::Adjust(adjustment)) => adjustment.grow.is_some() || !adjustment.set.is_empty(),
            });
            if !changed.is_empty() {
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
        }
        Ok(())
    }

    /// What became of what the steps make, let grow and set: a request each, none for nothing.
    async fn carry_out(
        &mut self,
        asked: &[&TopicSpec],
        steps: &[Result<Step, Refusal>],
    ) -> Result<(Results, Results, Results), KafkaError> {
        let timeout_ms = self.connection.patience_ms();
        let (mut new, mut growing, mut changing) = (Vec::new(), Vec::new(), Vec::new());
        for (topic, step) in std::iter::zip(asked, steps) {
            match step {
                Ok(Step::Create) => new.push(*topic),
                Ok(Step::Adjust(Adjustment { grow, set, .. })) => {
                    growing.extend(grow.map(|(_, to)| (topic.name.as_str(), to)));
                    if !set.is_empty() {
                        changing.push((topic.name.as_str(), set.clone()));
                    }
                }
                Err(_) => {}
            }
        }
        let create = CreateTopics {
            topics: &new,
            timeout_ms,
        };
        let grow = CreatePartitions {
            topics: &growing,
            timeout_ms,
        };
        Ok((
            self.unless(new.is_empty(), &create).await?,
            self.unless(growing.is_empty(), &grow).await?,
            self.unless(changing.is_empty(), &AlterConfigs(&changing)).await?,
        ))
    }

    async fn unless<R: Request<Answer = Results>>(&mut self, idle: bool, request: &R) -> Result<Results, KafkaError> {
        if idle {
            return Ok(Results::new());
        }
        self.connection.call(request).await
    }
}

async fn first_reachable(dialer: &Dialer, settings: &Settings) -> Result<Connection, KafkaError> {
    let began = tokio::time::Instant::now();
    let mut last = KafkaError::Address { broker: String::new() };
    for broker in &settings.brokers {
        match dialer.dial(broker).await {
            Ok(connection) => return Ok(connection),
            Err(error) if !error.is_about_one_broker() => return Err(error),
            Err(error) => last = error,
        }
        if began.elapsed() >= settings.timeout * 2 {
            break;
        }
    }
    Err(last)
}

/// How a topic is laid out; `None` when it is not there.
fn layout(cluster: &Cluster, name: &str) -> Result<Option<Layout>, Refusal> {
    match cluster.topics.get(name) {
        None => Ok(None),
        Some(Ok(layout)) => Ok(Some(*layout)),
        Some(Err(refusal)) if refusal.code == code::UNKNOWN_TOPIC => Ok(None),
        Some(Err(refusal)) => Err(refusal.clone()),
    }
}

fn decide(topic: &TopicSpec, found: &Cluster, configs: &Configs) -> Result<Step, Refusal> {
    let Some(layout) = layout(found, &topic.name)? else {
        return Ok(Step::Create);
    };
    let nothing = Config::new();
    let config = match configs.get(&topic.name) {
        Some(Ok(config)) => config,
        Some(Err(refusal)) => return Err(refusal.clone()),
        None => &nothing,
    };
    Ok(step(topic, Some((layout, config))))
}

fn outcome_of(results: &Results, name: &str, done: TopicOutcome) -> TopicOutcome {
    match results.get(name) {
        Some(Ok(())) => done,
        Some(Err(refusal)) => TopicOutcome::Failed(refusal.clone()),
        None => TopicOutcome::Failed(Refusal {
            code: code::REQUEST_TIMED_OUT,
            message: "the broker did not say what became of it".to_owned(),
        }),
    }
}

fn adjusted(name: &str, adjustment: Adjustment, grown: &Results, set: &Results) -> TopicOutcome {
    let grown = adjustment
        .grow
        .map(|(from, to)| outcome_of(grown, name, TopicOutcome::Grown { from, to }));
    let set = (!adjustment.set.is_empty()).then(|| outcome_of(set, name, TopicOutcome::Reconfigured));
    let (failed, done): (Vec<_>, Vec<_>) = [grown, set]
        .into_iter()
        .flatten()
        .partition(|outcome| matches!(outcome, TopicOutcome::Failed(_)));
    let first = failed.into_iter().chain(adjustment.stays).chain(done).next();
    first.unwrap_or(TopicOutcome::AsAsked)
}
