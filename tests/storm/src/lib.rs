//! Kills, stops and cuts off workers on real services, and counts what came of
//! it.
//!
//! # What is real
//! Everything: Apache Kafka, an S3 server, the `tidelock` binary in several
//! processes, SIGKILL and SIGSTOP. The binary is built with the feature
//! `testing`, which lets it say what phase its checkpoint is in, so that kills
//! can be aimed; the code of the protocol is the same.
//!
//! # What is judged
//! The files, read with nothing of Tidelock's, against the log, read by a plain
//! consumer of committed transactions, and that against what the producer was
//! told. Messages of aborted transactions must not appear.
//!
//! ```sh
//! cargo run --release -p tidelock-storm -- --kills 200 --store minio
//! cargo run --release -p tidelock-storm -- --kills 60 --store versitygw --proxy
//! cargo run --release -p tidelock-storm -- --kills 60 --no-fencing
//! cargo run --release -p tidelock-storm -- --crowd
//! ```
//! A seed repeats the choices, not the timing: it is a storm of real processes.

mod crew;
mod crowd;
mod http;
mod judge;
mod metrics;
mod outage;
mod producer;
mod proxy;
mod rig;
mod scenario;
mod storm;
mod verify;
mod worker;

pub use crowd::{Cause, Crowd, Rebalance, Swaps, crowd};
pub use judge::{Judgement, judge};
pub use outage::{Outage, Outages, Victim, outages};
pub use producer::{Outcome, Produced, Producer};
pub use proxy::{Asked, Fault, FaultProxy, Rates};
pub use rig::{PARTITIONS, Plan, Program, Rig, SESSION_TIMEOUT};
pub use scenario::{Fate, Misfortune, suffer};
pub use storm::{Report, Weather, faults, storm};
pub use verify::Verdicts;
pub use worker::{Phase, Worker};

/// Everything here runs on threads of its own.
#[expect(clippy::disallowed_methods, reason = "no runtime's thread waits here")]
fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}
