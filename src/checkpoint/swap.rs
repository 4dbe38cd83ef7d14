//! The swap loop: the only writer of the record in a process.
//!
//! Workers hand in [`Change`]s; the loop merges those that are waiting into
//! one write. A write can be applied and reported failed, so **an error says
//! nothing**: the loop reads the record and looks for its swap numbers.
//!
//! | found | meaning |
//! |---|---|
//! | our numbers | landed |
//! | another version, older numbers | it never will: apply again |
//! | the same version | not applied yet: the same write again |
//! | another version, our entry gone | fenced |
//!
//! A worker sends a change only when it knows the outcome of the one before.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidelock_connector::{Error, ErrorKind, Incarnation, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::change::{Change, Refusal, apply};
use super::crash;
use super::mutation::{Mutation, planted};
use super::record::Record;
use super::store::{RecordStore, RecordVersion};

/// What became of a change.
#[derive(Debug)]
pub enum SwapOutcome {
    /// It is in the record; this is the record as of that write.
    Landed(Arc<Record>),
    /// It is not and never will be.
    Refused(Refusal),
    /// The store will not do it, and trying again does not help.
    Failed(Error),
}

struct Request {
    incarnation: Incarnation,
    change: Change,
    reply: oneshot::Sender<SwapOutcome>,
    since: Instant,
}

impl Request {
    fn landed(self, record: &Arc<Record>) {
        metrics::histogram!("tidelock_swap_seconds").record(self.since.elapsed());
        // A life that ended does not wait for it any more.
        let _ = self.reply.send(SwapOutcome::Landed(Arc::clone(record)));
    }
}

/// Hands changes to the swap loop of this process.
#[derive(Clone)]
pub struct Swaps {
    requests: mpsc::UnboundedSender<Request>,
    store: Arc<dyn RecordStore>,
    pipeline: Arc<str>,
}

impl Swaps {
    /// The handle and the loop, which somebody has to run.
    pub fn new(store: Arc<dyn RecordStore>, pipeline: &str, seed: u64) -> (Self, SwapLoop) {
        // Unbounded is bounded here: a worker has at most one change under way.
        let (requests, incoming) = mpsc::unbounded_channel();
        let handle = Self { requests, store: Arc::clone(&store), pipeline: pipeline.into() };
        let swap_loop = SwapLoop {
            incoming,
            store,
            pipeline: pipeline.into(),
            numbers: BTreeMap::new(),
            cached: None,
            backoff: Backoff::new(seed).cap(std::time::Duration::from_secs(5)),
        };
        (handle, swap_loop)
    }

    /// Sends a change; resolves to its outcome, whenever that is known.
    pub fn send(&self, incarnation: Incarnation, change: Change) -> oneshot::Receiver<SwapOutcome> {
        let (reply, outcome) = oneshot::channel();
        // When the loop is gone the receiver says so.
        let since = Instant::now();
        let _ = self.requests.send(Request { incarnation, change, reply, since });
        outcome
    }

    /// Reads the newest record, or an empty one when there is none.
    pub async fn read(&self) -> Result<Record> {
        match self.store.read().await? {
            Some((bytes, _)) => Record::decode(&bytes),
            None => Ok(Record::new(&self.pipeline)),
        }
    }

    /// The store behind the record.
    pub fn store(&self) -> &Arc<dyn RecordStore> {
        &self.store
    }
}

/// See the module's documentation.
pub struct SwapLoop {
    incoming: mpsc::UnboundedReceiver<Request>,
    store: Arc<dyn RecordStore>,
    pipeline: Arc<str>,
    /// The last number given to each incarnation of this process.
    numbers: BTreeMap<Incarnation, u64>,
    cached: Option<Head>,
    backoff: Backoff,
}

#[derive(Clone)]
struct Head {
    record: Arc<Record>,
    version: Option<RecordVersion>,
}

/// A write whose outcome is to be found out.
struct Attempt {
    record: Arc<Record>,
    bytes: Bytes,
    base: Head,
    numbers: Vec<(Incarnation, u64)>,
}

enum Resolved {
    Landed(Head),
    /// It never will; here is the newest record.
    Superseded(Head),
}

impl SwapLoop {
    /// Runs until every handle is gone.
    pub async fn run(mut self) {
        while let Some(first) = self.incoming.recv().await {
            let mut waiting = vec![first];
            while let Ok(more) = self.incoming.try_recv() {
                waiting.push(more);
            }
            metrics::histogram!("tidelock_swap_merged").record(waiting.len() as f64);
            self.swap(waiting).await;
        }
    }

    /// Sends what waits while the outcome of the write before is unknown: a
    /// planted bug.
    async fn swap_waiting(&mut self) {
        let mut waiting = Vec::new();
        while let Ok(more) = self.incoming.try_recv() {
            waiting.push(more);
        }
        self.swap(waiting).await;
    }

