//! A pipeline: one source, any number of transforms, one or several sinks.

mod builder;
mod start;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tidelock_connector::{Error, ErrorKind, Guarantee, Offsets, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use builder::{PipelineBuilder, Simulated, State};

use crate::checkpoint::publish::Publisher;
use crate::checkpoint::store::RecordStore;
use crate::checkpoint::swap::Swaps;
use crate::progress::{Progress, Report};
use crate::worker::{Lives, Shared, Worker, panicked};

/// A pipeline that is ready to run.
pub struct Pipeline {
    config: builder::Parts,
    progress: Arc<Progress>,
}

impl Pipeline {
    /// Declares a pipeline. The name is part of every path that the pipeline
    /// writes beside its data; two pipelines must not share it in one store.
    pub fn builder(name: impl Into<Arc<str>>) -> PipelineBuilder {
        PipelineBuilder::new(name.into())
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The pipeline's figures, to be looked at while it runs.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Tries every connection once and says in short lines what was found.
    ///
    /// # Errors
    /// The first thing that would keep the pipeline from running.
    pub async fn check(&self) -> Result<Vec<String>> {
        let (_, lines) = self.open_and_check().await?;
        Ok(lines)
    }

    /// Runs until `shutdown` resolves, then makes a last checkpoint and returns
    /// the closing figures. A bounded pipeline also ends by itself.
    ///
    /// # Errors
    /// At start, transient errors are retried for 30 s. While running they are
    /// retried without end, unless a limit is set; fatal errors end the run
    /// after a last checkpoint of everything that can still be saved.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Report> {
        let stop = CancellationToken::new();
        let run = self.run_until(stop.clone());
        tokio::pin!(run, shutdown);
        tokio::select! {
            biased;
            report = &mut run => return report,
            () = &mut shutdown => {}
        }
        tracing::info!("stopping: making a last checkpoint");
        stop.cancel();
        run.await
    }

    async fn run_until(self, stop: CancellationToken) -> Result<Report> {
        let record =
            start::patiently(&stop, || async { Ok(self.open_and_check().await?.0) }).await?;
        let Some(record) = record else { return Ok(self.progress.report()) };
        let ends = match self.config.until_end {
            true => start::patiently(&stop, || self.config.source.ends()).await?,
            false => Some(Offsets::new()),
        };
        let Some(ends) = ends else { return Ok(self.progress.report()) };
        let (swaps, swap_loop) = Swaps::new(record, &self.config.name, self.config.settings.seed);
        let swap_loop = tokio::spawn(swap_loop.run());
        let result = self.run_workers(swaps, ends, stop).await;
        swap_loop.abort();
        result.map(|()| self.progress.report())
    }

    async fn run_workers(
        &self,
        swaps: Swaps,
        ends: Offsets,
        stop: CancellationToken,
    ) -> Result<()> {
        let parts = &self.config;
        let committers = parts
            .sinks
            .iter()
            .filter_map(|(route, sink)| match sink.guarantee() {
                Guarantee::AtLeastOnce => None,
                Guarantee::ExactlyOnce(committer) => Some((route.name.to_string(), committer)),
            })
            .collect();
        let lives = match &parts.simulated {
            Some(simulated) => Lives::Counted(AtomicU64::new(0), simulated.seed),
            None => Lives::Random,
        };
        let shared = Arc::new(Shared {
            pipeline: Arc::clone(&parts.name),
            source: Arc::clone(&parts.source),
            sinks: parts.sinks.clone(),
            transforms: parts.transforms.clone(),
            publisher: Publisher::new(committers, swaps.clone()),
            swaps,
            settings: parts.settings.clone(),
            progress: Arc::clone(&self.progress),
            stop: stop.clone(),
            run: parts.until_end.then(|| lives.next().to_string()),
            ends,
            durable: parts.state != State::None,
            lives,
        });
        let mut workers = JoinSet::new();
        for index in 0..parts.settings.workers {
            let shared = Arc::clone(&shared);
            workers.spawn(async move { Worker::open(shared, index).await?.run().await });
        }
        let mut result = Ok(());
        while let Some(joined) = workers.join_next().await {
            let outcome = joined.unwrap_or_else(|error| Err(of_join(error)));
            if let Err(error) = outcome {
                tracing::error!(%error, kind = %error.kind(), "a worker cannot go on");
                // The others make a last checkpoint; the first error is told.
                stop.cancel();
                if result.is_ok() {
                    result = Err(error);
                }
            }
        }
        result
    }

    /// Opens the record's store and tries source, sinks and record.
    async fn open_and_check(&self) -> Result<(Arc<dyn RecordStore>, Vec<String>)> {
        let parts = &self.config;
        let mut lines = Vec::new();
        let source = parts.source.check().await?;
        lines.extend(source.into_iter().map(|line| format!("source: {line}")));
        let streams = start::transformed_streams(parts)?;
        for (route, sink) in &parts.sinks {
            let found = sink.check(&streams).await.map_err(|error| {
                let (kind, retryable) = (error.kind(), error.is_retryable());
                Error::new(kind, format!("sink {:?} cannot be used", route.name))
                    .retryable(retryable)
                    .source(error)
            })?;
            lines.extend(found.into_iter().map(|line| format!("sink {}: {line}", route.name)));
        }
        let (record, line) = start::open_record(parts).await?;
        lines.push(format!("record: {line}"));
        Ok((record, lines))
    }
}

fn of_join(error: tokio::task::JoinError) -> Error {
    if error.is_panic() {
        panicked(error.into_panic().as_ref())
    } else {
        Error::new(ErrorKind::Other, "a worker was aborted")
    }
}

/// Resolves at the first SIGINT or SIGTERM. A second one ends the process at
/// once, with exit code 130 or 143, and without a checkpoint.
pub async fn shutdown_on_ctrl_c() {
    let first = wait_for_signal().await;
    tracing::debug!(signal = first, "asked to stop");
    tokio::spawn(async {
        let code = wait_for_signal().await;
        tracing::warn!("asked to stop a second time: leaving at once");
        std::process::exit(code);
    });
}

#[cfg(unix)]
async fn wait_for_signal() -> i32 {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be listened to");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    }
}

#[cfg(not(unix))]
async fn wait_for_signal() -> i32 {
    match tokio::signal::ctrl_c().await {
        Ok(()) => 130,
        Err(_) => std::future::pending().await,
    }
}

/// What pipelines run with when nothing is said.
pub mod defaults {
    use super::Duration;

    /// Time between checkpoints.
    pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
    /// Bytes of Arrow data that make a checkpoint due.
    pub const CHECKPOINT_BYTES: usize = 512 << 20;
    /// Bytes for buffers, queues and open files of all workers together.
    pub const MEMORY: usize = 160 << 20;
}
