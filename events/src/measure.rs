//! What the metrics of this crate mean, for `/metrics`.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Describes every metric of this crate to the recorder that is installed by then.
pub fn describe_metrics() {
    describe_counter!("todo_outbox_published_total", "Events that this relay has published.");
    describe_gauge!(
        "todo_outbox_oldest_age_seconds",
        Unit::Seconds,
        "Age of the oldest event beyond the cursor; 0 when there is none."
    );
    describe_gauge!(
        "todo_outbox_depth_events",
        "Events beyond the cursor; above 10,000 a little too many."
    );
    describe_histogram!(
        "todo_relay_pass_seconds",
        Unit::Seconds,
        "Duration of passes that published."
    );
    describe_counter!(
        "todo_consumer_events_total",
        "Events that a consumer has settled, by outcome."
    );
    describe_histogram!(
        "todo_consumer_event_delay_seconds",
        Unit::Seconds,
        "From the change of a task to its effect in a consumer."
    );
    describe_gauge!(
        "todo_consumer_lag_seconds",
        Unit::Seconds,
        "Age of the oldest published event that a consumer behind a broker has not settled; 0 when there is none."
    );
    describe_gauge!(
        "todo_dead_letters",
        "Events that wait in the dead letters, parked ones included."
    );
}
