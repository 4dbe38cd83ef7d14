//! Streaming writes of files whose size nobody knows yet.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use tidelock_connector::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use crate::store::{Backend, Store};
use crate::{error, local};

/// The size of an uploaded part. All parts but the last are equal, which some
/// stores (Cloudflare R2) insist on, so that parts do not grow: 10,000 of them
/// make 80 GiB, far above the 5 GB that a store copies at once.
pub(crate) const PART_BYTES: usize = 8 << 20;
/// How many parts of one file are on their way at once.
const PARTS_IN_FLIGHT: usize = 3;
/// Local files are written in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;
/// How long a forgotten upload may take to be aborted.
const ABORT_TIMEOUT: Duration = Duration::from_secs(30);

/// Writes one staged file, in parts, while it grows.
///
/// [`write`](Self::write) waits while too much is under way, so that at most
/// four parts (32 MiB) are held, whatever the size of the file. Nothing can be
/// read before [`finish`](Self::finish). Dropping the writer gives the file up:
/// running requests are cancelled and the store is asked, for at most 30
/// seconds, to forget the parts.
pub struct StagedWriter {
    path: String,
    size: u64,
    kind: Kind,
}

enum Kind {
    Local(LocalFile),
    Object(Upload),
}

impl StagedWriter {
    pub(crate) async fn open(store: &Store, path: &str) -> Result<Self> {
        let kind = match store.backend() {
            Backend::Local(local) => Kind::Local(LocalFile::create(local.file(path)?, path).await?),
            Backend::Object(object) => Kind::Object(Upload {
                store: Arc::clone(&object.store),
                key: object.key(path)?,
                part_bytes: object.part_bytes,
                buffer: VecDeque::new(),
                buffered: 0,
                upload: None,
                parts: JoinSet::new(),
                in_flight: Arc::default(),
            }),
        };
        Ok(Self { path: path.to_owned(), size: 0, kind })
    }

    /// Takes the next bytes of the file. After an error only
    /// [`abort`](Self::abort) makes sense.
    ///
    /// # Errors
    /// Also those of earlier bytes, which are written meanwhile.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.size += bytes.len() as u64;
        match &mut self.kind {
            Kind::Local(file) => file.write(bytes).await.map_err(|e| local_error(e, &self.path)),
            Kind::Object(upload) => upload.write(bytes).await.map_err(|e| e.object(&self.path)),
        }
    }

    /// Writes the rest, makes the file durable, and returns its size.
    ///
    /// # Errors
    /// The file is then given up.
    pub async fn finish(self) -> Result<u64> {
        let Self { path, size, kind } = self;
        match kind {
            Kind::Local(file) => file.finish().await.map_err(|e| local_error(e, &path))?,
            Kind::Object(upload) => upload.finish(size).await.map_err(|e| e.object(&path))?,
        }
        Ok(size)
    }

    /// Gives the file up and waits until the store has forgotten it.
    ///
    /// # Errors
    /// When the store could not be told; its own clean-up of unfinished
    /// uploads does it then.
    pub async fn abort(self) -> Result<()> {
        let Self { path, kind, .. } = self;
        match kind {
            Kind::Local(file) => file.abort().await.map_err(|e| local_error(e, &path)),
            Kind::Object(upload) => upload.abort().await.map_err(|e| e.object(&path)),
        }
    }

    /// Waits until whatever is under way has arrived; less than a part is
    /// [`held`](Self::held) then.
    ///
    /// # Errors
    /// Those of earlier bytes.
    pub async fn settle(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Local(file) => file.settle().await.map_err(|e| local_error(e, &self.path)),
            Kind::Object(upload) => upload.settle().await.map_err(|e| e.object(&self.path)),
        }
    }

    /// How many bytes were taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many of these bytes are held in memory until there are enough of
    /// them to be sent.
    pub fn buffered(&self) -> usize {
        match &self.kind {
            Kind::Local(file) => file.buffered,
            Kind::Object(upload) => upload.buffered,
        }
    }

    /// How many of these bytes are held in memory while they are on their way.
    pub fn in_flight(&self) -> usize {
        let in_flight = match &self.kind {
            Kind::Local(file) => &file.in_flight,
            Kind::Object(upload) => &upload.in_flight,
        };
        in_flight.load(Ordering::Relaxed)
    }

    /// How many of these bytes are still held in memory, in all.
    pub fn held(&self) -> usize {
        self.buffered() + self.in_flight()
    }
}

fn local_error(error: io::Error, path: &str) -> Error {
    error::io(error, "stage", path)
}

/// Bytes that are on their way, counted for as long as the value lives.
struct InFlight {
    bytes: usize,
    total: Arc<AtomicUsize>,
}

