//! Faults of sources, readers and offset committers.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Fate, Faults};
use crate::{
    CommittedOffsets, Event, OffsetCommitter, OpenSource, Result, Source, SourceContext,
    SourceReader, Start, Stream,
};

/// A source whose calls fail as [`Faults`] has it.
pub struct FaultySource {
    inner: Arc<dyn Source>,
    faults: Faults,
}

impl FaultySource {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Source>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl Source for FaultySource {
    async fn open(&self, ctx: SourceContext) -> Result<OpenSource> {
        let opened = self.faults.around("source.open", self.inner.open(ctx)).await?;
        let faults = self.faults.clone();
        let reader = FaultyReader { inner: opened.reader, faults: faults.clone(), held: None };
        let committer = FaultyOffsetCommitter::new(opened.committer, faults);
        Ok(OpenSource { reader: Box::new(reader), committer: Arc::new(committer) })
    }

    async fn check(&self) -> Result<Vec<String>> {
        self.faults.around("source.check", self.inner.check()).await
    }

    fn streams(&self) -> Vec<Arc<Stream>> {
        self.inner.streams()
    }
}

struct FaultyReader {
    inner: Box<dyn SourceReader>,
    faults: Faults,
    /// What the call after an error delivers.
    held: Option<Event>,
}

#[async_trait]
impl SourceReader for FaultyReader {
    async fn next(&mut self) -> Result<Event> {
        if let Some(event) = self.held.take() {
            return Ok(event);
        }
        let (fate, delay) = self.faults.draw("reader.next", false);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if fate == Fate::Before {
            return Err(self.faults.error("reader.next", false));
        }
        let event = self.inner.next().await?;
        if fate == Fate::After {
            self.held = Some(event);
            return Err(self.faults.error("reader.next", true));
        }
        Ok(event)
    }

    async fn seek(&mut self, to: &[Start]) -> Result<()> {
        let (fate, delay) = self.faults.draw("reader.seek", false);
        let Self { inner, held, faults } = self;
        let seek = async {
            inner.seek(to).await?;
            // What was read before is gone; news about partitions is not.
            if !matches!(held, Some(Event::Assigned(_) | Event::Revoking(_))) {
                *held = None;
            }
            Ok(())
        };
        faults.act("reader.seek", fate, delay, seek).await
    }
}

/// An offset committer whose calls fail as [`Faults`] has it.
pub struct FaultyOffsetCommitter {
    inner: Arc<dyn OffsetCommitter>,
    faults: Faults,
}

impl FaultyOffsetCommitter {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn OffsetCommitter>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl OffsetCommitter for FaultyOffsetCommitter {
    async fn commit(&self, offsets: &CommittedOffsets) -> Result<()> {
        self.faults.around("offsets.commit", self.inner.commit(offsets)).await
    }
}
