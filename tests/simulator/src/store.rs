//! What lies between a process and the store: requests are lost, applied and
//! reported failed, applied late, or the last thing that their sender did.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, UploadPart,
};
use tokio::sync::oneshot;

use crate::objects::{Reply, Request};
use crate::world::{Pid, State, World};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Applied and answered.
    Fine,
    /// Never applied; an error.
    Lost,
    /// Applied; an error.
    Ambiguous,
    /// An error, then applied.
    Late,
    /// The sender dies; never applied.
    CrashBefore,
    /// Applied; the sender dies before it knows.
    CrashAfter,
    /// The sender dies; then applied.
    CrashLate,
    /// The sender is stopped before the request is sent.
    StopBefore,
    /// The sender is stopped before it sees the answer.
    StopAfter,
}

/// How many of a thousand completions whose sender is dead leave the upload
/// unable to be completed: 40 of 110, as was measured on a real server.
const WEDGED: u64 = 364;

/// The store as one process sees it.
#[derive(Debug, Clone)]
pub(crate) struct ProcessStore {
    pub(crate) world: Arc<World>,
    pub(crate) pid: Pid,
}

impl fmt::Display for ProcessStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store of {}", self.pid)
    }
}

fn broken(what: &'static str) -> Error {
    Error::Generic { store: "simulated", source: what.into() }
}

/// How long the ways take.
struct Ways {
    there: Duration,
    back: Duration,
    /// How much longer a late request is on its way.
    late: Duration,
}

impl State {
    fn ways(&mut self) -> Ways {
        let slow = self.dice.chance(self.weather.slow);
        let one_way = if slow { 100..=1_500 } else { 1..=15 };
        Ways {
            there: self.dice.millis(one_way.clone()),
            back: self.dice.millis(one_way),
            late: self.dice.millis(200..=6_000),
        }
    }

    fn fate(&mut self) -> Fate {
        self.calls += 1;
        self.stats.calls += 1;
        if let Some((_, fate)) = self.plan.strikes.iter().find(|(call, _)| *call == self.calls) {
            return *fate;
        }
        let weather = &self.weather;
        let table = [
            (weather.lost, Fate::Lost),
            (weather.ambiguous, Fate::Ambiguous),
            (weather.late, Fate::Late),
            (weather.crash_before, Fate::CrashBefore),
            (weather.crash_after, Fate::CrashAfter),
            (weather.crash_late, Fate::CrashLate),
        ];
        let mut draw = self.dice.number() % 1000;
        for (rate, fate) in table {
            if draw < rate {
                return fate;
            }
            draw -= rate;
        }
        Fate::Fine
    }

    /// What the store does when a request has arrived.
    fn apply(&mut self, pid: Pid, request: &Request) -> Result<Reply> {
        if let Request::Complete { upload, .. } = request
            && self.is_dead(pid)
            && self.dice.chance(WEDGED)
        {
            // As MinIO does when the client goes away in the middle of it.
            self.objects.wedge(*upload);
            self.stats.wedged += 1;
        }
        self.before(request);
        let reply = self.objects.apply(request);
        let (call, key) = request.shown();
        let said = match &reply {
            Ok(_) => "done",
            Err(Error::NotFound { .. }) => "not found",
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => "refused",
            Err(_) => "error",
        };
        self.step(pid, format_args!("{call} {key}: {said}"));
        if call == "swap" && reply.is_err() {
            self.stats.fenced += 1;
        }
        if reply.is_ok() {
            self.after(request);
        }
        reply
    }
}

impl ProcessStore {
    async fn call(&self, request: Request) -> Result<Reply> {
        let Self { world, pid } = self;
        let pid = *pid;
        world.gate(pid).await;
        let (fate, ways) = {
            let mut state = world.lock();
            let mut fate = state.fate();
            if fate == Fate::Fine && matches!(request, Request::Complete { .. }) {
                let rate = state.weather.cut_completions;
                fate = if state.dice.chance(rate) { Fate::CrashLate } else { fate };
            }
            let ways = state.ways();
            if fate != Fate::Fine {
                let call = request.shown().0;
                state.step(pid, format_args!("{call} will be {fate:?}"));
                state.count(fate, call == "swap");
            }
            (fate, ways)
        };
        match fate {
            Fate::CrashBefore => world.kill(pid, "before a call"),
            Fate::CrashLate => world.kill(pid, "with a call on its way"),
            Fate::StopBefore => world.stop_for_long(pid),
            _ => {}
        }
        if fate == Fate::StopBefore {
            world.gate(pid).await;
        }
        // The request is on its way, whatever becomes of its sender.
        let (answer, answered) = oneshot::channel();
        tokio::spawn(deliver(Arc::clone(world), pid, request, fate, ways, answer));
        let answer = answered.await;
        world.gate(pid).await;
        match answer {
            Ok(answer) => answer,
            Err(_) => Err(broken("the connection was closed")),
        }
    }
}

