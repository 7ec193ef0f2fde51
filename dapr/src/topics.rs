//! What topics are called on the broker.
//!
//! Platforms that share a broker each have a prefix, so that neither reads the other's events. Only the broker's names
//! have it: routes, metrics, logs and dead letters in the database are of one platform anyway.

use std::fmt;
use std::str::FromStr;

use todo_events::Topic;

/// What the names of a platform's topics begin with; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPrefix(String);

/// Why a text is not a [`TopicPrefix`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write at most {} letters, digits, hyphens, underscores and dots, such as home-",
    TopicPrefix::LONGEST
)]
pub struct TopicPrefixError;

impl TopicPrefix {
    /// The longest prefix, in bytes: Kafka's names have at most 249.
    pub const LONGEST: usize = 128;

    /// The topic's name on the broker.
    pub fn topic(&self, topic: Topic) -> String {
        format!("{self}{topic}")
    }

    /// The name of the topic that keeps what could not be delivered to this consumer.
    pub fn dead_letters(&self, consumer: &str) -> String {
        format!("{self}{consumer}-dead-letters")
    }
}

impl FromStr for TopicPrefix {
    type Err = TopicPrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if text.len() > Self::LONGEST || !text.bytes().all(is_plain) {
            return Err(TopicPrefixError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TopicPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_broker_begin_with_the_prefix() {
        let prefix: TopicPrefix = "home-".parse().expect("a prefix");
        assert_eq!(prefix.topic(Topic::TaskEvents), "home-task-events");
        assert_eq!(prefix.dead_letters("audit"), "home-audit-dead-letters");
        let none = TopicPrefix::default();
        assert_eq!(none, "".parse().expect("none"));
        assert_eq!(none.topic(Topic::Reminders), "reminders");
        assert_eq!(none.dead_letters("audit"), "audit-dead-letters");
    }

    #[test]
    fn what_no_broker_takes_in_a_name_is_refused() {
        for wrong in ["a b", "a/b", "ä", &"x".repeat(129)] {
            assert_eq!(wrong.parse::<TopicPrefix>(), Err(TopicPrefixError), "{wrong}");
        }
    }
}
