//! A process: the real pipeline with the real file sink, on simulated ports.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use tidelock::checkpoint::store::StoredRecord;
use tidelock::{Pipeline, Report, Simulated};
use tidelock_connector::{Error, Result};
use tidelock_file::{FileConfig, FileSink, Format};
use tidelock_store::Store;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

use crate::invariants::Invariant;
use crate::log::passes_filter;
use crate::source::ProcessSource;
use crate::store::ProcessStore;
use crate::watcher::{PIPELINE, SINKS, STATE, Violation};
use crate::world::{Pid, Process, World};

/// Where staged objects are uploaded in parts: a few rows.
const PART_BYTES: usize = 64;

/// A running process.
pub(crate) struct Running {
    pub(crate) pid: Pid,
    /// Asks it to stop.
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) task: JoinHandle<Result<Report>>,
}

fn drop_rows(rows: RecordBatch) -> Result<RecordBatch> {
    let offsets = rows.column(1).as_primitive::<Int64Type>();
    let kept: BooleanArray =
        offsets.iter().map(|offset| Some(offset.is_some_and(passes_filter))).collect();
    Ok(filter_record_batch(&rows, &kept)?)
}

impl World {
    fn store(self: &Arc<Self>, pid: Pid, prefix: &str) -> Result<Store> {
        let store = ProcessStore { world: Arc::clone(self), pid };
        let part_bytes = if self.lock().plan.parts { PART_BYTES } else { usize::MAX };
        Store::with_parts_of(part_bytes, format!("sim://{prefix}"), Arc::new(store), prefix)
    }

    fn pipeline(self: &Arc<Self>, pid: Pid) -> Result<Pipeline> {
        let plan = self.lock().plan.clone();
        let source = ProcessSource { world: Arc::clone(self), pid };
        let record = StoredRecord::new(self.store(pid, STATE)?, PIPELINE);
        let simulated = Simulated {
            record: Arc::new(record),
            // No two processes share it, and neither do two runs.
            seed: (plan.seed << 32) | u64::from(pid.0),
            inline_bytes: if plan.spill { 0 } else { 64 << 10 },
        };
        let mut builder = Pipeline::builder(PIPELINE)
            .source(source)
            .simulated(simulated)
            .checkpoint_every(plan.interval)
            .workers(plan.workers);
        for name in &SINKS[..plan.sinks] {
            let mut config = FileConfig::new(Format::Json, format!("sim://{name}"));
            if plan.split_files {
                config.partition_by = vec!["c".to_owned()];
            }
            builder = builder.sink(*name, FileSink::with_store(config, self.store(pid, name)?)?);
        }
        if plan.filter {
            builder = builder.map(drop_rows);
        }
        builder.build()
    }

    /// Starts a process.
    pub(crate) fn start(self: &Arc<Self>, pid: Pid) -> Result<Running> {
        self.change(|state| {
            state.processes.insert(pid, Process::default());
            state.step(pid, format_args!("starts"));
        });
        let pipeline = self.pipeline(pid)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(pipeline.run(async move {
            if stopped.await.is_err() {
                // Its supervisor is gone: the run is over.
                std::future::pending::<()>().await;
            }
        }));
        self.change(|state| {
            if let Some(process) = state.processes.get_mut(&pid) {
                process.task = Some(task.abort_handle());
            }
        });
        Ok(Running { pid, stop, task })
    }

    /// Takes note of how a process ended.
    pub(crate) fn ended(
        &self,
        pid: Pid,
        asked: bool,
        result: std::result::Result<Result<Report>, JoinError>,
    ) {
        let wrong = match result {
            Ok(Ok(_)) if asked => None,
            Ok(Ok(_)) => Some("it ended, and nobody asked it to".to_owned()),
            Ok(Err(error)) if may_end_by(&error, asked) => {
                self.lock().step(pid, format_args!("ends: {error}"));
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(join) if join.is_panic() => Some(panic_text(join.into_panic().as_ref())),
            Err(_) => None,
        };
        self.change(|state| {
            state.step(pid, format_args!("is gone"));
            if let Some(process) = state.processes.get_mut(&pid) {
                process.dead = true;
            }
            if let Some(what) = wrong {
                state.violated(Violation::new(Invariant::E1, format!("{pid}: {what}")));
            }
        });
    }
}

/// At start a pipeline gives up after 30 seconds, and a worker that is asked
/// to stop tries its last checkpoint only so often.
fn may_end_by(error: &Error, asked: bool) -> bool {
    error.is_retryable() || asked && error.message() == "the last checkpoint could not be made"
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_default())
}

/// How long a process that was asked to stop may take when nothing is wrong.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(120);
