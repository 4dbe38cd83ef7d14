//! The reader against a real broker.

#![allow(clippy::disallowed_methods, reason = "a producer paces itself on a thread of its own")]

mod moves;
mod stress;

use std::time::Duration;

/// The same in any length: `cargo run --release -p tidelock-kafka --example
/// rebalances -- 500`.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn twenty_rebalances_under_load_lose_double_and_forget_nothing() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = tidelock_services::unique("rebalances");
    kafka.client().create_topic(&topic, stress::TOPIC_PARTITIONS as i32, &[]).expect("a topic");
    let outcome = stress::rebalances(&kafka.client().config(), &topic, 20, 1).await;
    eprintln!("{outcome}");
    assert_eq!((outcome.lost, outcome.doubled), (0, 0), "{outcome}");
    assert!(outcome.stall < Duration::from_secs(5), "{outcome}");
}
