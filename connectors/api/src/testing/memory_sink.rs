//! An exactly-once sink whose store is in memory.
//!
//! `prepare` stages the rows of a set under names of the incarnation; only
//! `commit` publishes them. Staged rows stay until they are discarded or
//! collected, as with a copy on an object store. Clones of a sink share one
//! store, as processes do that write to one bucket.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::log::coordinates;
use super::memory_files::{Call, MemoryFiles, Part, Published};
use crate::{
    Barrier, Batch, Committable, Committer, Error, ErrorKind, Guarantee, Incarnation, Outcome,
    Result, Sink, SinkContext, SinkWriter,
};

/// An exactly-once sink that writes into [`MemoryFiles`].
#[derive(Debug, Clone)]
pub struct MemorySink {
    files: MemoryFiles,
    parts: usize,
}

impl Default for MemorySink {
    fn default() -> Self {
        Self::new()
    }
}

impl MemorySink {
    /// A sink with an empty store, one part per commit set.
    pub fn new() -> Self {
        Self { files: MemoryFiles::default(), parts: 1 }
    }

    /// Spreads the rows of every set over up to `parts` parts.
    #[must_use]
    pub fn parts(mut self, parts: usize) -> Self {
        self.parts = parts.max(1);
        self
    }

    /// The handle by which a test looks at the store and breaks things.
    pub fn files(&self) -> MemoryFiles {
        self.files.clone()
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce(Arc::new(MemoryCommitter { files: self.files.clone() }))
    }

    async fn open(&self, ctx: SinkContext) -> Result<Box<dyn SinkWriter>> {
        self.files.enter(Call::Open).await?;
        let writer =
            Writer { files: self.files.clone(), parts: self.parts, ctx, next: 0, rows: Vec::new() };
        Ok(Box::new(writer))
    }
}

struct Writer {
    files: MemoryFiles,
    parts: usize,
    ctx: SinkContext,
    /// The number of the next part.
    next: u64,
    /// Since the last barrier.
    rows: Vec<RecordBatch>,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        // A batch without coordinates is refused here, where it came from.
        coordinates(&batch.records)?;
        self.files.enter(Call::Write).await?;
        if batch.num_rows() > 0 {
            self.rows.push(batch.records.clone());
        }
        Ok(())
    }

    fn prepare(&mut self, barrier: &Barrier) -> BoxFuture<'static, Result<Vec<Committable>>> {
        let parts = self.detach(barrier);
        let files = self.files.clone();
        async move {
            files.enter(Call::Prepare).await?;
            parts.into_iter().map(|part| stage(&files, part)).collect()
        }
        .boxed()
    }

    async fn discard(self: Box<Self>) {}
}

impl Writer {
    fn detach(&mut self, barrier: &Barrier) -> Vec<Part> {
        let rows = std::mem::take(&mut self.rows);
        let per_part = rows.len().div_ceil(self.parts).max(1);
        let count = rows.len().div_ceil(per_part);
        let parts = rows.chunks(per_part).enumerate().map(|(index, rows)| Part {
            pipeline: Arc::clone(&self.ctx.pipeline),
            sink: Arc::clone(&self.ctx.sink),
            incarnation: self.ctx.incarnation,
            checkpoint: barrier.checkpoint,
            number: self.next + index as u64,
            siblings: count,
            coverage: barrier.coverage.clone(),
            epochs: barrier.epochs.clone(),
            rows: rows.to_vec(),
        });
        let parts: Vec<_> = parts.collect();
        self.next += parts.len() as u64;
        parts
    }
}

/// What the committer needs: where the rows are staged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    staged: String,
}

fn stage(files: &MemoryFiles, part: Part) -> Result<Committable> {
    let rows = part.rows.iter().map(|rows| rows.num_rows() as u64).sum();
    let bytes = part.rows.iter().map(|rows| rows.get_array_memory_size() as u64).sum();
    let unique = format!("{}-{:06}", part.incarnation, part.number);
    let name = format!("{}/{}/{unique}", part.pipeline, part.sink);
    let staged = format!("staging/{name}");
    let detail = serde_json::to_value(Detail { staged: staged.clone() })
        .map_err(|error| Error::new(ErrorKind::Other, "committable").source(error))?;
    files.store().staged.insert(staged, part);
    Ok(Committable { name, rows, bytes, detail })
}

/// Publishes what a [`MemorySink`] prepared.
#[derive(Debug, Clone)]
pub struct MemoryCommitter {
    files: MemoryFiles,
}

#[async_trait]
impl Committer for MemoryCommitter {
    async fn commit(&self, committable: &Committable) -> Result<Outcome> {
        let staged = staged_key(committable)?;
        self.files.enter(Call::Commit).await?;
        let mut store = self.files.store();
        if let Some(published) = store.published.get(&committable.name) {
            if published.from != staged {
                return Err(Error::new(ErrorKind::Conflict, "something else is published here")
                    .object(&committable.name));
            }
            return Ok(Outcome::AlreadyCommitted);
        }
        let Some(part) = store.staged.get(&staged).cloned() else {
            return Ok(Outcome::Missing);
        };
        store.published.insert(committable.name.clone(), Published { from: staged, part });
        Ok(Outcome::Committed)
    }

    async fn discard(&self, committables: &[Committable]) -> Result<()> {
        self.files.enter(Call::Discard).await?;
        for committable in committables {
            let staged = staged_key(committable)?;
            self.files.store().staged.remove(&staged);
        }
        Ok(())
    }

    async fn staged(&self, pipeline: &str) -> Result<Vec<Incarnation>> {
        self.files.enter(Call::Staged).await?;
        let store = self.files.store();
        let mut found: Vec<_> = store
            .staged
            .values()
            .filter(|part| &*part.pipeline == pipeline)
            .map(|part| part.incarnation)
            .collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    async fn collect(&self, pipeline: &str, incarnation: Incarnation) -> Result<()> {
        self.files.enter(Call::Collect).await?;
        self.files
            .store()
            .staged
            .retain(|_, part| &*part.pipeline != pipeline || part.incarnation != incarnation);
        Ok(())
    }
}

fn staged_key(committable: &Committable) -> Result<String> {
    Detail::deserialize(&committable.detail).map(|detail| detail.staged).map_err(|error| {
        Error::new(ErrorKind::Other, "committable of another sink")
            .object(&committable.name)
            .source(error)
    })
}
