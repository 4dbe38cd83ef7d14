//! What happens before the first record: everything is tried once.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tidelock_connector::{Error, ErrorKind, Guarantee, Home, Result, Stream};
use tidelock_store::{Store, StoreConfig};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::State;
use super::builder::Parts;
use crate::checkpoint::backoff::Backoff;
use crate::checkpoint::store::{MemoryRecord, RecordStore, StoredRecord};

/// How long transient errors are retried before they end the start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries until it works, an error is not transient, or patience is at its end.
/// `None` when the run was stopped meanwhile.
pub(super) async fn patiently<T, F: Future<Output = Result<T>>>(
    stop: &CancellationToken,
    attempt: impl Fn() -> F,
) -> Result<Option<T>> {
    let deadline = Instant::now() + PATIENCE;
    let mut backoff = Backoff::new(0).cap(Duration::from_secs(5));
    // What went wrong before an attempt that our patience cut short.
    let mut last = None;
    loop {
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            outcome = tokio::time::timeout_at(deadline, attempt()) => outcome,
        };
        let error = match outcome {
            Ok(Ok(value)) => return Ok(Some(value)),
            Ok(Err(error)) => error,
            Err(_) => last.take().unwrap_or_else(|| {
                Error::new(ErrorKind::Unavailable, "a connection did not answer")
            }),
        };
        let wait = backoff.next_wait();
        if !error.is_retryable() || Instant::now() + wait >= deadline {
            return Err(error);
        }
        metrics::counter!("tidelock_retries_total", "operation" => "start").increment(1);
        tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "not ready yet, trying again");
        last = Some(error);
        tokio::time::sleep(wait).await;
    }
}

/// The streams that arrive at the sinks: every transform is applied to a batch
/// without rows.
pub(super) fn transformed_streams(parts: &Parts) -> Result<Vec<Arc<Stream>>> {
    let mut streams = parts.source.streams();
    if parts.transforms.is_empty() {
        return Ok(streams);
    }
    let mut transforms: Vec<_> = parts.transforms.iter().map(|make| make()).collect();
    for stream in &mut streams {
        let mut records = RecordBatch::new_empty(Arc::clone(&stream.schema));
        for (index, transform) in transforms.iter_mut().enumerate() {
            records = transform.apply(records).map_err(|error| {
                Error::config(format!(
                    "transform {} does not fit stream {:?}",
                    index + 1,
                    stream.name
                ))
                .source(error)
            })?;
        }
        *stream = Stream::new(Arc::clone(&stream.name), records.schema());
    }
    Ok(streams)
}

/// Opens the record, and tells whether its store can keep the promise.
pub(super) async fn open_record(parts: &Parts) -> Result<(Arc<dyn RecordStore>, String)> {
    if let Some(simulated) = &parts.simulated {
        return Ok((Arc::clone(&simulated.record), "simulated".to_owned()));
    }
    let config = match &parts.state {
        State::None => {
            return Ok((Arc::new(MemoryRecord::default()), "none (at least once)".to_owned()));
        }
        State::Store(config) => config.clone(),
        State::WithSink => home_of_the_only_sink(parts)?,
    };
    let store = Store::open(&config)?;
    store.check().await?;
    let promised =
        parts.sinks.iter().any(|(_, sink)| matches!(sink.guarantee(), Guarantee::ExactlyOnce(_)));
    let folder = format!("_tidelock/{}", parts.name);
    if promised && !store.probe_conditional_writes(&folder).await? {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the store ignores conditional writes, so exactly once cannot be kept there; put the \
             record into another store (`[checkpoint] state`), or choose \
             `guarantee = \"at_least_once\"`",
        )
        .object(store.url()));
    }
    let line = format!("{}/{folder}", store.url().trim_end_matches('/'));
    Ok((Arc::new(StoredRecord::new(store, &parts.name)), line))
}

fn home_of_the_only_sink(parts: &Parts) -> Result<StoreConfig> {
    let homes: Vec<Home> = parts.sinks.iter().filter_map(|(_, sink)| sink.home()).collect();
    match homes.as_slice() {
        [home] if parts.sinks.len() == 1 => Ok(StoreConfig {
            url: home.url.clone(),
            storage: serde_json::from_value(home.storage.clone())
                .map_err(|e| Error::config("the sink's storage options").source(e))?,
        }),
        _ => Err(Error::config(
            "with several sinks, or without a file sink, say where the pipeline's record is to \
             live: `[checkpoint] state = \"…\"`",
        )),
    }
}
