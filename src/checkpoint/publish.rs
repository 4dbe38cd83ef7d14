//! The second phase: what the record lists as pending becomes visible.
//!
//! Any process may publish any set, several at once, any number of times.
//! A set of which nothing is left, neither staged nor visible, and which the
//! record still lists, is *lost prepared data*: the run stops and names it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tidelock_connector::{Committable, Committer, Error, ErrorKind, Outcome, Result};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::crash;
use super::record::{Files, PendingSet, SetId};
use super::store::RecordStore;
use super::swap::Swaps;

/// Committables of at most this many encoded bytes per set stay in the record.
pub(crate) const INLINE_BYTES: usize = 64 * 1024;
/// How many files of one set are published at once.
const PARALLEL: usize = 8;
/// How long missing bytes may stay missing before they count as lost.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// What is left of a set; nothing of either where its list of files is gone.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// These files are visible.
    pub visible: Vec<Committable>,
    /// These are neither staged nor visible.
    pub missing: Vec<Committable>,
}

/// Publishes sets; cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    committers: Arc<BTreeMap<String, Arc<dyn Committer>>>,
    swaps: Swaps,
}

impl Publisher {
    /// A publisher for these sinks.
    pub fn new(committers: BTreeMap<String, Arc<dyn Committer>>, swaps: Swaps) -> Self {
        Self { committers: Arc::new(committers), swaps }
    }

    /// The committer of each exactly-once sink.
    pub fn committers(&self) -> &BTreeMap<String, Arc<dyn Committer>> {
        &self.committers
    }

    /// Makes every committable of `set` visible; transient errors are waited
    /// out. Returns the committables, whose staged bytes may be deleted once
    /// the record no longer lists the set.
    ///
    /// # Errors
    /// [`ErrorKind::DataLoss`] for lost prepared data, and whatever a committer
    /// says that trying again does not mend.
    pub async fn publish(&self, set: &PendingSet) -> Result<Vec<Committable>> {
        let committer = self.committer(&set.id)?;
        let Some(files) = self.list(set).await? else { return Ok(Vec::new()) };
        let publishes =
            files.iter().map(|file| self.publish_one(committer.as_ref(), set, file).boxed());
        futures::stream::iter(publishes.collect::<Vec<_>>())
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        Ok(files)
    }

    /// Looks which files of a set that cannot be published as a whole are
    /// visible, and makes visible what still can be.
    ///
    /// # Errors
    /// Whatever a committer says that trying again does not mend.
    pub async fn survey(&self, set: &PendingSet) -> Result<Survey> {
        let committer = self.committer(&set.id)?;
        let mut survey = Survey::default();
        let files = match load(self.swaps.store().as_ref(), set).await {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::DataLoss => return Ok(survey),
            Err(error) => return Err(error),
        };
        for file in files {
            let mut backoff = Backoff::new(seed(&file.name));
            let outcome = loop {
                match committer.commit(&file).await {
                    Err(error) if error.is_retryable() => {
                        tracing::warn!(%error, file = file.name, "publishing failed, trying again");
                        backoff.wait().await;
                    }
                    outcome => break outcome?,
                }
            };
            match outcome {
                Outcome::Committed | Outcome::AlreadyCommitted => survey.visible.push(file),
                Outcome::Missing => survey.missing.push(file),
            }
        }
        Ok(survey)
    }

    /// The committables of a set; nothing when somebody else has published them
    /// and cleaned up.
    async fn list(&self, set: &PendingSet) -> Result<Option<Vec<Committable>>> {
        let mut backoff = Backoff::new(set.id.checkpoint);
        let mut missing_since = None;
        loop {
            if let Some(files) = find(self.swaps.store().as_ref(), set).await? {
                return Ok(Some(files));
            }
            match self.why_gone(&set.id, &mut missing_since).await {
                Gone::Done => return Ok(None),
                Gone::Lost => return Err(lost(set, "the list of files")),
                Gone::Unclear => backoff.wait().await,
            }
        }
    }

    fn committer(&self, id: &SetId) -> Result<&Arc<dyn Committer>> {
        self.committers.get(&id.sink).ok_or_else(|| {
            Error::config(format!(
                "sink {:?} has files that are committed but not yet visible, and the pipeline no \
                 longer has that sink: bring it back for one run",
                id.sink
            ))
        })
    }

    async fn publish_one(
        &self,
        committer: &dyn Committer,
        set: &PendingSet,
        file: &Committable,
    ) -> Result<()> {
        let mut backoff = Backoff::new(seed(&file.name));
        let mut missing_since = None;
        loop {
            match committer.commit(file).await {
                Ok(Outcome::Committed | Outcome::AlreadyCommitted) => {
                    crash::at("between-publishes");
                    return Ok(());
                }
                Ok(Outcome::Missing) => match self.why_gone(&set.id, &mut missing_since).await {
                    Gone::Done => return Ok(()),
                    Gone::Lost => return Err(lost(set, &file.name).with("rows", file.rows)),
                    Gone::Unclear => {}
                },
                Err(error) if error.is_retryable() => {
                    metrics::counter!("tidelock_retries_total", "operation" => "publish")
                        .increment(1);
                    tracing::warn!(%error, file = file.name, attempt = backoff.attempts() + 1, "publishing failed, trying again");
                }
                Err(error) => return Err(error),
            }
            backoff.wait().await;
        }
    }

