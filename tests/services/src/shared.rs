//! One of each server per test process, started when the first test asks.

use std::fmt::Display;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tidelock_connector::{ErrorKind, Result};

use crate::{Kafka, S3, S3Kind, Toxiproxy};

static SKIPPED: AtomicU64 = AtomicU64::new(0);

/// The Kafka that all tests of this process share.
///
/// `None` means that the test has to return: it was counted as skipped.
///
/// # Panics
/// When Kafka could be had and did not start, and instead of skipping when
/// `TIDELOCK_REQUIRE_SERVICES=1`.
pub fn kafka() -> Option<&'static Kafka> {
    static KAFKA: OnceLock<Result<Kafka>> = OnceLock::new();
    judge(KAFKA.get_or_init(Kafka::start_private).as_ref())
}

/// The S3 server of a kind that all tests of this process share.
///
/// `None` means that the test has to return: it was counted as skipped.
///
/// # Panics
/// As for [`kafka`].
pub fn s3(kind: S3Kind) -> Option<&'static S3> {
    static MINIO: OnceLock<Result<S3>> = OnceLock::new();
    static VERSITYGW: OnceLock<Result<S3>> = OnceLock::new();
    let server = match kind {
        S3Kind::Minio => &MINIO,
        S3Kind::Versitygw => &VERSITYGW,
    };
    judge(server.get_or_init(|| S3::start_private(kind)).as_ref())
}

/// The MinIO that all tests of this process share; see [`s3`].
///
/// # Panics
/// As for [`kafka`].
pub fn minio() -> Option<&'static S3> {
    s3(S3Kind::Minio)
}

/// The versitygw that all tests of this process share; see [`s3`].
///
/// # Panics
/// As for [`kafka`].
pub fn versitygw() -> Option<&'static S3> {
    s3(S3Kind::Versitygw)
}

/// The Toxiproxy that all tests of this process share.
///
/// `None` means that the test has to return: it was counted as skipped.
///
/// # Panics
/// As for [`kafka`].
pub fn toxiproxy() -> Option<&'static Toxiproxy> {
    static TOXIPROXY: OnceLock<Result<Toxiproxy>> = OnceLock::new();
    judge(TOXIPROXY.get_or_init(Toxiproxy::start_private).as_ref())
}

/// The server that a test started for itself, or the test is skipped:
/// `let Some(mut kafka) = or_skip(Kafka::start_private()) else { return };`
///
/// # Panics
/// As for [`kafka`].
pub fn or_skip<T>(started: Result<T>) -> Option<T> {
    judge(started)
}

/// How many times a test of this process was skipped for want of a server.
pub fn skipped() -> u64 {
    SKIPPED.load(Ordering::Relaxed)
}

fn judge<T>(started: std::result::Result<T, impl AsError>) -> Option<T> {
    match started {
        Ok(server) => Some(server),
        Err(error) => match verdict(error.as_error(), required()) {
            Verdict::Skip => {
                skip(&error.as_error());
                None
            }
            // A test has to fail here, and nothing else can make it.
            Verdict::Fail => panic!("a service is needed: {}", error.as_error()),
        },
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Skip,
    Fail,
}

/// A server that could be had and did not start is a failure wherever we are:
/// skipping would hide it.
fn verdict(error: &tidelock_connector::Error, required: bool) -> Verdict {
    match error.kind() {
        ErrorKind::Unsupported if !required => Verdict::Skip,
        _ => Verdict::Fail,
    }
}

fn required() -> bool {
    std::env::var("TIDELOCK_REQUIRE_SERVICES").is_ok_and(|value| value == "1")
}

/// Says so on standard error itself, which the test harness does not capture.
/// The line carries the count so far: the last one is the total.
fn skip(reason: &dyn Display) {
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // A test that cannot say so still has to be skipped.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test} ({reason}); {count} skipped so far");
}

/// A borrowed or an owned error.
trait AsError {
    fn as_error(&self) -> &tidelock_connector::Error;
}

impl AsError for tidelock_connector::Error {
    fn as_error(&self) -> &tidelock_connector::Error {
        self
    }
}

impl AsError for &tidelock_connector::Error {
    fn as_error(&self) -> &tidelock_connector::Error {
        self
    }
}

#[cfg(test)]
mod tests {
    use tidelock_connector::Error;

    use super::*;

    #[test]
    fn only_what_cannot_be_had_is_skipped_and_only_where_it_may_be() {
        let missing = Error::new(ErrorKind::Unsupported, "no Docker, no Java");
        let broken = Error::new(ErrorKind::Other, "Kafka ended with status 1");
        assert_eq!(verdict(&missing, false), Verdict::Skip);
        assert_eq!(verdict(&missing, true), Verdict::Fail);
        assert_eq!(verdict(&broken, false), Verdict::Fail);
        assert_eq!(verdict(&broken, true), Verdict::Fail);
    }
}
