//! The contracts of the connector API, as suites that every connector runs.
//!
//! Call them in a test of your own; they panic and say which part of the
//! contract does not hold. Wrappers run them too.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, Mutex};
//! use tidelock_connector::testing::{MemorySink, MemorySource, conformance};
//!
//! let source = MemorySource::new().topic("t", 2);
//! source.log().fill("t", 0, 40);
//! source.log().fill("t", 1, 40);
//! conformance::source(async || Arc::new(source.clone()) as _).await;
//!
//! let places = Mutex::new(BTreeMap::new());
//! let at = |place: &str| -> MemorySink {
//!     places.lock().unwrap().entry(place.to_owned()).or_insert_with(MemorySink::new).clone()
//! };
//! conformance::sink(
//!     async |place: &str| Arc::new(at(place)) as _,
//!     async |place: &str| at(place).files().rows(),
//! )
//! .await;
//! # });
//! ```
//!
//! Retryable errors are answered as the runtime answers them: `next`, `seek`
//! and every call of a committer are made again; after a failed `write` or
//! `prepare` the writer is discarded and another incarnation starts over. After
//! some hundreds of errors in a row a suite gives up.

mod committer;
mod handover;
mod reading;
mod sink;
mod source;
mod writing;

pub use committer::committer;
pub use sink::{sink, sink_within};
pub use source::{source, source_within};

use std::time::Duration;

use crate::{Error, Result};

/// How long the suites wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Errors in a row after which a suite gives up.
const MOST_ERRORS: usize = 300;

/// Goes on after a retryable error, gives up after any other or too many.
async fn forgive(errors: &mut usize, what: &str, error: Error) {
    *errors += 1;
    assert!(error.is_retryable(), "{what} failed: {error}");
    assert!(*errors < MOST_ERRORS, "{what} fails again and again: {error}");
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Calls until there is no retryable error; says whether there was one.
async fn insist<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T>) -> (T, bool) {
    let mut errors = 0;
    loop {
        match call().await {
            Ok(done) => return (done, errors > 0),
            Err(error) => forgive(&mut errors, what, error).await,
        }
    }
}
