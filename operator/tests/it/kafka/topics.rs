//! Topics are made, grown and configured as asked for, and nothing that is there is lost.

use std::time::Duration;

use todo_crds::platform::SaslMechanism;
use todo_operator::kafka::{Admin, KafkaError, Settings, TopicOutcome, TopicSpec, TopicState, look_after};

use super::broker::{Broker, GUEST};

fn topic(name: &str, partitions: u32, config: &[(&str, &str)]) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions,
        replicas: 1,
        config: config
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn state(name: &str, partitions: u32, outcome: TopicOutcome) -> TopicState {
    TopicState {
        name: name.to_owned(),
        partitions: Some(partitions),
        outcome,
    }
}

async fn admin() -> Admin {
    Admin::connect(&Broker::shared().await.plain()).await.unwrap()
}

#[tokio::test]
async fn a_topic_is_made_once_and_is_then_as_asked() {
    let mut admin = admin().await;
    let week = topic(
        "made-week",
        3,
        &[("retention.ms", "604800000"), ("min.insync.replicas", "1")],
    );
    let asked = [week, topic("made-plain", 1, &[])];
    let made = admin.ensure(&asked).await.unwrap();
    let created = [
        state("made-week", 3, TopicOutcome::Created),
        state("made-plain", 1, TopicOutcome::Created),
    ];
    assert_eq!(made, created);
    let again = admin.ensure(&asked).await.unwrap();
    let settled = [
        state("made-week", 3, TopicOutcome::AsAsked),
        state("made-plain", 1, TopicOutcome::AsAsked),
    ];
    assert_eq!(again, settled);
    assert!(
        again
            .iter()
            .all(|topic| topic.outcome.is_as_asked() && !topic.outcome.is_change())
    );
}

#[tokio::test]
async fn partitions_grow_and_never_shrink() {
    let mut admin = admin().await;
    admin.ensure(&[topic("grows", 2, &[])]).await.unwrap();
    let grown = admin.ensure(&[topic("grows", 5, &[])]).await.unwrap();
    assert_eq!(grown, [state("grows", 5, TopicOutcome::Grown { from: 2, to: 5 })]);
    let kept = admin.ensure(&[topic("grows", 3, &[])]).await.unwrap();
    assert_eq!(
        kept,
        [state("grows", 5, TopicOutcome::CannotShrink { have: 5, asked: 3 })]
    );
    assert_eq!(
        admin.find(&["grows"]).await.unwrap(),
        [state("grows", 5, TopicOutcome::There)]
    );
}

#[tokio::test]
async fn a_changed_configuration_is_set_and_other_keys_stay() {
    let mut admin = admin().await;
    let first = [("retention.ms", "86400000"), ("segment.ms", "3600000")];
    admin.ensure(&[topic("changes", 1, &first)]).await.unwrap();
    let second = [("retention.ms", "172800000"), ("min.insync.replicas", "1")];
    let changed = admin.ensure(&[topic("changes", 1, &second)]).await.unwrap();
    assert_eq!(changed, [state("changes", 1, TopicOutcome::Reconfigured)]);
    let all = [
        ("retention.ms", "172800000"),
        ("min.insync.replicas", "1"),
        ("segment.ms", "3600000"),
    ];
    let settled = admin.ensure(&[topic("changes", 1, &all)]).await.unwrap();
    assert_eq!(settled, [state("changes", 1, TopicOutcome::AsAsked)]);
}

#[tokio::test]
async fn what_a_broker_has_against_one_topic_does_not_hold_up_the_others() {
    let mut admin = admin().await;
    let mut copies = topic("one-too-many-copies", 1, &[]);
    copies.replicas = 3;
    let nonsense = topic("nonsense", 1, &[("retention.ms", "for ever")]);
    let states = admin.ensure(&[copies, nonsense, topic("fine", 1, &[])]).await.unwrap();
    let TopicOutcome::Failed(refusal) = &states[0].outcome else {
        panic!("{states:?}");
    };
    assert_eq!(refusal.code, 38, "{refusal}");
    let TopicOutcome::Failed(refusal) = &states[1].outcome else {
        panic!("{states:?}");
    };
    assert!(refusal.to_string().contains("retention.ms"), "{refusal}");
    assert_eq!(states[2], state("fine", 1, TopicOutcome::Created));
    assert_eq!((states[0].partitions, states[1].partitions), (None, None));
}

#[tokio::test]
async fn replicas_that_differ_are_said_and_left() {
    let mut admin = admin().await;
    admin.ensure(&[topic("one-copy", 1, &[])]).await.unwrap();
    let mut asked = topic("one-copy", 2, &[]);
    asked.replicas = 3;
    let states = admin.ensure(&[asked]).await.unwrap();
    assert_eq!(
        states,
        [state("one-copy", 2, TopicOutcome::WrongReplicas { have: 1, asked: 3 })]
    );
}

#[tokio::test]
async fn looking_for_a_topic_does_not_make_it() {
    let mut admin = admin().await;
    for _ in 0..2 {
        let states = admin.find(&["nobody-made-this"]).await.unwrap();
        assert_eq!(states[0].outcome, TopicOutcome::NotThere);
        assert_eq!(states[0].partitions, None);
    }
}

