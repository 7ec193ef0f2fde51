//! A schedule's identity lasts.

use super::samples::sample;

#[test]
fn a_schedule_is_the_same_at_each_start_and_another_under_another_name() {
    let first = sample("platform.yaml").schedules;
    let second = sample("platform.yaml").schedules;
    for (one, again) in first.iter().zip(&second) {
        assert_eq!(one.stable_uid(), again.stable_uid());
    }
    assert_ne!(first[0].stable_uid(), first[1].stable_uid());

    // Written down in databases: it must never change.
    assert_eq!(
        first[0].stable_uid().to_string(),
        "8e2529df-375b-5618-8a10-9fd908f779bd"
    );

    let mut elsewhere = first[0].clone();
    elsewhere.metadata.namespace = Some("default".to_owned());
    assert_eq!(elsewhere.stable_uid(), first[0].stable_uid());
    elsewhere.metadata.namespace = Some("other".to_owned());
    assert_ne!(elsewhere.stable_uid(), first[0].stable_uid());
}

#[test]
fn the_uid_that_a_cluster_gave_is_kept() {
    let mut schedule = sample("platform.yaml").schedules.remove(0);
    schedule.metadata.uid = Some("0b6c7a44-9a5e-4f0e-8f4e-3f1f6f6a1c11".to_owned());
    assert_eq!(
        schedule.stable_uid().to_string(),
        "0b6c7a44-9a5e-4f0e-8f4e-3f1f6f6a1c11"
    );
}
