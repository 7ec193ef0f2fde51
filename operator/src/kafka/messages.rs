//! The requests that the operator sends and what it reads of their answers, each in one version.
//!
//! The versions are the last before the compact encodings or older ones with the same fields, and every one is served
//! from Kafka 2.4 to 4.x. Source: the message definitions in Kafka's repository
//! (`clients/src/main/resources/common/message`).

use std::collections::BTreeMap;

use super::error::Refusal;
use super::topics::TopicSpec;
use super::wire::{Malformed, Reader, Writer};

/// A topic, among the kinds of resources that have a configuration.
const TOPIC: i8 = 2;
/// Set a value, among the operations on a configuration.
const SET: i8 = 0;

/// A request with its answer.
pub(crate) trait Request {
    const KEY: i16;
    const VERSION: i16;
    /// What the broker is asked to do, to follow "did not".
    const DOING: &'static str;
    type Answer;

    fn write(&self, writer: &mut Writer);
    fn read(reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed>;
}

/// Which requests the broker knows, in which versions.
#[derive(Debug)]
pub(crate) struct ApiVersions;

/// The lowest and highest version by request.
#[derive(Debug, Default)]
pub(crate) struct Served(BTreeMap<i16, (i16, i16)>);

impl Served {
    pub(crate) fn has<R: Request>(&self) -> bool {
        self.0
            .get(&R::KEY)
            .is_some_and(|(lowest, highest)| (*lowest..=*highest).contains(&R::VERSION))
    }
}

impl Request for ApiVersions {
    const KEY: i16 = 18;
    const VERSION: i16 = 0;
    const DOING: &'static str = "say which requests it knows";
    type Answer = (i16, Served);

    fn write(&self, _writer: &mut Writer) {}

    fn read(reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let error = reader.i16()?;
        let served = reader.array(|reader| Ok((reader.i16()?, (reader.i16()?, reader.i16()?))))?;
        Ok((error, Served(served.into_iter().collect())))
    }
}

/// Announces how the login goes on.
#[derive(Debug)]
pub(crate) struct SaslHandshake(pub(crate) &'static str);

/// Whether it will do, and the mechanisms on offer.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) error: i16,
    pub(crate) mechanisms: Vec<String>,
}

impl Request for SaslHandshake {
    const KEY: i16 = 17;
    const VERSION: i16 = 1;
    const DOING: &'static str = "begin a login";
    type Answer = Offered;

    fn write(&self, writer: &mut Writer) {
        writer.text(self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Offered, Malformed> {
        Ok(Offered {
            error: reader.i16()?,
            mechanisms: reader.array(|reader| Ok(reader.text()?.to_owned()))?,
        })
    }
}

/// One message of the login.
pub(crate) struct SaslAuthenticate<'a>(pub(crate) &'a [u8]);

impl Request for SaslAuthenticate<'_> {
    const KEY: i16 = 36;
    const VERSION: i16 = 0;
    const DOING: &'static str = "answer a login";
    type Answer = Result<Vec<u8>, Refusal>;

    fn write(&self, writer: &mut Writer) {
        writer.bytes(self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let (error, message) = (reader.i16()?, reader.optional_text()?);
        Ok(match Refusal::of(error, message) {
            Some(refusal) => Err(refusal),
            None => Ok(reader.bytes()?.to_vec()),
        })
    }
}

/// Where the cluster's controller is, and how these topics are laid out. It makes none of them.
#[derive(Debug)]
pub(crate) struct Metadata<'a>(pub(crate) &'a [&'a str]);

/// What is known of a cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// `host:port` of the controller, when the cluster has one.
    pub(crate) controller: Option<String>,
    /// By name: the layout, or why there is none.
    pub(crate) topics: BTreeMap<String, Result<Layout, Refusal>>,
}

/// How a topic is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) partitions: u32,
    /// On the fewest brokers that any partition is kept on.
    pub(crate) replicas: u32,
}

impl Request for Metadata<'_> {
    const KEY: i16 = 3;
    const VERSION: i16 = 4;
    const DOING: &'static str = "describe its topics";
    type Answer = Cluster;