    /// Brings every request to its outcome.
    async fn swap(&mut self, mut waiting: Vec<Request>) {
        let mut fresh = false;
        while !waiting.is_empty() {
            let head = match self.head(fresh).await {
                Ok(head) => head,
                Err(error) => return fail_all(waiting, &error),
            };
            let (attempt, accepted, refused) = match self.apply_all(&head, waiting) {
                Ok(applied) => applied,
                Err((error, requests)) => return fail_all(requests, &error),
            };
            if !refused.is_empty() && !fresh {
                // The cached record may be old: refuse only by the newest one.
                waiting = accepted;
                waiting.extend(refused.into_iter().map(|(request, _)| request));
                fresh = true;
                continue;
            }
            for (request, refusal) in refused {
                let _ = request.reply.send(SwapOutcome::Refused(refusal));
            }
            let Some(attempt) = attempt else { return };
            match self.write(attempt).await {
                Ok(Resolved::Landed(head)) => {
                    for request in accepted {
                        request.landed(&head.record);
                    }
                    self.cached = Some(head);
                    return;
                }
                Ok(Resolved::Superseded(head)) => {
                    metrics::counter!("tidelock_swap_conflicts_total").increment(1);
                    self.cached = Some(head);
                    waiting = accepted;
                    // What was just read is the newest record that we know.
                    fresh = false;
                }
                Err(error) => return fail_all(accepted, &error),
            }
        }
    }

    /// The newest record that we know, read again when `fresh` is asked for.
    async fn head(&mut self, fresh: bool) -> Result<Head> {
        if !fresh && let Some(head) = &self.cached {
            return Ok(head.clone());
        }
        let head = self.read().await?;
        self.cached = Some(head.clone());
        Ok(head)
    }

    /// Reads until the store answers; transient errors are waited out.
    async fn read(&mut self) -> Result<Head> {
        loop {
            match self.store.read().await {
                Ok(Some((bytes, version))) => {
                    self.backoff.reset();
                    let record = Arc::new(Record::decode(&bytes)?);
                    return Ok(Head { record, version: Some(version) });
                }
                Ok(None) => {
                    self.backoff.reset();
                    let record = Arc::new(Record::new(&self.pipeline));
                    return Ok(Head { record, version: None });
                }
                Err(error) if error.is_retryable() => self.note("read", &error).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn note(&mut self, what: &'static str, error: &Error) {
        metrics::counter!("tidelock_retries_total", "operation" => what).increment(1);
        tracing::warn!(%error, attempt = self.backoff.attempts() + 1, "{what} of the record failed, trying again");
        self.backoff.wait().await;
    }

    /// Applies every request to a copy of `head`; refused ones are left out.
    #[expect(clippy::type_complexity, reason = "used once, right above")]
    fn apply_all(
        &mut self,
        head: &Head,
        requests: Vec<Request>,
    ) -> std::result::Result<
        (Option<Attempt>, Vec<Request>, Vec<(Request, Refusal)>),
        (Error, Vec<Request>),
    > {
        let mut record = (*head.record).clone();
        let (mut accepted, mut refused, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for request in requests {
            let number = self.numbers.get(&request.incarnation).copied().unwrap_or(0) + 1;
            let mut next = record.clone();
            match apply(&mut next, request.incarnation, number, &request.change) {
                Ok(()) => {
                    record = next;
                    self.numbers.insert(request.incarnation, number);
                    numbers.push((request.incarnation, number));
                    accepted.push(request);
                }
                Err(refusal) => refused.push((request, refusal)),
            }
        }
        if accepted.is_empty() {
            return Ok((None, accepted, refused));
        }
        record.sequence += 1;
        match record.encode() {
            Ok(bytes) => {
                let attempt = Attempt {
                    record: Arc::new(record),
                    bytes: bytes.into(),
                    base: head.clone(),
                    numbers,
                };
                Ok((Some(attempt), accepted, refused))
            }
            Err(error) => {
                accepted.extend(refused.into_iter().map(|(request, _)| request));
                Err((error, accepted))
            }
        }
    }

    /// Writes, and finds out what became of it.
    async fn write(&mut self, attempt: Attempt) -> Result<Resolved> {
        loop {
            let expected = attempt.base.version.as_ref();
            match self.store.write(attempt.bytes.clone(), expected).await {
                Ok(version) => {
                    crash::at("swap-applied-reply-lost");
                    let record = Arc::clone(&attempt.record);
                    return Ok(Resolved::Landed(Head { record, version: Some(version) }));
                }
                // A failed precondition may be our own write, retried on the way.
                Err(error) if error.is_retryable() || error.kind() == ErrorKind::Fenced => {
                    if error.kind() != ErrorKind::Fenced {
                        self.note("write", &error).await;
                    }
                }
                Err(error) => return Err(error),
            }
            if planted(Mutation::NextBeforeKnown) {
                Box::pin(self.swap_waiting()).await;
            }
            let found = self.read().await?;
            if planted(Mutation::NoSwapNumber) && found.version != attempt.base.version {
                return Ok(Resolved::Landed(found));
            }
            if holds(&found.record, &attempt.numbers) {
                return Ok(Resolved::Landed(found));
            }
            if found.version != attempt.base.version {
                return Ok(Resolved::Superseded(found));
            }
            self.backoff.wait().await;
        }
    }
}

/// Whether the write with these numbers is part of `record`'s history. All of
/// them were in one write, so one is enough; a life may have left the record
/// since, and then the others tell.
fn holds(record: &Record, numbers: &[(Incarnation, u64)]) -> bool {
    numbers.iter().any(|(incarnation, number)| {
        record.incarnations.get(incarnation).is_some_and(|life| life.swap >= *number)
    })
}

fn fail_all(requests: Vec<Request>, error: &Error) {
    for request in requests {
        let copy = Error::new(error.kind(), "the record cannot be written")
            .retryable(error.is_retryable())
            .source(error.to_string());
        let _ = request.reply.send(SwapOutcome::Failed(copy));
    }
}
