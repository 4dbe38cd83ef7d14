//! Declaring a pipeline in Rust.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tidelock_connector::{Error, Result, Sink, Source, Transform};
use tidelock_store::StoreConfig;

use super::{Pipeline, defaults};
use crate::checkpoint::claim::OnExternalReset;
use crate::checkpoint::coordinator::SinkRoute;
use crate::checkpoint::lost::OnLost;
use crate::checkpoint::publish::INLINE_BYTES;
use crate::checkpoint::store::RecordStore;
use crate::progress::{Progress, Report};
use crate::worker::{Settings, TransformFactory};

/// Where a pipeline's record lives.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// With the only sink's files.
    WithSink,
    /// In a store of its own.
    Store(StoreConfig),
    /// Nowhere: offsets are kept by the source alone, and every sink is
    /// at-least-once.
    None,
}

pub(super) struct Parts {
    pub(super) name: Arc<str>,
    pub(super) source: Arc<dyn Source>,
    pub(super) sinks: Vec<(SinkRoute, Arc<dyn Sink>)>,
    pub(super) transforms: Vec<TransformFactory>,
    pub(super) state: State,
    pub(super) settings: Settings,
    pub(super) until_end: bool,
    pub(super) simulated: Option<Simulated>,
}

/// The ports of a pipeline that runs in a simulator: everything that would
/// differ from one run to the next.
#[doc(hidden)]
#[derive(Clone)]
pub struct Simulated {
    /// Where the record lives; it is used as it is, without being tried.
    pub record: Arc<dyn RecordStore>,
    /// What incarnations and jitter follow. No two processes may share it.
    pub seed: u64,
    /// Committables above this many bytes go beside the record.
    pub inline_bytes: usize,
}

/// Declares a pipeline; see [`Pipeline::builder`].
pub struct PipelineBuilder {
    name: Arc<str>,
    source: Option<Arc<dyn Source>>,
    sinks: Vec<(SinkRoute, Arc<dyn Sink>)>,
    transforms: Vec<TransformFactory>,
    state: State,
    settings: Settings,
    until_end: bool,
    simulated: Option<Simulated>,
}

