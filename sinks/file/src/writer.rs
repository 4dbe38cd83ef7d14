//! The engine: one writer, its open files, and the rules for closing them.
//!
//! # The last file of a set
//! Only a file that is still open at the barrier can tell what its set covers.
//! A file is therefore closed early only while another one is open: a full file
//! is replaced *before* the next rows are written, never after the last ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use tidelock_connector::{
    Barrier, Batch, Committable, Committer, Error, ErrorKind, Result, SinkContext, SinkWriter,
    Stream,
};
use tidelock_store::Store;
use tokio::task::{JoinError, JoinSet};

use crate::budget::Budget;
use crate::committer::FileCommitter;
use crate::config::FileConfig;
use crate::file::{Metrics, OpenFile, Shared, StagedFile};
use crate::footer::{CommitSet, SetCoverage, SetFile};
use crate::format::Layout;
use crate::partition::{Part, PartitionBy, Splitter};

/// How many files are being finished at once before their barrier, each by a
/// task that may be encoding.
const FINISHING_AT_ONCE: usize = 4;
/// How many files of a barrier are on their way at once. One task encodes them,
/// one after the other, so that more of them need no more memory.
const STAGING_AT_ONCE: usize = 16;
/// So many bytes of rows make a row group, when memory is short. Fewer would
/// make files that are slow to read, and a file more is better.
const ROW_GROUP_WORTH_ENDING: usize = 1 << 20;
/// How long throwing away waits for the store.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes the rows of one worker into files.
///
/// `write` is not cancel safe: after dropping it only `discard` makes sense.
pub(crate) struct FileWriter {
    shared: Arc<Shared>,
    partition_by: PartitionBy,
    budget: Arc<Budget>,
    streams: Vec<StreamFiles>,
    /// The checkpoint that rows belong to now.
    checkpoint: u64,
    /// The number of its next file.
    next_file: u32,
    early: Early,
}

/// Files of the current checkpoint that were closed before its barrier.
#[derive(Default)]
struct Early {
    listed: Vec<SetFile>,
    finishing: JoinSet<Result<StagedFile>>,
    staged: Vec<StagedFile>,
}

/// The open files of one stream and version.
struct StreamFiles {
    stream: Arc<Stream>,
    schema: SchemaRef,
    splitter: Splitter,
    layout: Layout,
    files: HashMap<Box<[u8]>, OpenFile>,
    /// Rows came since the last barrier.
    used: bool,
}

impl FileWriter {
    pub(crate) fn new(
        config: FileConfig,
        partition_by: PartitionBy,
        store: Store,
        context: SinkContext,
    ) -> Self {
        let metrics = Metrics::new(&context.sink);
        Self {
            checkpoint: context.checkpoint,
            shared: Arc::new(Shared { config, store, context, metrics }),
            partition_by,
            budget: Arc::default(),
            streams: Vec::new(),
            next_file: 0,
            early: Early::default(),
        }
    }

    /// The files of a batch's stream.
    fn stream(&mut self, batch: &Batch) -> Result<usize> {
        let (stream, schema) = (&batch.stream, batch.records.schema());
        let same = |known: &StreamFiles| {
            Arc::ptr_eq(&known.stream, stream)
                || (known.stream.version == stream.version && known.stream.name == stream.name)
        };
        if let Some(index) = self.streams.iter().position(same) {
            let known = &self.streams[index].schema;
            if !Arc::ptr_eq(known, &schema) && known.fields() != schema.fields() {
                let message = "the schema changed without a new version of the stream";
                return Err(Error::new(ErrorKind::Schema, message).with("stream", &stream.name));
            }
            return Ok(index);
        }
        let splitter = self.partition_by.bind(&schema)?;
        let layout = Layout::new(&self.shared.config, Arc::clone(&splitter.file_schema));
        self.streams.push(StreamFiles {
            stream: Arc::clone(stream),
            schema,
            splitter,
            layout,
            files: HashMap::new(),
            used: false,
        });
        Ok(self.streams.len() - 1)
    }

