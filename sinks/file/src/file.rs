//! One data file, from its first row until its bytes are staged.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use metrics::{Counter, Gauge};
use tidelock_connector::{Committable, Result, SinkContext};
use tidelock_store::{StagedWriter, Store};

use crate::budget::Share;
use crate::committer::{Detail, Move};
use crate::config::FileConfig;
use crate::footer::{CommitSet, FileFooter, SetFile};
use crate::format::{self, Encoder};
use crate::names;

/// Encoded bytes are handed to the upload when there are so many of them.
const SEND_BYTES: usize = 256 << 10;

/// What all files of one writer share.
pub(crate) struct Shared {
    pub(crate) config: FileConfig,
    pub(crate) store: Store,
    pub(crate) context: SinkContext,
    pub(crate) metrics: Metrics,
}

pub(crate) struct Metrics {
    pub(crate) rows: Counter,
    files: Counter,
    bytes: Counter,
    open_files: Gauge,
}

impl Metrics {
    pub(crate) fn new(sink: &str) -> Self {
        let sink = sink.to_owned();
        Self {
            rows: metrics::counter!("tidelock_sink_rows_total", "sink" => sink.clone()),
            files: metrics::counter!("tidelock_sink_files_total", "sink" => sink.clone()),
            bytes: metrics::counter!("tidelock_sink_bytes_total", "sink" => sink.clone()),
            open_files: metrics::gauge!("tidelock_sink_open_files", "sink" => sink),
        }
    }
}

/// A file that takes rows.
pub(crate) struct OpenFile {
    shared: Arc<Shared>,
    checkpoint: u64,
    pub(crate) number: u32,
    key: String,
    rows: u64,
    encoder: Box<dyn Encoder>,
    /// Made when there is something to send.
    upload: Option<StagedWriter>,
    share: Share,
    counted: Counted,
}

/// Counts an open file for as long as it lives.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// A file whose bytes are staged.
#[derive(Debug)]
pub(crate) struct StagedFile {
    pub(crate) number: u32,
    pub(crate) committable: Committable,
}

impl OpenFile {
    /// File `number` of `checkpoint`, in `folders`.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        (checkpoint, number): (u64, u32),
        (folders, stream): (&str, &str),
        encoder: Box<dyn Encoder>,
        share: Share,
    ) -> Self {
        let config = &shared.config;
        let extension = format::extension(config.format, config.codec());
        let incarnation = shared.context.incarnation;
        let key = names::data_key(folders, stream, incarnation, checkpoint, number, extension);
        Self {
            counted: Counted::new(&shared.metrics.open_files),
            shared: Arc::clone(shared),
            checkpoint,
            number,
            key,
            rows: 0,
            encoder,
            upload: None,
            share,
        }
    }

    /// Encodes rows, and sends what is final.
    pub(crate) async fn write(&mut self, records: &RecordBatch) -> Result<()> {
        self.encoder.write(records)?;
        self.rows += records.num_rows() as u64;
        self.shared.metrics.rows.increment(records.num_rows() as u64);
        self.send(SEND_BYTES).await?;
        self.count();
        Ok(())
    }

    /// How many bytes the file would have by now, about.
    pub(crate) fn file_size(&self) -> u64 {
        self.upload.as_ref().map_or(0, StagedWriter::size).max(self.encoder.file_size())
    }

    /// Counts again what it holds: parts that were under way have arrived. How
    /// many bytes are under way now?
    pub(crate) fn count(&mut self) -> usize {
        let in_flight = self.upload.as_ref().map_or(0, StagedWriter::in_flight);
        self.share.set(self.kept() + in_flight);
        in_flight
    }

    /// How many bytes it holds that are not on their way.
    pub(crate) fn kept(&self) -> usize {
        self.encoder.memory() + self.upload.as_ref().map_or(0, StagedWriter::buffered)
    }

    /// How many bytes of its rows wait to be encoded.
    pub(crate) fn unfinished(&self) -> usize {
        self.encoder.unfinished()
    }

    /// Ends the row group, and hands on what it came to.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.encoder.flush()?;
        self.send(1).await?;
        self.count();
        Ok(())
    }

    /// Waits until what is under way has arrived.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        if let Some(upload) = &mut self.upload {
            upload.settle().await?;
        }
        self.count();
        Ok(())
    }

    /// The file as its commit set lists it.
    pub(crate) fn listed(&self) -> SetFile {
        SetFile { key: self.key.clone(), rows: self.rows }
    }

    async fn send(&mut self, at_least: usize) -> Result<()> {
        let ready = self.encoder.ready(at_least);
        if ready.is_empty() {
            return Ok(());
        }
        if self.upload.is_none() {
            self.upload = Some(self.shared.store.stage(&self.staged_path()).await?);
        }
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let mut waiting: usize = ready.iter().map(Bytes::len).sum();
        for bytes in ready {
            waiting -= bytes.len();
            upload.write(bytes).await?;
            // Counted as it goes, for this may take long.
            self.share.set(self.encoder.memory() + waiting + upload.held());
        }
        Ok(())
    }

    fn staged_path(&self) -> String {
        let context = &self.shared.context;
        names::staged_data(&context.pipeline, context.incarnation, self.checkpoint, self.number)
    }

    /// Closes the file and stages what is left of it; with `set` it is the last
    /// one of its commit set.
    pub(crate) async fn finish(mut self, set: Option<CommitSet>) -> Result<StagedFile> {
        let context = &self.shared.context;
        let mut footer = FileFooter {
            version: FileFooter::VERSION,
            pipeline: context.pipeline.to_string(),
            sink: context.sink.to_string(),
            incarnation: context.incarnation,
            checkpoint: self.checkpoint,
            file: self.number,
            key: self.key.clone(),
            rows: self.rows,
            bytes: None,
            set,
        };
        self.encoder.finish(&footer)?;
        self.send(1).await?;
        let staged = self.staged_path();
        let upload = match self.upload.take() {
            Some(upload) => upload,
            None => self.shared.store.stage(&staged).await?,
        };
        let size = upload.finish().await?;
        self.share.set(0);
        let mut moves = vec![Move { from: staged.clone(), to: self.key.clone(), size }];
        if !format::carries_footer(self.shared.config.format) {
            footer.bytes = Some(size);
            moves.insert(0, stage_sidecar(&self.shared, &staged, &footer).await?);
        }
        self.shared.metrics.files.increment(1);
        self.shared.metrics.bytes.increment(size);
        let detail = Detail { moves }.to_value()?;
        let committable = Committable { name: self.key, rows: self.rows, bytes: size, detail };
        drop(self.counted);
        Ok(StagedFile { number: self.number, committable })
    }

    /// Throws the file away.
    pub(crate) async fn abort(mut self) -> Result<()> {
        match self.upload.take() {
            Some(upload) => upload.abort().await,
            None => Ok(()),
        }
    }
}

async fn stage_sidecar(shared: &Shared, staged: &str, footer: &FileFooter) -> Result<Move> {
    let json = footer.to_json()?;
    let size = json.len() as u64;
    let from = names::staged_sidecar(staged);
    shared.store.put(&from, json.into()).await?;
    Ok(Move { from, to: names::sidecar(&shared.context.pipeline, &footer.key), size })
}