impl State {
    fn count(&mut self, fate: Fate, swap: bool) {
        match fate {
            Fate::Lost => self.stats.lost += 1,
            Fate::Ambiguous => {
                self.stats.ambiguous += 1;
                self.stats.ambiguous_swaps += u64::from(swap);
            }
            Fate::Late => self.stats.late += 1,
            Fate::CrashBefore | Fate::CrashAfter | Fate::CrashLate => {
                self.stats.kills_in_call += 1;
            }
            Fate::Fine | Fate::StopBefore | Fate::StopAfter => {}
        }
    }
}

async fn deliver(
    world: Arc<World>,
    pid: Pid,
    request: Request,
    fate: Fate,
    ways: Ways,
    answer: oneshot::Sender<Result<Reply>>,
) {
    tokio::time::sleep(ways.there).await;
    let reply = match fate {
        Fate::Fine | Fate::StopBefore => world.lock().apply(pid, &request),
        Fate::Lost | Fate::CrashBefore => Err(broken("the request was lost")),
        Fate::Ambiguous => {
            let _ = world.lock().apply(pid, &request);
            Err(broken("the answer was lost"))
        }
        Fate::Late | Fate::CrashLate => {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                tokio::time::sleep(ways.late).await;
                let _ = world.lock().apply(pid, &request);
            });
            Err(broken("nobody answered"))
        }
        Fate::CrashAfter => {
            let reply = world.lock().apply(pid, &request);
            world.kill(pid, "after a call");
            reply
        }
        Fate::StopAfter => {
            let reply = world.lock().apply(pid, &request);
            world.stop_for_long(pid);
            reply
        }
    };
    tokio::time::sleep(ways.back).await;
    // Nobody waits any more: the caller was dropped.
    let _ = answer.send(reply);
}

impl World {
    /// Longer than the group is patient.
    fn stop_for_long(self: &Arc<Self>, pid: Pid) {
        let wait = self.lock().plan.session_timeout * 3;
        self.stop(pid, wait);
    }
}

fn unexpected() -> Error {
    broken("an answer to another request")
}

#[async_trait]
impl ObjectStore for ProcessStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let bytes = Bytes::from(payload);
        let request = Request::Put { key: location.clone(), bytes, mode: opts.mode };
        match self.call(request).await? {
            Reply::Put(result) => Ok(result),
            _ => Err(unexpected()),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let key = location.clone();
        match self.call(Request::Upload { key: key.clone() }).await? {
            Reply::Upload(upload) => {
                Ok(Box::new(Upload { store: self.clone(), key, upload, parts: 0 }))
            }
            _ => Err(unexpected()),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let request =
            Request::Get { key: location.clone(), range: options.range, head: options.head };
        match self.call(request).await? {
            Reply::Got { bytes, range, meta } => Ok(GetResult {
                payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
                meta,
                range,
                attributes: Attributes::default(),
            }),
            _ => Err(unexpected()),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations
            .then(move |location| {
                let this = this.clone();
                async move {
                    let key = location?;
                    this.call(Request::Delete { key: key.clone() }).await?;
                    Ok(key)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let this = self.clone();
        let prefix = prefix.map(|path| path.as_ref().to_owned()).unwrap_or_default();
        let listed = async move {
            match this.call(Request::List { prefix }).await {
                Ok(Reply::Listed(found)) => found.into_iter().map(Ok).collect(),
                Ok(_) => vec![Err(unexpected())],
                Err(error) => vec![Err(error)],
            }
        };
        stream::once(listed).flat_map(stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.map(|path| path.as_ref().to_owned()).unwrap_or_default();
        match self.call(Request::Folders { prefix }).await? {
            Reply::Folders(found) => Ok(found),
            _ => Err(unexpected()),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let request = Request::Copy { from: from.clone(), to: to.clone(), mode: options.mode };
        self.call(request).await.map(drop)
    }
}

/// An upload in parts.
#[derive(Debug)]
struct Upload {
    store: ProcessStore,
    key: Path,
    upload: u64,
    parts: usize,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let Self { store, key, upload, parts } = self;
        let (store, bytes) = (store.clone(), Bytes::from(data));
        let request = Request::Part { key: key.clone(), upload: *upload, index: *parts, bytes };
        *parts += 1;
        Box::pin(async move { store.call(request).await.map(drop) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Self { key, upload, parts, .. } = self;
        let request = Request::Complete { key: key.clone(), upload: *upload, parts: *parts };
        match self.store.call(request).await? {
            Reply::Put(result) => Ok(result),
            _ => Err(unexpected()),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        let request = Request::Abort { key: self.key.clone(), upload: self.upload };
        self.store.call(request).await.map(drop)
    }
}
