//! Faults of sinks, writers and committers.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Fate, Faults};
use crate::{
    Barrier, Batch, Committable, Committer, Guarantee, Incarnation, Outcome, Result, Sink,
    SinkContext, SinkWriter, Stream,
};

/// A sink whose calls fail as [`Faults`] has it, those of its committer too.
pub struct FaultySink {
    inner: Arc<dyn Sink>,
    faults: Faults,
}

impl FaultySink {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Sink>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl Sink for FaultySink {
    fn guarantee(&self) -> Guarantee {
        match self.inner.guarantee() {
            Guarantee::AtLeastOnce => Guarantee::AtLeastOnce,
            Guarantee::ExactlyOnce(committer) => Guarantee::ExactlyOnce(Arc::new(
                FaultyCommitter::new(committer, self.faults.clone()),
            )),
        }
    }

    async fn open(&self, ctx: SinkContext) -> Result<Box<dyn SinkWriter>> {
        let inner = self.faults.around("sink.open", self.inner.open(ctx)).await?;
        Ok(Box::new(FaultyWriter { inner, faults: self.faults.clone() }))
    }

    async fn check(&self, streams: &[Arc<Stream>]) -> Result<Vec<String>> {
        self.faults.around("sink.check", self.inner.check(streams)).await
    }
}

struct FaultyWriter {
    inner: Box<dyn SinkWriter>,
    faults: Faults,
}

#[async_trait]
impl SinkWriter for FaultyWriter {
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        self.faults.around("writer.write", self.inner.write(batch)).await
    }

    fn prepare(&mut self, barrier: &Barrier) -> BoxFuture<'static, Result<Vec<Committable>>> {
        let call = "writer.prepare";
        let (fate, delay) = self.faults.draw(call, false);
        let faults = self.faults.clone();
        // Rows leave the writer now or, if this is not to happen, not at all.
        let preparing = (fate != Fate::Before).then(|| self.inner.prepare(barrier));
        async move {
            let preparing = async {
                match preparing {
                    Some(preparing) => preparing.await,
                    None => Err(faults.error(call, false)),
                }
            };
            faults.act(call, fate, delay, preparing).await
        }
        .boxed()
    }

    async fn discard(self: Box<Self>) {
        self.inner.discard().await;
    }
}

/// A committer whose calls fail as [`Faults`] has it.
pub struct FaultyCommitter {
    inner: Arc<dyn Committer>,
    faults: Faults,
}

impl FaultyCommitter {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Committer>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl Committer for FaultyCommitter {
    async fn commit(&self, committable: &Committable) -> Result<Outcome> {
        self.faults.around("committer.commit", self.inner.commit(committable)).await
    }

    async fn discard(&self, committables: &[Committable]) -> Result<()> {
        self.faults.around_delete("committer.discard", self.inner.discard(committables)).await
    }

    async fn staged(&self, pipeline: &str) -> Result<Vec<Incarnation>> {
        self.faults.around("committer.staged", self.inner.staged(pipeline)).await
    }

    async fn collect(&self, pipeline: &str, incarnation: Incarnation) -> Result<()> {
        let collecting = self.inner.collect(pipeline, incarnation);
        self.faults.around_delete("committer.collect", collecting).await
    }
}