    /// What is gone was published, cleared and cleaned up by somebody else, or
    /// it is lost. `since` is when it was first missed.
    async fn why_gone(&self, id: &SetId, since: &mut Option<Instant>) -> Gone {
        match self.swaps.read().await {
            Ok(record) if !record.is_pending(id) => Gone::Done,
            Ok(_) => match since.get_or_insert_with(Instant::now).elapsed() >= LOST_AFTER {
                true => Gone::Lost,
                false => Gone::Unclear,
            },
            Err(error) => {
                tracing::warn!(%error, "reading the record failed");
                Gone::Unclear
            }
        }
    }

    /// Deletes the staged bytes of a set that the record no longer lists. A
    /// failure is only logged: whoever collects orphans finds them.
    pub async fn discard(&self, id: &SetId, files: &[Committable], spilled: Option<String>) {
        if let Some(committer) = self.committers.get(&id.sink)
            && let Err(error) = committer.discard(files).await
        {
            tracing::warn!(%error, sink = id.sink, "staged bytes could not be deleted");
        }
        crash::at("between-deletions");
        if let Some(object) = spilled
            && let Err(error) = self.swaps.store().delete_objects(&[object]).await
        {
            tracing::warn!(%error, "an object beside the record could not be deleted");
        }
    }
}

/// Why something that the record listed is not there.
enum Gone {
    /// Its set is no longer pending.
    Done,
    /// Its set has been pending all the while.
    Lost,
    /// Not long enough to tell, or the record cannot be read.
    Unclear,
}

fn lost(set: &PendingSet, object: &str) -> Error {
    let offsets: Vec<_> =
        set.partitions.iter().map(|(partition, range)| format!("{partition} {range}")).collect();
    Error::new(
        ErrorKind::DataLoss,
        "lost prepared data: the checkpoint is committed, and neither the staged bytes nor the \
         final file exist",
    )
    .object(object)
    .with("sink", &set.id.sink)
    .with("incarnation", set.id.incarnation)
    .with("checkpoint", set.id.checkpoint)
    .with("offsets", offsets.join(", "))
}

/// Jitter that follows the name, so that a replay waits as long.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Puts committables into the record, or beside it when they are many. The
/// object's name says who wrote it and when, and its hash stands in the record.
pub async fn file_away(
    store: &dyn RecordStore,
    id: &SetId,
    files: Vec<Committable>,
    inline_bytes: usize,
) -> Result<Files> {
    let bytes = serde_json::to_vec(&files)
        .map_err(|e| Error::new(ErrorKind::Other, "cannot encode committables").source(e))?;
    if bytes.len() <= inline_bytes {
        return Ok(Files::Inline(files));
    }
    let object = format!("pending/{}-{}-{}.json", id.incarnation, id.checkpoint, id.sink);
    let sha256 = hex(&Sha256::digest(&bytes));
    store.put_object(&object, Bytes::from(bytes)).await?;
    crash::at("filed-away-before-swap");
    Ok(Files::Spilled { object, sha256, count: files.len() as u64 })
}

/// The committables of a set, from wherever they are.
///
/// # Errors
/// [`ErrorKind::DataLoss`] when the object that lists them is gone, as it also
/// is when the set was published and cleared meanwhile.
pub async fn load(store: &dyn RecordStore, set: &PendingSet) -> Result<Vec<Committable>> {
    let gone = || {
        let message = "the list of files of a committed checkpoint is gone";
        Error::new(ErrorKind::DataLoss, message).with("checkpoint", set.id.checkpoint)
    };
    find(store, set).await?.ok_or_else(gone)
}

/// The same; nothing when the object is gone.
async fn find(store: &dyn RecordStore, set: &PendingSet) -> Result<Option<Vec<Committable>>> {
    let (object, sha256) = match &set.files {
        Files::Inline(files) => return Ok(Some(files.clone())),
        Files::Spilled { object, sha256, .. } => (object, sha256),
    };
    let mut backoff = Backoff::new(seed(object));
    let bytes = loop {
        match store.get_object(object).await {
            Ok(Some(bytes)) => break bytes,
            Ok(None) => return Ok(None),
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, object, "reading failed, trying again");
                backoff.wait().await;
            }
            Err(error) => return Err(error),
        }
    };
    if hex(&Sha256::digest(&bytes)) != *sha256 {
        return Err(Error::new(
            ErrorKind::Conflict,
            "the list of files of a committed checkpoint was changed",
        )
        .object(object));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::new(ErrorKind::Conflict, "the list of files is not readable")
            .object(object)
            .source(e)
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
