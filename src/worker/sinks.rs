//! One task per sink and life of a worker: takes batches and barriers in the
//! order in which they flow, from a queue that is bounded in bytes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tidelock_connector::{Barrier, Batch, Committable, Error, ErrorKind, Result, SinkWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::checkpoint::crash::{self, Phase};

/// What a sink's task reports.
#[derive(Debug)]
pub(super) enum SinkReport {
    /// Everything up to a barrier is staged.
    Prepared { checkpoint: u64, sink: Arc<str>, files: Vec<Committable> },
    /// The sink failed or panicked; nothing more comes from it.
    Failed { sink: Arc<str>, error: Error },
}

enum Message {
    Batch(Batch, OwnedSemaphorePermit),
    Barrier(Barrier),
    Discard,
}

/// The near end of a sink's queue.
pub(super) struct SinkHandle {
    name: Arc<str>,
    /// Unbounded in number; batches need a permit for their bytes first.
    queue: mpsc::UnboundedSender<Message>,
    room: Arc<Semaphore>,
    capacity: u32,
    task: JoinHandle<()>,
}

const UNIT: usize = 1024;

impl SinkHandle {
    /// Starts the task of an open writer; its queue holds `bytes`.
    pub(super) fn start(
        name: Arc<str>,
        writer: Box<dyn SinkWriter>,
        bytes: usize,
        reports: mpsc::UnboundedSender<SinkReport>,
    ) -> Self {
        let (queue, incoming) = mpsc::unbounded_channel();
        let capacity = u32::try_from((bytes / UNIT).max(1)).unwrap_or(u32::MAX >> 3);
        let task = tokio::spawn(run(Arc::clone(&name), writer, incoming, reports));
        let room = Arc::new(Semaphore::new(capacity as usize));
        Self { name, queue, room, capacity, task }
    }

    /// The sink's name.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Queues a batch; waits while the queue is full.
    pub(super) async fn write(&self, batch: Batch) {
        let units = u32::try_from(batch.memory_size() / UNIT).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(units.clamp(1, self.capacity))
            .await
            .expect("the semaphore is never closed");
        // A task that is gone has reported why.
        let _ = self.queue.send(Message::Batch(batch, permit));
    }

    /// Queues a barrier, behind every batch before it.
    pub(super) fn barrier(&self, barrier: Barrier) {
        let _ = self.queue.send(Message::Barrier(barrier));
    }

    /// Throws away what is not prepared.
    pub(super) async fn discard(mut self) {
        let _ = self.queue.send(Message::Discard);
        if tokio::time::timeout(Duration::from_secs(5), &mut self.task).await.is_err() {
            tracing::warn!(sink = %self.name, "the sink did not stop in time, dropping it");
            self.task.abort();
        }
    }
}

async fn run(
    name: Arc<str>,
    writer: Box<dyn SinkWriter>,
    mut incoming: mpsc::UnboundedReceiver<Message>,
    reports: mpsc::UnboundedSender<SinkReport>,
) {
    let result =
        AssertUnwindSafe(serve(&name, writer, &mut incoming, &reports)).catch_unwind().await;
    let error = match result {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(panic) => panicked(panic.as_ref()),
    };
    // Batches that wait for room must not wait for ever.
    incoming.close();
    let failed = SinkReport::Failed { sink: name, error };
    let _ = reports.send(failed);
    while incoming.recv().await.is_some() {}
}

async fn serve(
    name: &Arc<str>,
    mut writer: Box<dyn SinkWriter>,
    incoming: &mut mpsc::UnboundedReceiver<Message>,
    reports: &mpsc::UnboundedSender<SinkReport>,
) -> Result<()> {
    // Aborted when the task ends: a life that is over waits for nothing.
    let mut preparing = tokio::task::JoinSet::new();
    loop {
        let message = tokio::select! {
            biased;
            message = incoming.recv() => message,
            Some(_) = preparing.join_next() => continue,
        };
        match message {
            Some(Message::Batch(batch, permit)) => {
                writer.write(&batch).await?;
                drop(permit);
            }
            Some(Message::Barrier(barrier)) => {
                let prepare = writer.prepare(&barrier);
                preparing.spawn(prepared(
                    Arc::clone(name),
                    barrier.checkpoint,
                    prepare,
                    reports.clone(),
                ));
            }
            Some(Message::Discard) | None => {
                writer.discard().await;
                return Ok(());
            }
        }
    }
}

async fn prepared(
    sink: Arc<str>,
    checkpoint: u64,
    prepare: impl Future<Output = Result<Vec<Committable>>>,
    reports: mpsc::UnboundedSender<SinkReport>,
) {
    let _phase = crash::begin(Phase::Prepare);
    let report = match AssertUnwindSafe(prepare).catch_unwind().await {
        Ok(Ok(files)) => SinkReport::Prepared { checkpoint, sink, files },
        Ok(Err(error)) => SinkReport::Failed { sink, error },
        Err(panic) => SinkReport::Failed { sink, error: panicked(panic.as_ref()) },
    };
    let _ = reports.send(report);
}

/// A panic as an error, with what it said.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Error::new(ErrorKind::Panic, format!("panicked: {said}"))
}
