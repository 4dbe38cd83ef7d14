//! Starts a real Apache Kafka, real S3 servers and a faulty network, for tests
//! and for people.
//!
//! ```no_run
//! # fn a_test() -> tidelock_connector::Result<()> {
//! let Some(kafka) = tidelock_services::kafka() else { return Ok(()) };
//! let Some(s3) = tidelock_services::minio() else { return Ok(()) };
//! let topic = tidelock_services::unique("orders");
//! kafka.create_topic(&topic, 4, &[])?;
//! kafka.produce(&topic, ["one", "two"])?;
//! let bucket = s3.bucket("lake")?;
//! # Ok(())
//! # }
//! ```
//!
//! # Contract
//! * [`kafka`], [`minio`], [`versitygw`] and [`toxiproxy`] start their server
//!   once per process, when the first test asks; [`Kafka::start_private`],
//!   [`S3::start_private`] and [`Toxiproxy::start_private`] give a test one of
//!   its own, to kill, pause and restart.
//! * Servers listen on free ports of the loopback interface and keep their data
//!   in temporary folders: any number of test runs may go on at once.
//! * However the process ends, its servers are killed and their folders removed
//!   (`watch.rs` says how).
//! * Docker is used where an engine answers; else Kafka comes from Maven
//!   artifacts and runs on a Java ≥ 17, and the others are built with Go, once,
//!   into `$TIDELOCK_SERVICES_CACHE` (default `~/.cache/tidelock-services`).
//!   `TIDELOCK_SERVICES=native` passes Docker by.
//! * Where a server cannot be had, its tests are skipped, visibly; with
//!   `TIDELOCK_REQUIRE_SERVICES=1` they fail. A server that can be had and does
//!   not start is always a failure.
//!
//! The binary of this crate does the same for people: `cargo run -p
//! tidelock-services -- up`.
//!
//! Unix only: it needs `sh` and signals.

mod container;
mod http;
mod install;
mod kafka;
mod ports;
mod s3;
mod shared;
mod toxiproxy;
mod watch;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidelock_connector::Result;

pub use install::{Installed, Part, install};
pub use kafka::{Kafka, KafkaClient, Message, Sasl, TransactionalProducer};
pub use s3::{S3, S3Kind};
pub use shared::{kafka, minio, or_skip, s3, skipped, toxiproxy, versitygw};
pub use toxiproxy::{AddedToxic, Direction, Proxy, Toxic, Toxiproxy};

/// A name that nothing else has, for a topic, a bucket or a group:
/// `prefix-…`, lower case letters, digits and dashes.
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{prefix}-{now:x}-{:x}-{count:x}", std::process::id())
}

/// Starts a server on the wanted port where that is free, else on any free one.
///
/// Somebody else may take a port before the server does, which then ends at
/// once: three attempts, unless they take so long that it must be something else.
fn with_port<T>(wanted: Option<u16>, mut start: impl FnMut(u16) -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let mut attempt = 1;
    loop {
        let port = match wanted.filter(|port| attempt == 1 && ports::is_free(*port)) {
            Some(port) => port,
            None => ports::free()?,
        };
        match start(port) {
            Ok(server) => return Ok(server),
            Err(_) if attempt < 3 && begun.elapsed() < Duration::from_secs(30) => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}
