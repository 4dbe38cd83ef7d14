//! Reading one data file: what it says of itself, and whose it is.

use std::error::Error as _;

use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_file::inspect::{self, Counted, Entry};
use tidelock_file::{FileFooter, Store};

use super::sets::{SetKey, set_of_name};

/// What a data file turned out to be.
#[derive(Debug)]
pub(super) enum Reading {
    /// Deleted since it was listed.
    Gone,
    /// Nothing of ours.
    Foreign,
    /// Of another pipeline, or of another sink.
    Other,
    /// It has a name of ours and cannot be read.
    Unreadable { set: SetKey, why: String },
    /// A file of the sink.
    Ours { footer: Box<FileFooter>, rows: Option<u64>, place: Place },
}

/// Where a file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Under its own key.
    Own,
    /// Under another key; the file under its own is there as well.
    Copy,
    /// Under another key, and nothing is under its own.
    Astray,
}

/// Reads the files of one sink.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) store: Store,
    pub(super) pipeline: String,
    pub(super) sink: String,
    /// The folders of other pipelines in the same store.
    pub(super) others: Vec<String>,
    pub(super) deep: bool,
}

impl Reader {
    /// A reader of the files of `sink`; looks which pipelines share the store.
    pub(super) async fn open(
        store: &Store,
        pipeline: &str,
        sink: &str,
        deep: bool,
    ) -> Result<Self> {
        let others = store.list_folders("_tidelock").await?;
        Ok(Self {
            store: store.clone(),
            pipeline: pipeline.to_owned(),
            sink: sink.to_owned(),
            others: others.into_iter().filter(|folder| folder != pipeline).collect(),
            deep,
        })
    }

    /// Reads a file: its footer, and its rows when the look is a deep one.
    ///
    /// # Errors
    /// Those of the store; what is wrong with the file is no error.
    pub(super) async fn read(&self, entry: &Entry) -> Result<(Reading, Option<Counted>)> {
        let reading = self.footer(entry).await?;
        let rows_matter = match &reading {
            Reading::Ours { .. } => true,
            Reading::Foreign => is_data(&entry.path),
            _ => false,
        };
        if !self.deep || !rows_matter {
            return Ok((reading, None));
        }
        match inspect::count(&self.store, entry).await {
            Ok(counted) => Ok((reading, Some(counted))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok((Reading::Gone, None)),
            Err(error) if is_damage(&error) => Ok((damaged(entry, &error), None)),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn footer(&self, entry: &Entry) -> Result<Reading> {
        let described = match inspect::describe(&self.store, &self.pipeline, entry).await {
            Ok(Some(described)) => described,
            Ok(None) => return self.without_footer(entry).await,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Reading::Gone),
            Err(error) if is_damage(&error) => return Ok(damaged(entry, &error)),
            Err(error) => return Err(error),
        };
        let footer = Box::new(described.footer);
        if footer.pipeline != self.pipeline || footer.sink != self.sink {
            return Ok(Reading::Other);
        }
        let place = if footer.key == entry.path {
            Place::Own
        } else if self.store.size(&footer.key).await?.is_some() {
            Place::Copy
        } else {
            Place::Astray
        };
        Ok(Reading::Ours { footer, rows: described.rows, place })
    }

    /// A file that says nothing; another pipeline may say something of it.
    async fn without_footer(&self, entry: &Entry) -> Result<Reading> {
        if is_data(&entry.path) && !entry.path.ends_with(".parquet") {
            for folder in &self.others {
                let sidecar = format!("_tidelock/{folder}/footers/{}.json", entry.path);
                if self.store.size(&sidecar).await?.is_some() {
                    return Ok(Reading::Other);
                }
            }
        }
        Ok(Reading::Foreign)
    }
}

/// Whether a name is that of a file as the sinks write them.
pub(super) fn is_data(path: &str) -> bool {
    [".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst"].iter().any(|end| path.ends_with(end))
}

fn damaged(entry: &Entry, error: &Error) -> Reading {
    match set_of_name(&entry.path) {
        Some(set) => Reading::Unreadable { set, why: reason(error) },
        None => Reading::Foreign,
    }
}

/// The error without its context, which repeats the path.
fn reason(error: &Error) -> String {
    match error.source() {
        Some(cause) => format!("{}: {cause}", error.message()),
        None => error.message().to_owned(),
    }
}

/// Whether an error says something of the file rather than of the store.
fn is_damage(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        // Readers of whole files wrap what the store said.
        if let Some(error) = error.downcast_ref::<Error>()
            && (error.is_retryable() || error.kind() == ErrorKind::Denied)
        {
            return false;
        }
        cause = error.source();
    }
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Other)
}
