//! What is to be done about a topic: what is asked for against what is there. Pure.

use std::collections::BTreeMap;

use super::error::{Refusal, code};
use super::messages::{Config, Layout};

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name on the brokers.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// On how many brokers each message is kept.
    pub replicas: u32,
    /// What its configuration says, in Kafka's own keys: `retention.ms`, `min.insync.replicas`. Keys that are not here
    /// are left alone.
    pub config: BTreeMap<String, String>,
}

/// A topic as it is after a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicState {
    /// Its name on the brokers.
    pub name: String,
    /// How many partitions it has; `None` when it is not there or cannot be seen.
    pub partitions: Option<u32>,
    /// What the pass found and did.
    pub outcome: TopicOutcome,
}

/// What a pass found and did about a topic. Of several things the one that matters most to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicOutcome {
    /// It was not there, and now is as asked for.
    Created,
    /// It was as asked for.
    AsAsked,
    /// It has been given more partitions.
    Grown {
        /// How many it had.
        from: u32,
        /// How many it has.
        to: u32,
    },
    /// Its configuration has been changed.
    Reconfigured,
    /// It has more partitions than asked for. They stay: Kafka takes none away, and order and data hang on them.
    CannotShrink {
        /// How many it has.
        have: u32,
        /// How many were asked for.
        asked: u32,
    },
    /// It is kept on another number of brokers than asked for. That stays: changing it moves all its data.
    WrongReplicas {
        /// On how many it is kept.
        have: u32,
        /// On how many it should be.
        asked: u32,
    },
    /// It is there, and nobody asked what it looks like.
    There,
    /// It is not there, and the operator may not make it.
    NotThere,
    /// A broker refused.
    Failed(Refusal),
}

impl TopicOutcome {
    /// Whether the topic is as asked for now.
    pub fn is_as_asked(&self) -> bool {
        matches!(
            self,
            Self::Created | Self::AsAsked | Self::Grown { .. } | Self::Reconfigured | Self::There
        )
    }

    /// Whether somebody else made it between the look and the request to make it.
    pub(crate) fn is_made_by_another(&self) -> bool {
        matches!(self, Self::Failed(refusal) if refusal.code == code::TOPIC_ALREADY_EXISTS)
    }

    /// Whether the pass changed something at the brokers.
    pub fn is_change(&self) -> bool {
        matches!(self, Self::Created | Self::Grown { .. } | Self::Reconfigured)
    }
}

/// What is to be done about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make it.
    Create,
    /// Bring it closer to what is asked for; with nothing to do when it is there already.
    Adjust(Adjustment),
}

/// What is to be changed, and what is wrong and stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Adjustment {
    /// From how many partitions to how many.
    pub(crate) grow: Option<(u32, u32)>,
    /// Values to set, by key.
    pub(crate) set: Config,
    /// What cannot be changed.
    pub(crate) stays: Option<TopicOutcome>,
}

/// What is to be done about `asked`, of which `found` is there.
pub(crate) fn step(asked: &TopicSpec, found: Option<(Layout, &Config)>) -> Step {
    let Some((layout, config)) = found else {
        return Step::Create;
    };
    let set = asked
        .config
        .iter()
        .filter(|(key, value)| config.get(*key) != Some(*value));
    let stays = if layout.partitions > asked.partitions {
        Some(TopicOutcome::CannotShrink {
            have: layout.partitions,
            asked: asked.partitions,
        })
    } else if layout.replicas != asked.replicas {
        Some(TopicOutcome::WrongReplicas {
            have: layout.replicas,
            asked: asked.replicas,
        })
    } else {
        None
    };
    Step::Adjust(Adjustment {
        grow: (layout.partitions < asked.partitions).then_some((layout.partitions, asked.partitions)),
        set: set.map(|(key, value)| (key.clone(), value.clone())).collect(),
        stays,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(values: &[(&str, &str)]) -> Config {
        values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn asked() -> TopicSpec {
        TopicSpec {
            name: "acme-reminders".to_owned(),
            partitions: 6,
            replicas: 3,
            config: config(&[("retention.ms", "604800000"), ("min.insync.replicas", "2")]),
        }
    }

    fn adjustment(partitions: u32, replicas: u32, found: &[(&str, &str)]) -> Adjustment {
        match step(&asked(), Some((Layout { partitions, replicas }, &config(found)))) {
            Step::Adjust(adjustment) => adjustment,
            Step::Create => panic!("the topic is there"),
        }
    }

    #[test]
    fn a_topic_that_is_not_there_is_made() {
        assert_eq!(step(&asked(), None), Step::Create);
    }

    #[test]
    fn nothing_is_done_to_one_that_is_as_asked_for() {
        let found = [
            ("retention.ms", "604800000"),
            ("min.insync.replicas", "2"),
            ("cleanup.policy", "compact"),
        ];
        assert_eq!(adjustment(6, 3, &found), Adjustment::default());
    }

    #[test]
    fn only_values_that_differ_are_set() {
        let adjustment = adjustment(6, 3, &[("retention.ms", "1"), ("min.insync.replicas", "2")]);
        assert_eq!(adjustment.set, config(&[("retention.ms", "604800000")]));
        assert_eq!((adjustment.grow, adjustment.stays), (None, None));
    }

    #[test]
    fn partitions_are_added_and_never_taken_away() {
        assert_eq!(adjustment(2, 3, &[]).grow, Some((2, 6)));
        let more = adjustment(12, 3, &[]);
        assert_eq!(more.grow, None);
        assert_eq!(more.stays, Some(TopicOutcome::CannotShrink { have: 12, asked: 6 }));
    }

    #[test]
    fn a_topic_that_cannot_shrink_still_gets_its_configuration() {
        assert_eq!(adjustment(12, 3, &[]).set, asked().config);
    }

    #[test]
    fn another_number_of_replicas_is_said_and_left() {
        let adjustment = adjustment(2, 1, &[]);
        assert_eq!(
            adjustment.stays,
            Some(TopicOutcome::WrongReplicas { have: 1, asked: 3 })
        );
        assert_eq!(adjustment.grow, Some((2, 6)));
    }
}
