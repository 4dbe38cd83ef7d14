//! Sinks that break the contract in one way each.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex as AsyncMutex;

use crate::testing::{MemorySink, lock};
use crate::{
    Barrier, Batch, Committable, Committer, Guarantee, Incarnation, Outcome, Result, Sink,
    SinkContext, SinkWriter,
};

/// What is wrong with a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// Publishes in `prepare`.
    VisibleTooEarly,
    /// Lets go of the rows when the future is polled, not when it is made.
    DetachesTooLate,
    /// Waits in `write` until the last prepare is through.
    WriteWaitsForPrepare,
    /// Takes back what it has prepared when the writer is discarded.
    DiscardTakesPrepared,
    /// Prepares something for a set without rows.
    PreparesNothing,
    /// Names parts by their checkpoint alone.
    ReusesNames,
    /// Publishes once more each time it is called.
    CommitsAgain,
    /// Commits only what its own process has prepared.
    ForgetsWithTheProcess,
    /// Fails to discard what is gone.
    DiscardsOnlyOnce,
    /// Says that bytes which are gone were committed.
    MissingIsCommitted,
    /// Collects everybody.
    CollectsEverybody,
    /// Loses a part of the committable on its way through the record.
    DetailIsNotEnough,
}

impl Bug {
    /// Every bug, and what the suite may say of it.
    pub(super) const ALL: [(Self, &'static [&'static str]); 12] = [
        (Self::VisibleTooEarly, &["after prepare, before any commit"]),
        (Self::DetachesTooLate, &["written before its barrier"]),
        (Self::WriteWaitsForPrepare, &["write waits for a prepare"]),
        (Self::DiscardTakesPrepared, &["the first commit finds Missing"]),
        (Self::PreparesNothing, &["a set without rows prepares"]),
        (Self::ReusesNames, &["is used twice", "something else is published"]),
        (Self::CommitsAgain, &["instead of AlreadyCommitted", "are visible instead of"]),
        (Self::ForgetsWithTheProcess, &["the first commit finds Missing"]),
        (Self::DiscardsOnlyOnce, &["discard failed"]),
        (Self::MissingIsCommitted, &["instead of Missing"]),
        (Self::CollectsEverybody, &["took the bytes of another"]),
        (Self::DetailIsNotEnough, &["the first commit finds Missing"]),
    ];
}

#[derive(Clone)]
pub(super) struct BrokenSink {
    pub(super) inner: MemorySink,
    pub(super) bug: Bug,
    /// What this process has prepared.
    pub(super) known: Arc<Mutex<BTreeSet<String>>>,
}

impl BrokenSink {
    pub(super) fn new(inner: MemorySink, bug: Bug) -> Self {
        Self { inner, bug, known: Arc::default() }
    }

    fn committer(&self) -> Arc<dyn Committer> {
        match self.inner.guarantee() {
            Guarantee::ExactlyOnce(committer) => committer,
            Guarantee::AtLeastOnce => panic!("no committer"),
        }
    }
}

#[async_trait]
impl Sink for BrokenSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce(Arc::new(BrokenCommitter {
            inner: self.committer(),
            sink: self.clone(),
            calls: Mutex::new(0),
        }))
    }

    async fn open(&self, ctx: SinkContext) -> Result<Box<dyn SinkWriter>> {
        let incarnation = ctx.incarnation;
        let inner = Arc::new(AsyncMutex::new(self.inner.open(ctx).await?));
        Ok(Box::new(BrokenWriter { inner, incarnation, sink: self.clone(), preparing: None }))
    }
}

struct BrokenWriter {
    inner: Arc<AsyncMutex<Box<dyn SinkWriter>>>,
    incarnation: Incarnation,
    sink: BrokenSink,
    preparing: Option<tokio::sync::oneshot::Receiver<()>>,
}