    fn write(&self, writer: &mut Writer) {
        writer.array(self.0.iter(), |writer, name| writer.text(name));
        let makes_what_is_missing = false;
        writer.bool(makes_what_is_missing);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Cluster, Malformed> {
        let _throttled = reader.i32()?;
        let brokers = reader.array(|reader| {
            let (id, host, port) = (reader.i32()?, reader.text()?, reader.i32()?);
            let _rack = reader.optional_text()?;
            let address = if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            };
            Ok((id, address))
        })?;
        let _cluster_id = reader.optional_text()?;
        let controller = reader.i32()?;
        let topics = reader.array(|reader| {
            let (error, name) = (reader.i16()?, reader.text()?.to_owned());
            let _internal = reader.i8()?;
            let partitions = reader.array(|reader| {
                let (_error, _index, _leader) = (reader.i16()?, reader.i32()?, reader.i32()?);
                let replicas = reader.array(Reader::i32)?;
                let _in_sync = reader.array(Reader::i32)?;
                Ok(count(replicas.len()))
            })?;
            let layout = Layout {
                partitions: count(partitions.len()),
                replicas: partitions.into_iter().min().unwrap_or_default(),
            };
            Ok((name, Refusal::of(error, None).map_or(Ok(layout), Err)))
        })?;
        Ok(Cluster {
            controller: brokers
                .into_iter()
                .find_map(|(id, address)| (id == controller).then_some(address)),
            topics: topics.into_iter().collect(),
        })
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What became of each topic that a request was about.
pub(crate) type Results = BTreeMap<String, Result<(), Refusal>>;

/// Makes topics.
#[derive(Debug)]
pub(crate) struct CreateTopics<'a> {
    pub(crate) topics: &'a [&'a TopicSpec],
    pub(crate) timeout_ms: i32,
}

impl Request for CreateTopics<'_> {
    const KEY: i16 = 19;
    const VERSION: i16 = 4;
    const DOING: &'static str = "make topics";
    type Answer = Results;

    fn write(&self, writer: &mut Writer) {
        writer.array(self.topics.iter(), |writer, topic| {
            writer.text(&topic.name);
            writer.i32(i32::try_from(topic.partitions).unwrap_or(i32::MAX));
            writer.i16(i16::try_from(topic.replicas).unwrap_or(i16::MAX));
            let placed_by_hand: [(); 0] = [];
            writer.array(placed_by_hand.into_iter(), |_, ()| {});
            writer.array(topic.config.iter(), |writer, (name, value)| {
                writer.text(name);
                writer.text(value);
            });
        });
        writer.i32(self.timeout_ms);
        let only_checks = false;
        writer.bool(only_checks);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Results, Malformed> {
        let _throttled = reader.i32()?;
        let results = reader.array(name_code_message)?;
        Ok(results.into_iter().collect())
    }
}

/// Gives topics more partitions.
#[derive(Debug)]
pub(crate) struct CreatePartitions<'a> {
    /// How many each is to have in all.
    pub(crate) topics: &'a [(&'a str, u32)],
    pub(crate) timeout_ms: i32,
}

impl Request for CreatePartitions<'_> {
    const KEY: i16 = 37;
    const VERSION: i16 = 1;
    const DOING: &'static str = "add partitions";
    type Answer = Results;

    fn write(&self, writer: &mut Writer) {
        writer.array(self.topics.iter(), |writer, (name, partitions)| {
            writer.text(name);
            writer.i32(i32::try_from(*partitions).unwrap_or(i32::MAX));
            writer.no_array();
        });
        writer.i32(self.timeout_ms);
        let only_checks = false;
        writer.bool(only_checks);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Results, Malformed> {
        let _throttled = reader.i32()?;
        let results = reader.array(name_code_message)?;
        Ok(results.into_iter().collect())
    }
}

fn name_code_message(reader: &mut Reader<'_>) -> Result<(String, Result<(), Refusal>), Malformed> {
    let name = reader.text()?.to_owned();
    let (error, message) = (reader.i16()?, reader.optional_text()?);
    Ok((name, Refusal::of(error, message).map_or(Ok(()), Err)))
}

