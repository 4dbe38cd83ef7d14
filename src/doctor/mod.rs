//! What a store really does, and which guarantees therefore hold on it.
//!
//! ```no_run
//! # async fn example() -> tidelock::connector::Result<()> {
//! use tidelock::store::{Store, StoreConfig};
//!
//! let store = Store::open(&StoreConfig::new("s3://lake/orders"))?;
//! let diagnosis = tidelock::doctor::examine(&store).await?;
//! println!("{}", diagnosis.render());
//! # Ok(())
//! # }
//! ```
//!
//! # Contract
//! * Everything happens in a folder of its own, `_tidelock/_doctor/<random>/`,
//!   which is removed afterwards; what is left of it is said.
//! * The checks go through the very code that pipelines use (compare-and-swap,
//!   staging, publishing) wherever there is such code, and through the
//!   provider's client only for what that code hides.
//! * A check that could not be made is not a check that passed: a guarantee
//!   holds when all that it rests upon was seen to work.

mod basics;
mod conditional;
mod folder;
mod multipart;
mod render;
mod staging;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use serde::Serialize;
use tidelock_connector::Result;
use tidelock_store::{Beneath, Store};

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trial {
    /// Put, read, read a part, ask for the size, list and delete.
    Rights,
    /// Objects are in listings as soon as they are written, and no longer than
    /// they are there.
    ListAfterWrite,
    /// The store's clock against ours.
    Clock,
    /// Metadata of an object come back as they were given.
    Token,
    /// The same object created twice.
    CreateTwice,
    /// Updates that expect the right version, and a stale one.
    Update,
    /// Writers that race for a new object.
    RacingCreates,
    /// Writers that race for the next version of an object.
    RacingUpdates,
    /// Staged bytes copied to, or renamed to, another key.
    Copy,
    /// The same staged bytes published twice.
    PublishTwice,
    /// Publishing cut at some moment and tried again.
    PublishCut,
    /// Publishing what is not there.
    PublishMissing,
    /// An upload in parts before and after its completion.
    Multipart,
    /// The same upload completed twice.
    CompleteTwice,
    /// An upload given up.
    Abort,
    /// An upload given up after it was completed.
    AbortAfterComplete,
    /// Completion cut at some moment and tried again.
    CompleteCut,
    /// `link(2)`, which fails where something is.
    Link,
    /// Files and folders forced to the disk.
    Sync,
    /// Nothing is left behind.
    CleanUp,
}

/// What came of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it must be.
    Good,
    /// Not as it must be.
    Bad,
    /// Could not be tried, or says nothing about right and wrong.
    Unknown,
}

/// What a trial found, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    outcome: Outcome,
    text: String,
}

impl Finding {
    fn good(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::Good, text: text.into() }
    }

    fn bad(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::Bad, text: text.into() }
    }

    fn unknown(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, text: text.into() }
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was tried.
    pub trial: Trial,
    /// What came of it.
    pub outcome: Outcome,
    /// What was found, in words.
    pub found: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// Something that pipelines rest upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Guarantee {
    /// Every row visible exactly once: fencing, staging and rights together.
    ExactlyOnce,
    /// Of all writers of the record one wins: zombies are shut out.
    Fencing,
    /// Files become visible by a copy on the server, or a rename.
    StagingByCopy,
    /// Files could become visible by the completion of an upload.
    StagingByUpload,
    /// Bytes that nobody needs any more can be found and deleted.
    OrphanCollection,
}

/// Whether a guarantee holds, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The guarantee.
    pub guarantee: Guarantee,
    /// Whether everything that it rests upon was seen to work.
    pub holds: bool,
    /// The reasons, as a half sentence.
    pub why: String,
}

/// Everything that was found out about a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The store.
    pub url: String,
    /// The folder in which it was tried.
    pub folder: String,
    /// Every trial, in order.
    pub checks: Vec<Check>,
    /// What follows from them.
    pub verdicts: Vec<Verdict>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

impl Diagnosis {
    /// Whether pipelines may promise exactly once on this store.
    pub fn is_exactly_once(&self) -> bool {
        self.holds(Guarantee::ExactlyOnce)
    }

    /// Whether a guarantee holds.
    pub fn holds(&self, guarantee: Guarantee) -> bool {
        self.verdicts.iter().any(|verdict| verdict.guarantee == guarantee && verdict.holds)
    }

    /// What came of a trial; `None` when it does not apply to the store.
    pub fn check(&self, trial: Trial) -> Option<&Check> {
        self.checks.iter().find(|check| check.trial == trial)
    }
}

/// Tries everything, one after the other; takes some seconds.
///
/// # Errors
/// When the store cannot be reached at all, or refuses us: those of
/// [`Store::check`].
pub async fn examine(store: &Store) -> Result<Diagnosis> {
    store.check().await?;
    let folder = format!("_tidelock/_doctor/{}", uuid::Uuid::new_v4().as_simple());
    let mut exam = Exam { store, folder, checks: Vec::new() };
    basics::examine(&mut exam).await;
    conditional::examine(&mut exam).await;
    staging::examine(&mut exam).await;
    match store.beneath() {
        Beneath::Folder(root) => folder::examine(&mut exam, &root).await,
        Beneath::Object { store: client, multipart } => {
            multipart::examine(&mut exam, client.as_ref(), multipart.as_deref()).await;
        }
        _ => {}
    }
    let check = tried(Trial::CleanUp, clean_up(store, &exam.folder)).await;
    exam.checks.push(check);
    let Exam { folder, checks, .. } = exam;
    let (verdicts, notes) = verdict::judge(&checks);
    Ok(Diagnosis { url: store.url().to_owned(), folder, checks, verdicts, notes })
}

/// An examination under way.
struct Exam<'a> {
    store: &'a Store,
    folder: String,
    checks: Vec<Check>,
}

impl Exam<'_> {
    /// A path of the examination's own.
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }
}

/// Makes one trial; an error is a finding like any other.
async fn tried(trial: Trial, work: impl Future<Output = Result<Finding>>) -> Check {
    let began = Instant::now();
    let finding = match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(finding)) => finding,
        Ok(Err(error)) => Finding::bad(error.to_string()),
        Err(_) => Finding::bad(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(?trial, outcome = ?finding.outcome, found = finding.text, ms, "tried");
    Check { trial, outcome: finding.outcome, found: finding.text, ms }
}

/// Deletes everything, and looks whether it is gone.
async fn clean_up(store: &Store, folder: &str) -> Result<Finding> {
    let left: Vec<String> = store.list(folder).map_ok(|entry| entry.path).try_collect().await?;
    let count = left.len();
    store.delete(&left).await?;
    if let Beneath::Folder(root) = store.beneath() {
        folder::remove(&root, folder).await?;
    }
    let left: Vec<String> = store.list(folder).map_ok(|entry| entry.path).try_collect().await?;
    Ok(match left.first() {
        None => Finding::good(format!("{count} objects deleted, nothing is left")),
        Some(first) => Finding::bad(format!("{} objects are left, such as {first}", left.len())),
    })
}
