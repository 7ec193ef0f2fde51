//! Dead letters: listed, tried again, in order.

use std::sync::Arc;

use todo_events::dead_letters::{self, Page, Replayed, Selector};
use todo_events::host;
use todo_events::{Consumer, Error};

use crate::support::{
    Fault, Recorder, assert_exactly_once_in_order, database, delivered, history, new_event, recorded, retry,
};

fn registry(recorder: &Arc<Recorder>) -> [Arc<dyn Consumer>; 1] {
    [Arc::clone(recorder) as Arc<dyn Consumer>]
}

#[tokio::test]
async fn a_replay_applies_what_waited_in_its_order() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(2, 4);
    recorder.fail_on(written[2].id, Fault::Permanent, u32::MAX);
    host::apply(&db.pool, &*recorder, &delivered(&written), &retry())
        .await
        .unwrap();
    recorder.heal();
    let replayed = dead_letters::replay(&db.pool, &registry(&recorder), &Selector::default())
        .await
        .unwrap();
    assert_eq!(replayed, Replayed { applied: 3, failed: 0 });
    assert_eq!(dead_letters::count(&db.pool).await.unwrap(), 0);
    assert_exactly_once_in_order(&db.pool, "recorder", &written).await;
}

#[tokio::test]
async fn a_replay_stops_a_task_at_what_fails_again_and_goes_on_with_the_next() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(2, 4);
    let [first_poison, second_poison, other] = [&written[0], &written[4], &written[1]];
    for poison in [first_poison, second_poison, other] {
        recorder.fail_on(poison.id, Fault::Permanent, u32::MAX);
    }
    host::apply(&db.pool, &*recorder, &delivered(&written), &retry())
        .await
        .unwrap();
    recorder.heal();
    recorder.fail_on(second_poison.id, Fault::Failed, u32::MAX);
    let replayed = dead_letters::replay(&db.pool, &registry(&recorder), &Selector::default())
        .await
        .unwrap();
    assert_eq!(replayed, Replayed { applied: 6, failed: 1 });

    let left = dead_letters::list(&db.pool, &Selector::default(), Page { after: 0, limit: 10 })
        .await
        .unwrap();
    assert_eq!(left.len(), 2);
    assert_eq!(
        (left[0].event_id, left[0].parked_behind, left[0].attempts),
        (second_poison.id, None, 1)
    );
    assert_eq!(left[0].error, "perhaps poison");
    assert_eq!(
        (left[1].version, left[1].parked_behind, left[1].attempts),
        (4, Some(second_poison.id), 0)
    );

    // Selecting the one that waits does not let it jump the queue.
    let selector = Selector {
        event_id: Some(left[1].event_id),
        ..Selector::default()
    };
    recorder.heal();
    let replayed = dead_letters::replay(&db.pool, &registry(&recorder), &selector)
        .await
        .unwrap();
    assert_eq!(replayed, Replayed { applied: 2, failed: 0 });
    assert_exactly_once_in_order(&db.pool, "recorder", &written).await;
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(3, 2);
    for event in &written[..3] {
        recorder.fail_on(event.id, Fault::Permanent, u32::MAX);
    }
    host::apply(&db.pool, &*recorder, &delivered(&written), &retry())
        .await
        .unwrap();
    let all = dead_letters::list(&db.pool, &Selector::default(), Page { after: 0, limit: 100 })
        .await
        .unwrap();
    assert_eq!(all.len(), 6);
    let first = dead_letters::list(&db.pool, &Selector::default(), Page { after: 0, limit: 4 })
        .await
        .unwrap();
    let after = first[3].arrival;
    let second = dead_letters::list(&db.pool, &Selector::default(), Page { after, limit: 4 })
        .await
        .unwrap();
    assert_eq!([first, second].concat(), all);
    let subject = Selector {
        subject: Some(written[1].subject),
        ..Selector::default()
    };
    let of_subject = dead_letters::list(&db.pool, &subject, Page { after: 0, limit: 100 })
        .await
        .unwrap();
    assert_eq!(
        of_subject.iter().map(|letter| letter.version).collect::<Vec<_>>(),
        [1, 2]
    );
    let nobody = Selector {
        consumer: Some("nobody".to_owned()),
        ..Selector::default()
    };
    assert!(
        dead_letters::list(&db.pool, &nobody, Page { after: 0, limit: 100 })
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_replay_names_the_consumer_that_it_lacks_and_touches_nothing() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(1, 1);
    recorder.fail_on(written[0].id, Fault::Permanent, 1);
    host::apply(&db.pool, &*recorder, &delivered(&written), &retry())
        .await
        .unwrap();
    let missing = dead_letters::replay(&db.pool, &[], &Selector::default()).await;
    assert!(matches!(missing, Err(Error::UnknownConsumer(name)) if name == "recorder"));
    assert_eq!(dead_letters::count(&db.pool).await.unwrap(), 1);
}

#[tokio::test]
async fn a_transient_failure_interrupts_a_replay_and_blames_no_event() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    let written = history(1, 1);
    recorder.fail_on(written[0].id, Fault::Permanent, 1);
    host::apply(&db.pool, &*recorder, &delivered(&written), &retry())
        .await
        .unwrap();
    recorder.fail_on(written[0].id, Fault::Transient, 1);
    let interrupted = dead_letters::replay(&db.pool, &registry(&recorder), &Selector::default()).await;
    assert!(matches!(interrupted, Err(Error::Interrupted(_))));
    let left = dead_letters::list(&db.pool, &Selector::default(), Page { after: 0, limit: 10 })
        .await
        .unwrap();
    assert_eq!((left.len(), left[0].attempts), (1, 1));
}

/// The last dead letter of a task is taken away while a new event of the task arrives: the event must
/// neither be parked behind nothing nor overtake.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_arrives_during_a_replay_is_never_left_behind() {
    let db = database().await;
    let recorder = Recorder::new("recorder");
    for round in 0..20 {
        let written = history(1, 2);
        recorder.fail_on(written[0].id, Fault::Permanent, 1);
        host::apply(&db.pool, &*recorder, &delivered(&written), &retry())
            .await
            .unwrap();
        let later = [new_event(written[0].subject, 3), new_event(written[0].subject, 4)];
        let live = tokio::spawn({
            let (pool, recorder, events) = (db.pool.clone(), recorder.clone(), delivered(&later));
            async move {
                for event in events {
                    host::apply(&pool, &*recorder, &[event], &retry()).await.unwrap();
                }
            }
        });
        let registry = registry(&recorder);
        dead_letters::replay(&db.pool, &registry, &Selector::default())
            .await
            .unwrap();
        live.await.unwrap();
        assert_eq!(dead_letters::count(&db.pool).await.unwrap(), 0, "round {round}");
        let versions: Vec<_> = recorded(&db.pool, "recorder")
            .await
            .into_iter()
            .filter(|&(_, subject, _)| subject == written[0].subject)
            .map(|(.., version)| version)
            .collect();
        assert_eq!(versions, [1, 2, 3, 4], "round {round}");
    }
}
