//! The runtime's end: [`SourceReader`] over a channel from the consumer thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use tidelock_connector::{Error, ErrorKind, Event, Result, SourceReader, Start, async_trait};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::inbox::Inbox;
use crate::outbox::{Item, Shared};

/// How long dropping a reader waits for the group to be left in good order.
/// Without that the group waits for the session to expire.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Go to these positions, and say when nothing older can be delivered.
    Seek(Vec<Start>, oneshot::Sender<()>),
    /// Leave the group and end.
    Stop,
}

/// Reads what the consumer thread sends.
///
/// Dropping it leaves the group, and waits a few seconds for that at most.
pub(crate) struct KafkaReader {
    pub(crate) events: UnboundedReceiver<Item>,
    pub(crate) inbox: Inbox,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: Sender<Command>,
    /// None once the thread was found dead.
    pub(crate) thread: Option<JoinHandle<()>>,
    /// Closed when the thread has ended.
    pub(crate) ended: Receiver<()>,
}

impl KafkaReader {
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    fn has_more(&self) -> bool {
        !(self.events.is_empty() && self.inbox.is_empty())
    }

    /// Why the thread is no longer there.
    fn gone(&mut self) -> Error {
        let ended = Error::new(ErrorKind::Other, "the consumer thread has ended");
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(payload)) => {
                let text = payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| payload.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                Error::new(ErrorKind::Panic, format!("the consumer thread panicked: {text}"))
            }
            _ => ended,
        }
    }
}

#[async_trait]
impl SourceReader for KafkaReader {
    async fn next(&mut self) -> Result<Event> {
        loop {
            // Cancel safe: an item that was received is in the inbox, returned
            // or dropped without any await in between.
            while let Ok(item) = self.events.try_recv() {
                self.inbox.push(item);
            }
            let item = match self.inbox.pop() {
                Some(item) => item,
                None => match self.events.recv().await {
                    Some(item) => item,
                    None => return Err(self.gone()),
                },
            };
            let full = self.shared.held();
            self.shared.release(&item);
            if full > 0 {
                // The thread may be waiting for room.
                self.wake();
            }
            if self.shared.is_stale(&item) {
                continue;
            }
            match item.event {
                // Whatever is behind it is newer: after a long outage nobody
                // should have to hear of every attempt before the good news.
                Err(error) if error.is_retryable() && self.has_more() => {
                    tracing::debug!(%error, "no longer the newest");
                }
                event => return event,
            }
        }
    }

    async fn seek(&mut self, to: &[Start]) -> Result<()> {
        let (reply, done) = oneshot::channel();
        let sent = self.commands.send(Command::Seek(to.to_vec(), reply));
        self.wake();
        if sent.is_err() || done.await.is_err() {
            return Err(self.gone());
        }
        Ok(())
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        let _ended = self.commands.send(Command::Stop);
        self.wake();
        // Nothing is ever sent; the other end is dropped with the thread.
        if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
            self.ended.recv_timeout(LEAVE_TIMEOUT)
        {
            tracing::warn!(
                "the group was not left in time; it will wait for the session to expire"
            );
            return;
        }
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the consumer thread panicked");
        }
    }
}