#[async_trait]
impl SinkWriter for BrokenWriter {
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        if self.sink.bug == Bug::WriteWaitsForPrepare
            && let Some(preparing) = self.preparing.take()
        {
            let _ = preparing.await;
        }
        self.inner.lock().await.write(batch).await
    }

    fn prepare(&mut self, barrier: &Barrier) -> BoxFuture<'static, Result<Vec<Committable>>> {
        let (inner, sink, barrier) = (Arc::clone(&self.inner), self.sink.clone(), barrier.clone());
        let (prepared, preparing) = tokio::sync::oneshot::channel::<()>();
        self.preparing = Some(preparing);
        let early = (sink.bug != Bug::DetachesTooLate)
            .then(|| inner.try_lock().map(|mut inner| inner.prepare(&barrier)).unwrap());
        async move {
            let preparing = match early {
                Some(preparing) => preparing,
                None => inner.lock().await.prepare(&barrier),
            };
            let mut set = preparing.await?;
            drop(prepared);
            if sink.bug == Bug::VisibleTooEarly {
                for committable in &set {
                    sink.committer().commit(committable).await?;
                }
            }
            if sink.bug == Bug::PreparesNothing && set.is_empty() {
                let (name, detail) = ("nothing".to_owned(), serde_json::Value::Null);
                set.push(Committable { name, rows: 0, bytes: 0, detail });
            }
            for (number, committable) in set.iter_mut().enumerate() {
                if sink.bug == Bug::ReusesNames {
                    committable.name = format!("{}-{number}", barrier.checkpoint);
                }
                lock(&sink.known).insert(committable.name.clone());
            }
            if sink.bug == Bug::DetailIsNotEnough {
                set.iter_mut().for_each(|c| c.detail = serde_json::json!({ "staged": "here" }));
            }
            Ok(set)
        }
        .boxed()
    }

    async fn discard(self: Box<Self>) {
        if self.sink.bug == Bug::DiscardTakesPrepared {
            self.sink.inner.files().lose_staged(self.incarnation);
        }
    }
}

struct BrokenCommitter {
    inner: Arc<dyn Committer>,
    sink: BrokenSink,
    calls: Mutex<usize>,
}

#[async_trait]
impl Committer for BrokenCommitter {
    async fn commit(&self, committable: &Committable) -> Result<Outcome> {
        let mut committable = committable.clone();
        match self.sink.bug {
            Bug::CommitsAgain => {
                let mut calls = lock(&self.calls);
                *calls += 1;
                committable.name = format!("{}-{calls}", committable.name);
            }
            Bug::ForgetsWithTheProcess if !lock(&self.sink.known).contains(&committable.name) => {
                return Ok(Outcome::Missing);
            }
            _ => {}
        }
        match self.inner.commit(&committable).await? {
            Outcome::Missing if self.sink.bug == Bug::MissingIsCommitted => {
                Ok(Outcome::AlreadyCommitted)
            }
            outcome => Ok(outcome),
        }
    }

    async fn discard(&self, committables: &[Committable]) -> Result<()> {
        if self.sink.bug == Bug::DiscardsOnlyOnce
            && let Some(first) = committables.first()
        {
            let life = first.name.rsplit('/').next().unwrap()[..32].to_owned();
            let life = Incarnation::parse(&life).unwrap();
            if !self.sink.inner.files().staged().contains_key(&life) {
                return Err(crate::Error::new(crate::ErrorKind::NotFound, "nothing to discard"));
            }
        }
        self.inner.discard(committables).await
    }

    async fn staged(&self, pipeline: &str) -> Result<Vec<Incarnation>> {
        self.inner.staged(pipeline).await
    }

    async fn collect(&self, pipeline: &str, incarnation: Incarnation) -> Result<()> {
        if self.sink.bug == Bug::CollectsEverybody {
            for incarnation in self.sink.inner.files().staged().into_keys() {
                self.inner.collect(pipeline, incarnation).await?;
            }
        }
        self.inner.collect(pipeline, incarnation).await
    }
}