#[tokio::test]
async fn topics_of_somebody_else_are_only_looked_at() {
    let settings = Broker::shared().await.plain();
    let asked = [topic("given", 4, &[("retention.ms", "1000000")])];
    let absent = look_after(&settings, &asked, false).await.unwrap();
    assert_eq!(absent[0].outcome, TopicOutcome::NotThere);
    look_after(&settings, &[topic("given", 2, &[])], true).await.unwrap();
    let found = look_after(&settings, &asked, false).await.unwrap();
    assert_eq!(found, [state("given", 2, TopicOutcome::There)]);
    let managed = look_after(&settings, &asked, true).await.unwrap();
    assert_eq!(managed, [state("given", 4, TopicOutcome::Grown { from: 2, to: 4 })]);
}

#[tokio::test]
async fn deleting_twice_is_deleting_once() {
    let mut admin = admin().await;
    admin
        .ensure(&[topic("goes", 1, &[]), topic("stays", 1, &[])])
        .await
        .unwrap();
    assert_eq!(admin.delete(&["goes"]).await.unwrap(), []);
    assert_eq!(admin.delete(&["goes", "never-was"]).await.unwrap(), []);
    let states = admin.find(&["goes", "stays"]).await.unwrap();
    assert_eq!(states[0].outcome, TopicOutcome::NotThere);
    assert_eq!(states[1].outcome, TopicOutcome::There);
}

#[tokio::test]
async fn a_pass_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let settings = Broker::shared().await.plain();
    for cut_ms in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89] {
        let name = format!("cut-off-{cut_ms}");
        let mut first = Admin::connect(&settings).await.unwrap();
        first.ensure(&[topic(&name, 1, &[])]).await.unwrap();
        let other = format!("cut-off-too-{cut_ms}");
        let asked = [
            topic(&name, 4, &[("retention.ms", "1000000")]),
            topic(&other, 2, &[("retention.ms", "1000000")]),
        ];
        let _cut_off = tokio::time::timeout(Duration::from_millis(cut_ms), first.ensure(&asked)).await;
        drop(first);
        // What was sent may still be under way: the next passes end where an undisturbed one would have.
        let mut next = Admin::connect(&settings).await.unwrap();
        let settled = [
            state(&name, 4, TopicOutcome::AsAsked),
            state(&other, 2, TopicOutcome::AsAsked),
        ];
        let mut states = Vec::new();
        for _ in 0..10 {
            states = next.ensure(&asked).await.unwrap();
            if states == settled {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(states, settled, "cut off after {cut_ms} ms");
    }
}

#[tokio::test]
async fn two_at_once_make_a_topic_once() {
    let settings = Broker::shared().await.plain();
    let asked = [topic("contended", 2, &[("retention.ms", "1000000")])];
    let (mut one, mut other) = (
        Admin::connect(&settings).await.unwrap(),
        Admin::connect(&settings).await.unwrap(),
    );
    let (first, second) = tokio::join!(one.ensure(&asked), other.ensure(&asked));
    for states in [first.unwrap(), second.unwrap()] {
        let outcome = &states[0].outcome;
        assert!(
            matches!(outcome, TopicOutcome::Created | TopicOutcome::AsAsked),
            "{outcome:?}"
        );
    }
    let states = one.ensure(&asked).await.unwrap();
    assert_eq!(states, [state("contended", 2, TopicOutcome::AsAsked)]);
}

#[tokio::test]
async fn a_user_without_rights_is_told_so_per_topic() {
    let broker = Broker::shared().await;
    admin().await.ensure(&[topic("not-for-guests", 1, &[])]).await.unwrap();
    let mut guest = Admin::connect(&broker.secure(SaslMechanism::ScramSha512, GUEST))
        .await
        .unwrap();
    let states = guest
        .ensure(&[topic("not-for-guests", 2, &[]), topic("not-by-guests", 1, &[])])
        .await
        .unwrap();
    for topic in &states {
        let TopicOutcome::Failed(refusal) = &topic.outcome else {
            panic!("{states:?}");
        };
        assert!(refusal.is_denied() && refusal.to_string().contains("ACLs"), "{refusal}");
    }
    let left = guest.delete(&["not-for-guests"]).await.unwrap();
    assert!(left[0].1.is_denied(), "{left:?}");
    let found = admin().await.find(&["not-for-guests", "not-by-guests"]).await.unwrap();
    assert_eq!(found[0].outcome, TopicOutcome::There);
    assert_eq!(found[1].outcome, TopicOutcome::NotThere);
}

#[tokio::test]
async fn a_broker_that_freezes_holds_nobody_up_and_is_used_again_when_it_goes_on() {
    let broker = Broker::start().await;
    let settings = Settings {
        timeout: Duration::from_secs(2),
        ..broker.plain()
    };
    let patient = broker.plain();
    let mut admin = Admin::connect(&patient).await.unwrap();
    admin.ensure(&[topic("before", 1, &[])]).await.unwrap();
    let mut hurried = Admin::connect(&settings).await.unwrap();
    broker.freeze();
    let began = std::time::Instant::now();
    let stuck = hurried.ensure(&[topic("before", 1, &[])]).await.unwrap_err();
    let unreachable = Admin::connect(&settings).await.unwrap_err();
    let waited = began.elapsed();
    broker.thaw();
    assert!(
        matches!(stuck, KafkaError::TimedOut { .. }) && stuck.is_transient(),
        "{stuck}"
    );
    assert!(matches!(unreachable, KafkaError::TimedOut { .. }), "{unreachable}");
    assert!(waited < Duration::from_secs(6), "{waited:?}");
    let mut again = Admin::connect(&patient).await.unwrap();
    let states = again.ensure(&[topic("before", 1, &[])]).await.unwrap();
    assert_eq!(states, [state("before", 1, TopicOutcome::AsAsked)]);
}