    async fn write_part(&mut self, index: usize, values: &[ArrayRef], part: Part) -> Result<()> {
        let target = self.shared.config.target_file_size.0;
        let known = self.streams[index].files.get(&part.id).map(OpenFile::file_size);
        if known.is_none_or(|size| size >= target) {
            let fresh = self.open_file(index, values, &part)?;
            let before = self.streams[index].files.insert(part.id.clone(), fresh);
            if let Some(before) = before {
                self.early.close(before).await?;
            } else if self.open_files() > self.shared.config.max_open_files {
                // Not the one that has no rows yet.
                self.close_largest(Some((index, &part.id))).await?;
            }
        }
        match self.streams[index].files.get_mut(&part.id) {
            Some(file) => file.write(&part.records).await,
            None => Ok(()),
        }
    }

    fn open_file(&mut self, index: usize, values: &[ArrayRef], part: &Part) -> Result<OpenFile> {
        let StreamFiles { stream, splitter, layout, .. } = &mut self.streams[index];
        let folders = splitter.folders(values, part.row())?;
        let encoder = layout.encoder(&self.shared.config, &part.records)?;
        let place = (self.checkpoint, self.next_file);
        let name = (folders.as_str(), stream.name.as_ref());
        self.next_file += 1;
        Ok(OpenFile::new(&self.shared, place, name, encoder, self.budget.share()))
    }

    fn open_files(&self) -> usize {
        self.streams.iter().map(|stream| stream.files.len()).sum()
    }

    /// The file whose closing gives back most; of two equals the older one.
    fn largest(&self, except: Option<(usize, &[u8])>) -> Option<(usize, Box<[u8]>)> {
        self.streams
            .iter()
            .enumerate()
            .flat_map(|(index, stream)| stream.files.iter().map(move |file| (index, file)))
            .filter(|(index, (id, _))| except != Some((*index, id.as_ref())))
            .max_by_key(|(_, (_, file))| (file.kept(), std::cmp::Reverse(file.number)))
            .map(|(index, (id, _))| (index, id.clone()))
    }

    async fn close_largest(&mut self, except: Option<(usize, &[u8])>) -> Result<()> {
        let Some((index, id)) = self.largest(except) else { return Ok(()) };
        match self.streams[index].files.remove(&id) {
            Some(file) => self.early.close(file).await,
            None => Ok(()),
        }
    }

    fn files_mut(&mut self) -> impl Iterator<Item = &mut OpenFile> {
        self.streams.iter_mut().flat_map(|stream| stream.files.values_mut())
    }

    /// Brings the memory down to what is allowed: by ending row groups, then by
    /// closing files. Half of it may be on its way, which is waited for.
    async fn relieve(&mut self) -> Result<()> {
        let limit = self.shared.context.memory;
        while self.budget.used() > limit {
            let counted: Vec<_> = self.files_mut().map(|file| (file.count(), file)).collect();
            let kept: usize = counted.iter().map(|(_, file)| file.kept()).sum();
            if kept <= limit / 2 {
                match counted.into_iter().max_by_key(|(in_flight, _)| *in_flight) {
                    Some((1.., file)) => file.settle().await?,
                    _ => self.finished(limit).await?,
                }
            } else if let Some(file) = self.largest_row_group() {
                file.flush().await?;
            } else if self.open_files() > 1 {
                self.close_largest(None).await?;
            } else if !self.relieve_last().await? {
                break;
            }
        }
        Ok(())
    }

    /// Waits until files that are being finished have given back so much that
    /// at most `limit` bytes are held.
    async fn finished(&mut self, limit: usize) -> Result<()> {
        self.budget.wait(limit).await;
        self.early.reap()
    }

    /// The only open file gives back what is on its way, and the others all. Can
    /// more be had?
    async fn relieve_last(&mut self) -> Result<bool> {
        let mut kept = 0;
        for file in self.files_mut() {
            file.settle().await?;
            kept += file.kept();
        }
        if self.budget.used() <= kept {
            return Ok(false);
        }
        self.finished(kept.max(self.shared.context.memory)).await?;
        Ok(true)
    }

    /// A file whose row group is worth ending.
    fn largest_row_group(&mut self) -> Option<&mut OpenFile> {
        self.files_mut()
            .max_by_key(|file| file.unfinished())
            .filter(|file| file.unfinished() >= ROW_GROUP_WORTH_ENDING)
    }

    /// Lets go of everything that belongs to the current checkpoint.
    fn detach(&mut self) -> (Vec<OpenFile>, Early) {
        let mut files: Vec<_> =
            self.streams.iter_mut().flat_map(|s| s.files.drain().map(|(_, file)| file)).collect();
        files.sort_by_key(|file| file.number);
        // Quiet streams, and versions that are over, are forgotten.
        self.streams.retain_mut(|stream| std::mem::take(&mut stream.used));
        self.next_file = 0;
        (files, std::mem::take(&mut self.early))
    }
}

