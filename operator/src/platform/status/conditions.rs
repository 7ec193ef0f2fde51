//! Conditions: one per question that a person asks, each with a reason, a message that says what to do, and the
//! generation that it is about.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message, in bytes: Kubernetes allows 32 KiB, a person reads less.
const MAX_MESSAGE: usize = 1024;

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Every component is available.
    Ready,
    /// Something is on its way.
    Progressing,
    /// Something does not work.
    Degraded,
    /// The database is there.
    DatabaseReady,
    /// The schema is that of the target version.
    Migrated,
    /// The topics are as asked for.
    TopicsReady,
    /// Dapr's components are there and loaded.
    ComponentsReady,
    /// Nothing is changed because the manifest says so.
    Paused,
    /// Of a schedule: its user has used the platform.
    UserKnown,
}

impl ConditionType {
    /// The name, as in `type:`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
            Self::DatabaseReady => "DatabaseReady",
            Self::Migrated => "Migrated",
            Self::TopicsReady => "TopicsReady",
            Self::ComponentsReady => "ComponentsReady",
            Self::Paused => "Paused",
            Self::UserKnown => "UserKnown",
        }
    }

    /// The answer when all is well and nothing is on its way.
    pub(crate) const fn should_be(self) -> Answer {
        match self {
            Self::Degraded | Self::Paused | Self::Progressing => Answer::False,
            _ => Answer::True,
        }
    }
}

/// The answer to a condition's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    True,
    /// No.
    False,
    /// It cannot be told yet.
    Unknown,
}

impl Answer {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition before it is dated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub about: ConditionType,
    /// Whether it holds.
    pub answer: Answer,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in words, and what to do.
    pub message: String,
}

impl Finding {
    /// It holds.
    pub fn yes(about: ConditionType, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(about, Answer::True, reason, message.into())
    }

    /// It does not hold.
    pub fn no(about: ConditionType, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(about, Answer::False, reason, message.into())
    }

    /// It cannot be told yet.
    pub fn unknown(about: ConditionType, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(about, Answer::Unknown, reason, message.into())
    }

    fn new(about: ConditionType, answer: Answer, reason: &'static str, message: String) -> Self {
        Self {
            about,
            answer,
            reason,
            message: bounded(message),
        }
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.answer == Answer::True
    }

    /// Whether it is as it should be.
    fn is_well(&self) -> bool {
        self.answer == self.about.should_be()
    }

    /// As a condition. Its time moves only when its answer does (the API conventions of Kubernetes).
    pub fn dated(self, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let same = before
            .iter()
            .find(|condition| condition.type_ == self.about.as_str() && condition.status == self.answer.as_str());
        Condition {
            type_: self.about.as_str().to_owned(),
            status: self.answer.as_str().to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            observed_generation: generation,
            last_transition_time: same
                .map_or_else(|| Time(whole_second(now)), |same| same.last_transition_time.clone()),
        }
    }
}

/// A condition that has turned: another answer than before, the same for another reason, or a first one, unless that is
/// as it should be. That all is ready is worth telling also the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What was found.
    pub finding: Finding,
    /// Since when the answer has been so.
    pub since: Timestamp,
}

/// The findings as conditions, and those of them that have turned.
pub fn date(
    findings: Vec<Finding>,
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> (Vec<Condition>, Vec<Turn>) {
    let mut turns = vec![];
    let conditions = findings.into_iter().map(|finding| {
        let condition = finding.clone().dated(before, generation, now);
        let then = before.iter().find(|then| then.type_ == condition.type_);
        let is_news = match then {
            Some(then) => then.status != condition.status || then.reason != condition.reason,
            None => !finding.is_well() || finding.about == ConditionType::Ready,
        };
        if is_news {
            let since = condition.last_transition_time.0;
            turns.push(Turn { finding, since });
        }
        condition
    });
    (conditions.collect(), turns)
}

/// What is stored has whole seconds: a fraction would differ from what is read back.
fn whole_second(instant: Timestamp) -> Timestamp {
    Timestamp::from_second(instant.as_second()).unwrap_or(instant)
}

fn bounded(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE - '…'.len_utf8()));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_time_moves_only_when_the_answer_does() {
        let waiting = Finding::no(ConditionType::Ready, "Waiting", "api 0/1").dated(&[], Some(1), at(10));
        let still = Finding::no(ConditionType::Ready, "Waiting", "api 0/2").dated(
            std::slice::from_ref(&waiting),
            Some(2),
            at(20),
        );
        assert_eq!(still.last_transition_time, waiting.last_transition_time);
        assert_eq!(
            (still.message.as_str(), still.observed_generation),
            ("api 0/2", Some(2))
        );
        let ready =
            Finding::yes(ConditionType::Ready, "AllComponentsAvailable", "api 2/2").dated(&[still], Some(2), at(30));
        assert_eq!(ready.last_transition_time, Time(at(30)));
    }

    #[test]
    fn a_message_is_bounded_and_stays_text() {
        let long = Finding::no(ConditionType::Degraded, "Failing", "ü".repeat(MAX_MESSAGE));
        assert!(long.message.len() <= MAX_MESSAGE && long.message.ends_with('…'));
    }
}