impl PipelineBuilder {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            source: None,
            sinks: Vec::new(),
            transforms: Vec::new(),
            state: State::WithSink,
            settings: Settings {
                interval: defaults::CHECKPOINT_INTERVAL,
                bytes: defaults::CHECKPOINT_BYTES,
                workers: 1,
                memory: defaults::MEMORY,
                on_external_reset: OnExternalReset::Stop,
                on_lost: OnLost::Stop,
                retry_limit: None,
                seed: rand::random(),
                inline_bytes: INLINE_BYTES,
            },
            until_end: false,
            simulated: None,
        }
    }

    /// Sets the source. A pipeline has exactly one.
    #[must_use]
    pub fn source(mut self, source: impl Source + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Adds a transform: a pure function of one batch.
    #[must_use]
    pub fn map<F>(self, function: F) -> Self
    where
        F: Fn(RecordBatch) -> Result<RecordBatch> + Clone + Send + Sync + 'static,
    {
        self.transform(move || function.clone())
    }

    /// Adds a transform that each worker gets an own one of.
    #[must_use]
    pub fn transform<T: Transform + 'static>(
        mut self,
        make: impl Fn() -> T + Send + Sync + 'static,
    ) -> Self {
        self.transforms.push(Arc::new(move || Box::new(make())));
        self
    }

    /// Adds a sink that takes every row.
    #[must_use]
    pub fn sink(self, name: impl Into<Arc<str>>, sink: impl Sink + 'static) -> Self {
        self.add_sink(name.into(), None, Arc::new(sink))
    }

    /// Adds a sink that takes the rows of some topics only.
    #[must_use]
    pub fn sink_for<T: Into<String>>(
        self,
        name: impl Into<Arc<str>>,
        topics: impl IntoIterator<Item = T>,
        sink: impl Sink + 'static,
    ) -> Self {
        let topics = topics.into_iter().map(Into::into).collect();
        self.add_sink(name.into(), Some(topics), Arc::new(sink))
    }

    pub(crate) fn add_sink(
        mut self,
        name: Arc<str>,
        topics: Option<BTreeSet<String>>,
        sink: Arc<dyn Sink>,
    ) -> Self {
        use tidelock_connector::Guarantee::ExactlyOnce;
        let exactly_once = matches!(sink.guarantee(), ExactlyOnce(_));
        self.sinks.push((SinkRoute { name, topics, exactly_once }, sink));
        self
    }

    /// Sets how long rows wait at most for the checkpoint that makes them
    /// visible. 10 s if unset.
    #[must_use]
    pub fn checkpoint_every(mut self, interval: Duration) -> Self {
        self.settings.interval = interval;
        self
    }

    /// Sets how many bytes of Arrow data make a checkpoint due earlier.
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: usize) -> Self {
        self.settings.bytes = bytes;
        self
    }

    /// Sets where the pipeline's record lives. Needed with several sinks, or
    /// with one that has no store of its own.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    /// Sets how many members of the consumer group this process is. 1 if unset.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers;
        self
    }

    /// Sets the bytes for buffers, queues and open files of all workers
    /// together. 160 MiB if unset.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.settings.memory = bytes;
        self
    }

    /// Ends the run at the offsets that are the ends when it begins.
    #[must_use]
    pub fn until_end(mut self, until_end: bool) -> Self {
        self.until_end = until_end;
        self
    }

    /// Sets what to do when the committed offsets were moved from outside.
    #[must_use]
    pub fn on_external_reset(mut self, policy: OnExternalReset) -> Self {
        self.settings.on_external_reset = policy;
        self
    }

    /// Sets what to do when files of a committed checkpoint are lost before
    /// they are visible. The run stops if unset.
    #[must_use]
    pub fn on_lost(mut self, policy: OnLost) -> Self {
        self.settings.on_lost = policy;
        self
    }

    /// Ends the run when a worker has started over this many times without a
    /// checkpoint in between. Unset, it tries without end.
    #[must_use]
    pub fn retry_limit(mut self, limit: u32) -> Self {
        self.settings.retry_limit = Some(limit);
        self
    }

    /// Runs on simulated ports.
    #[doc(hidden)]
    #[must_use]
    pub fn simulated(mut self, simulated: Simulated) -> Self {
        self.settings.seed = simulated.seed;
        self.settings.inline_bytes = simulated.inline_bytes;
        self.simulated = Some(simulated);
        self
    }

    /// Checks the declaration.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](tidelock_connector::ErrorKind::Config) for what is
    /// missing, doubled or contradictory.
    pub fn build(self) -> Result<Pipeline> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(valid) {
            return Err(Error::config(format!(
                "pipeline name {:?} must be made of letters, digits, '-', '_' and '.': it becomes part of paths",
                self.name
            )));
        }
        let source = self.source.ok_or_else(|| Error::config("the pipeline has no source"))?;
        if self.sinks.is_empty() {
            return Err(Error::config("the pipeline has no sink"));
        }
        let mut names = BTreeSet::new();
        for (route, _) in &self.sinks {
            if !names.insert(Arc::clone(&route.name)) {
                return Err(Error::config(format!("two sinks are called {:?}", route.name)));
            }
        }
        let mut homes = BTreeSet::new();
        for (route, sink) in &self.sinks {
            let Some(home) = sink.home() else { continue };
            let url = home.url.trim_end_matches('/').to_owned();
            if !homes.insert(url) {
                // Their staged files and their names would be the same.
                return Err(Error::config(format!(
                    "sink {:?} writes to {}, where another sink of the pipeline writes: give each \
                     a URL of its own",
                    route.name, home.url
                )));
            }
        }
        if self.settings.workers == 0 {
            return Err(Error::config("a pipeline needs at least one worker"));
        }
        if self.settings.interval.is_zero() {
            return Err(Error::config("the checkpoint interval must be longer than nothing"));
        }
        Ok(Pipeline {
            config: Parts {
                name: self.name,
                source,
                sinks: self.sinks,
                transforms: self.transforms,
                state: self.state,
                settings: self.settings,
                until_end: self.until_end,
                simulated: self.simulated,
            },
            progress: Arc::new(Progress::new()),
        })
    }

    /// Builds and runs: see [`Pipeline::run`].
    ///
    /// # Errors
    /// Those of [`build`](Self::build) and of [`Pipeline::run`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Report> {
        self.build()?.run(shutdown).await
    }
}