impl Early {
    /// Closes a file while others stay open.
    async fn close(&mut self, file: OpenFile) -> Result<()> {
        self.listed.push(file.listed());
        while self.finishing.len() >= FINISHING_AT_ONCE {
            if let Some(done) = self.finishing.join_next().await {
                self.staged.push(joined(done)?);
            }
        }
        self.finishing.spawn(file.finish(None));
        Ok(())
    }

    /// Takes note of what has been staged meanwhile.
    fn reap(&mut self) -> Result<()> {
        while let Some(done) = self.finishing.try_join_next() {
            self.staged.push(joined(done)?);
        }
        Ok(())
    }

    async fn all(mut self) -> Result<Vec<StagedFile>> {
        while let Some(done) = self.finishing.join_next().await {
            self.staged.push(joined(done)?);
        }
        Ok(self.staged)
    }
}

fn joined<T>(done: Result<Result<T>, JoinError>) -> Result<T> {
    done.map_err(|e| Error::new(ErrorKind::Panic, "staging a file did not end").source(e))?
}

/// Stages the files of one checkpoint; `set` goes into the last one.
async fn finish(files: Vec<OpenFile>, early: Early, set: CommitSet) -> Result<Vec<Committable>> {
    let last = files.len().saturating_sub(1);
    let mut set = Some(set);
    let finishing: Vec<_> = files
        .into_iter()
        .enumerate()
        .map(|(index, file)| file.finish(if index == last { set.take() } else { None }))
        .collect();
    let finishing = stream::iter(finishing).buffer_unordered(STAGING_AT_ONCE);
    let (mut staged, early) =
        future::try_join(finishing.try_collect::<Vec<_>>(), early.all()).await?;
    staged.extend(early);
    staged.sort_by_key(|file| file.number);
    Ok(staged.into_iter().map(|file| file.committable).collect())
}

#[async_trait]
impl SinkWriter for FileWriter {
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.early.reap()?;
        let index = self.stream(batch)?;
        self.streams[index].used = true;
        let (values, parts) = self.streams[index].splitter.split(&batch.records)?.into_parts();
        for part in parts {
            self.write_part(index, &values, part).await?;
        }
        self.relieve().await
    }

    fn prepare(&mut self, barrier: &Barrier) -> BoxFuture<'static, Result<Vec<Committable>>> {
        let (files, early) = self.detach();
        let expected = std::mem::replace(&mut self.checkpoint, barrier.checkpoint + 1);
        if files.is_empty() {
            return future::ok(Vec::new()).boxed();
        }
        if expected != barrier.checkpoint {
            // The files are named after it.
            let message = format!("barrier {} came, not {expected}", barrier.checkpoint);
            return future::err(Error::new(ErrorKind::Other, message)).boxed();
        }
        let mut listed = early.listed.clone();
        listed.extend(files.iter().map(OpenFile::listed));
        let set = CommitSet { coverage: SetCoverage::of(barrier), files: listed };
        // Goes on whether or not the future is polled: later writes may wait
        // for the memory. Dropping the future ends it.
        let mut task = JoinSet::new();
        task.spawn(finish(files, early, set));
        async move {
            match task.join_next().await {
                Some(done) => joined(done),
                None => Ok(Vec::new()),
            }
        }
        .boxed()
    }

    async fn discard(mut self: Box<Self>) {
        let (files, mut early) = self.detach();
        early.finishing.shutdown().await;
        let staged: Vec<_> = early.staged.into_iter().map(|file| file.committable).collect();
        let committer = FileCommitter::new(self.shared.store.clone());
        let aborted = stream::iter(files).map(OpenFile::abort).buffer_unordered(16);
        let work = async {
            // No version of the record can name these.
            let deleted = committer.discard(&staged).await;
            let aborted = aborted.collect::<Vec<_>>().await;
            aborted.into_iter().chain([deleted]).find_map(Result::err)
        };
        match tokio::time::timeout(DISCARD_TIMEOUT, work).await {
            Ok(None) => {}
            Ok(Some(error)) => tracing::warn!(%error, "discarded files were left behind"),
            Err(_) => tracing::warn!("discarded files were left behind: the store does not answer"),
        }
    }
}
