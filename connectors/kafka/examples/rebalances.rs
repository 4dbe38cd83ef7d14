//! Members of a group come and go under load, as often as one likes.
//!
//! ```sh
//! cargo run --release -p tidelock-kafka --example rebalances -- 500 [SEED]
//! ```
//! Starts a Kafka of its own, and says at the end how many records were lost
//! or read twice, and how long a partition with data went unserved.

#![allow(clippy::disallowed_methods, reason = "a producer paces itself on a thread of its own")]

#[path = "../tests/broker/stress.rs"]
mod stress;

#[tokio::main(worker_threads = 8)]
async fn main() -> std::process::ExitCode {
    let mut numbers = std::env::args().skip(1).map_while(|text| text.parse::<u64>().ok());
    let (rounds, seed) = (numbers.next().unwrap_or(500), numbers.next().unwrap_or(1));
    let Some(kafka) = tidelock_services::kafka() else { return 2.into() };
    let topic = tidelock_services::unique("rebalances");
    if let Err(error) = kafka.client().create_topic(&topic, stress::TOPIC_PARTITIONS as i32, &[]) {
        eprintln!("{error}");
        return 2.into();
    }
    let outcome = stress::rebalances(&kafka.client().config(), &topic, rounds as usize, seed).await;
    println!("{outcome}");
    u8::from(outcome.lost + outcome.doubled > 0 || outcome.stall.as_secs() >= 5).into()
}
