//! The sinks, as a pipeline declares them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tidelock_connector::{Guarantee, Home, Result, Sink, SinkContext, SinkWriter, Stream};
use tidelock_store::{StorageOptions, Store, StoreConfig};

use crate::committer::FileCommitter;
use crate::config::{Compression, FileConfig, Format, ParquetConfig, Size};
use crate::format::{self, Layout};
use crate::partition::PartitionBy;
use crate::writer::FileWriter;

/// A sink that writes files, exactly once.
#[derive(Debug, Clone)]
pub struct FileSink {
    config: FileConfig,
    partition_by: PartitionBy,
    store: Store,
}

impl FileSink {
    /// The sink of a configuration. The store is not asked for anything yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](tidelock_connector::ErrorKind::Config), saying
    /// what does not fit.
    pub fn new(config: FileConfig) -> Result<Self> {
        let store =
            Store::open(&StoreConfig { url: config.url.clone(), storage: config.storage.clone() })?;
        Self::with_store(config, store)
    }

    /// The same on a store that is open already; the configuration's URL and
    /// storage options are not looked at.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_store(config: FileConfig, store: Store) -> Result<Self> {
        config.validate()?;
        let partition_by = PartitionBy::parse(&config.partition_by)?;
        Ok(Self { config, partition_by, store })
    }

    /// Starts a sink that writes `format` to `url`.
    pub fn builder(format: Format, url: impl Into<String>) -> FileSinkBuilder {
        FileSinkBuilder { config: FileConfig::new(format, url) }
    }

    /// The store that it writes to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The configuration.
    pub fn config(&self) -> &FileConfig {
        &self.config
    }
}

#[async_trait]
impl Sink for FileSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce(Arc::new(FileCommitter::new(self.store.clone())))
    }

    async fn open(&self, ctx: SinkContext) -> Result<Box<dyn SinkWriter>> {
        let (config, partition_by) = (self.config.clone(), self.partition_by.clone());
        Ok(Box::new(FileWriter::new(config, partition_by, self.store.clone(), ctx)))
    }

    async fn check(&self, streams: &[Arc<Stream>]) -> Result<Vec<String>> {
        for stream in streams {
            let fits = self.partition_by.bind(&stream.schema).and_then(|splitter| {
                let schema = splitter.file_schema;
                format::check(&self.config, &schema)?;
                let none = RecordBatch::new_empty(Arc::clone(&schema));
                Layout::new(&self.config, schema).encoder(&self.config, &none)
            });
            fits.map_err(|e| e.with("stream", &stream.name))?;
        }
        self.store.check().await?;
        let config = &self.config;
        let extension = format::extension(config.format, config.codec());
        let mut files = format!("{extension} files, {}", config.codec());
        if !config.partition_by.is_empty() {
            files = format!("{files}, by {}", config.partition_by.join(", "));
        }
        Ok(vec![format!("{} is reachable", self.store.url()), files])
    }

    fn home(&self) -> Option<Home> {
        let storage = serde_json::to_value(&self.config.storage).ok()?;
        Some(Home { url: self.store.url().to_owned(), storage })
    }
}

/// Builds a [`FileSink`] with defaults for everything but the place.
#[derive(Debug, Clone)]
pub struct FileSinkBuilder {
    config: FileConfig,
}

impl FileSinkBuilder {
    /// Splits rows into folders by columns, and by `day`, `hour`,
    /// `day(column)` and `hour(column)` in UTC.
    #[must_use]
    pub fn partition_by<T: Into<String>>(mut self, by: impl IntoIterator<Item = T>) -> Self {
        self.config.partition_by = by.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the codec.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = Some(compression);
        self
    }

    /// Sets how the store is reached.
    #[must_use]
    pub fn storage(mut self, storage: StorageOptions) -> Self {
        self.config.storage = storage;
        self
    }

    /// Sets the size in bytes from which a file is closed early.
    #[must_use]
    pub fn target_file_size(mut self, bytes: u64) -> Self {
        self.config.target_file_size = Size(bytes);
        self
    }

    /// Sets how many files one worker keeps open.
    #[must_use]
    pub fn max_open_files(mut self, files: usize) -> Self {
        self.config.max_open_files = files;
        self
    }

    /// Sets what only Parquet has.
    #[must_use]
    pub fn parquet(mut self, parquet: ParquetConfig) -> Self {
        self.config.parquet = parquet;
        self
    }

    /// Makes the sink.
    ///
    /// # Errors
    /// As [`FileSink::new`].
    pub fn build(self) -> Result<FileSink> {
        FileSink::new(self.config)
    }
}

/// Parquet files.
#[derive(Debug)]
pub struct ParquetSink;

impl ParquetSink {
    /// Starts a sink that writes Parquet files to `url`.
    pub fn builder(url: impl Into<String>) -> FileSinkBuilder {
        FileSink::builder(Format::Parquet, url)
    }
}

/// Files of JSON, one object per line.
#[derive(Debug)]
pub struct JsonLinesSink;

impl JsonLinesSink {
    /// Starts a sink that writes JSON lines to `url`.
    pub fn builder(url: impl Into<String>) -> FileSinkBuilder {
        FileSink::builder(Format::Json, url)
    }
}