/// What is in force in the configuration of topics, of the keys that each is asked for.
#[derive(Debug)]
pub(crate) struct DescribeConfigs<'a>(pub(crate) &'a [&'a TopicSpec]);

/// A topic's configuration by key. A value that the broker keeps to itself is absent.
pub(crate) type Config = BTreeMap<String, String>;

/// The configuration of each topic that was asked about.
pub(crate) type Configs = BTreeMap<String, Result<Config, Refusal>>;

impl Request for DescribeConfigs<'_> {
    const KEY: i16 = 32;
    const VERSION: i16 = 1;
    const DOING: &'static str = "describe the configuration of topics";
    type Answer = Configs;

    fn write(&self, writer: &mut Writer) {
        writer.array(self.0.iter(), |writer, topic| {
            writer.i8(TOPIC);
            writer.text(&topic.name);
            writer.array(topic.config.keys(), |writer, key| writer.text(key));
        });
        let with_synonyms = false;
        writer.bool(with_synonyms);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttled = reader.i32()?;
        let results = reader.array(|reader| {
            let (error, message) = (reader.i16()?, reader.optional_text()?);
            let (_kind, name) = (reader.i8()?, reader.text()?.to_owned());
            let config = reader.array(|reader| {
                let (key, value) = (reader.text()?, reader.optional_text()?);
                let (_read_only, _source, _sensitive) = (reader.i8()?, reader.i8()?, reader.i8()?);
                reader.array(|reader| {
                    let (_key, _value) = (reader.text()?, reader.optional_text()?);
                    reader.i8()
                })?;
                Ok(value.map(|value| (key.to_owned(), value.to_owned())))
            })?;
            let config = config.into_iter().flatten().collect();
            Ok((name, Refusal::of(error, message).map_or(Ok(config), Err)))
        })?;
        Ok(results.into_iter().collect())
    }
}

/// Sets values in the configuration of topics, and leaves all others as they are.
#[derive(Debug)]
pub(crate) struct AlterConfigs<'a>(pub(crate) &'a [(&'a str, Config)]);

impl Request for AlterConfigs<'_> {
    const KEY: i16 = 44;
    const VERSION: i16 = 0;
    const DOING: &'static str = "change the configuration of topics";
    type Answer = Results;

    fn write(&self, writer: &mut Writer) {
        writer.array(self.0.iter(), |writer, (name, config)| {
            writer.i8(TOPIC);
            writer.text(name);
            writer.array(config.iter(), |writer, (key, value)| {
                writer.text(key);
                writer.i8(SET);
                writer.text(value);
            });
        });
        let only_checks = false;
        writer.bool(only_checks);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Results, Malformed> {
        let _throttled = reader.i32()?;
        let results = reader.array(|reader| {
            let (error, message) = (reader.i16()?, reader.optional_text()?);
            let (_kind, name) = (reader.i8()?, reader.text()?.to_owned());
            Ok((name, Refusal::of(error, message).map_or(Ok(()), Err)))
        })?;
        Ok(results.into_iter().collect())
    }
}

/// Deletes topics with all that is in them.
#[derive(Debug)]
pub(crate) struct DeleteTopics<'a> {
    pub(crate) topics: &'a [&'a str],
    pub(crate) timeout_ms: i32,
}

impl Request for DeleteTopics<'_> {
    const KEY: i16 = 20;
    const VERSION: i16 = 1;
    const DOING: &'static str = "delete topics";
    type Answer = Results;

    fn write(&self, writer: &mut Writer) {
        writer.array(self.topics.iter(), |writer, name| writer.text(name));
        writer.i32(self.timeout_ms);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Results, Malformed> {
        let _throttled = reader.i32()?;
        let results = reader.array(|reader| {
            let (name, error) = (reader.text()?.to_owned(), reader.i16()?);
            Ok((name, Refusal::of(error, None).map_or(Ok(()), Err)))
        })?;
        Ok(results.into_iter().collect())
    }
}