impl InFlight {
    fn new(bytes: usize, total: &Arc<AtomicUsize>) -> Self {
        total.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, total: Arc::clone(total) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An object: one put when it fits into a part, else a multipart upload.
struct Upload {
    store: Arc<dyn ObjectStore>,
    key: Path,
    part_bytes: usize,
    buffer: VecDeque<Bytes>,
    buffered: usize,
    upload: Option<Box<dyn MultipartUpload>>,
    /// Aborts the tasks when it is dropped.
    parts: JoinSet<object_store::Result<()>>,
    in_flight: Arc<AtomicUsize>,
}

impl Upload {
    fn failed(&self, error: object_store::Error) -> Error {
        error::store(error, "stage", self.key.as_ref())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.buffered += bytes.len();
        self.buffer.push_back(bytes);
        while self.buffered >= self.part_bytes {
            let part = self.take(self.part_bytes);
            self.send(part).await?;
        }
        // A failed part is reported now rather than at the end.
        while let Some(done) = self.parts.try_join_next() {
            self.joined(done)?;
        }
        Ok(())
    }

    /// The first `bytes` bytes of the buffer.
    fn take(&mut self, bytes: usize) -> Vec<Bytes> {
        let mut taken = Vec::new();
        let mut missing = bytes.min(self.buffered);
        self.buffered -= missing;
        while missing > 0
            && let Some(mut chunk) = self.buffer.pop_front()
        {
            if chunk.len() > missing {
                self.buffer.push_front(chunk.split_off(missing));
            }
            missing -= chunk.len();
            taken.push(chunk);
        }
        taken
    }

    async fn send(&mut self, chunks: Vec<Bytes>) -> Result<()> {
        let held = InFlight::new(chunks.iter().map(Bytes::len).sum(), &self.in_flight);
        while self.parts.len() >= PARTS_IN_FLIGHT {
            if let Some(done) = self.parts.join_next().await {
                self.joined(done)?;
            }
        }
        if self.upload.is_none() {
            let started = self.store.put_multipart(&self.key).await;
            self.upload = Some(started.map_err(|e| self.failed(e))?);
        }
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let part = upload.put_part(PutPayload::from_iter(chunks));
        self.parts.spawn(async move {
            let result = part.await;
            drop(held);
            result
        });
        metrics::counter!("tidelock_sink_parts_uploaded_total").increment(1);
        Ok(())
    }

    fn joined(&self, done: Result<object_store::Result<()>, tokio::task::JoinError>) -> Result<()> {
        match done {
            Ok(result) => result.map_err(|e| self.failed(e)),
            Err(e) => Err(Error::new(ErrorKind::Panic, "an upload did not end").source(e)),
        }
    }

    async fn settle(&mut self) -> Result<()> {
        while let Some(done) = self.parts.join_next().await {
            self.joined(done)?;
        }
        Ok(())
    }

    async fn finish(mut self, size: u64) -> Result<()> {
        let rest = self.take(usize::MAX);
        if self.upload.is_none() {
            let put = self.store.put(&self.key, PutPayload::from_iter(rest)).await;
            return put.map(drop).map_err(|e| self.failed(e));
        }
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        self.settle().await?;
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        let Err(error) = upload.complete().await else { return Ok(()) };
        // The answer to a completion that was applied may have been lost.
        match self.store.head(&self.key).await {
            Ok(meta) if meta.size == size => Ok(()),
            _ => {
                self.upload = Some(upload);
                Err(self.failed(error))
            }
        }
    }

    async fn abort(mut self) -> Result<()> {
        self.parts.shutdown().await;
        match self.upload.take() {
            Some(mut upload) => upload.abort().await.map_err(|e| self.failed(e)),
            None => Ok(()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(ABORT_TIMEOUT, async move {
                if let Err(error) = upload.abort().await {
                    tracing::debug!(%error, "an unfinished upload was not aborted");
                }
            }));
        }
    }
}

/// A local file, written one piece behind.
struct LocalFile {
    path: PathBuf,
    buffer: Vec<Bytes>,
    buffered: usize,
    state: State,
    in_flight: Arc<AtomicUsize>,
}

enum State {
    Idle(File),
    Writing(JoinHandle<io::Result<File>>),
    /// Failed, finished or aborted.
    Closed,
}

impl LocalFile {
    async fn create(path: PathBuf, shown: &str) -> Result<Self> {
        let target = path.clone();
        let file = local::blocking(move || local::create(&target)).await?;
        let file = file.map_err(|e| local_error(e, shown))?;
        let state = State::Idle(file);
        Ok(Self { path, buffer: Vec::new(), buffered: 0, state, in_flight: Arc::default() })
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.buffered += bytes.len();
        self.buffer.push(bytes);
        if self.buffered >= PIECE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// The file, when the piece before has been written.
    async fn idle(&mut self) -> io::Result<File> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Idle(file) => Ok(file),
            State::Writing(task) => task.await.map_err(io::Error::other)?,
            State::Closed => Err(io::Error::other("the file was given up after an error")),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let mut file = self.idle().await?;
        let chunks = std::mem::take(&mut self.buffer);
        let held = InFlight::new(std::mem::take(&mut self.buffered), &self.in_flight);
        self.state = State::Writing(tokio::task::spawn_blocking(move || {
            for chunk in &chunks {
                file.write_all(chunk)?;
            }
            drop(held);
            Ok(file)
        }));
        Ok(())
    }

    async fn settle(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.state = State::Idle(self.idle().await?);
        Ok(())
    }

    async fn finish(mut self) -> io::Result<()> {
        self.flush().await?;
        let file = self.idle().await?;
        let path = self.path.clone();
        let synced = tokio::task::spawn_blocking(move || {
            file.sync_all()?;
            local::sync_folder(local::parent(&path))
        });
        let result = synced.await.map_err(io::Error::other)?;
        if result.is_ok() {
            // Nothing is left for `drop` to give up.
            self.path = PathBuf::new();
        }
        result
    }

    async fn abort(mut self) -> io::Result<()> {
        // Whatever the last piece came to, the file goes.
        let _ = self.idle().await;
        let path = std::mem::take(&mut self.path);
        let removed = tokio::task::spawn_blocking(move || local::remove(&path));
        removed.await.map_err(io::Error::other)?
    }
}

impl Drop for LocalFile {
    /// No version of any record names an unfinished file.
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        if path.as_os_str().is_empty() {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || fs::remove_file(path))),
            Err(_) => drop(fs::remove_file(path)),
        }
    }
}
