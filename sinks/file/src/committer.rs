//! The second phase: staged files become visible.

use async_trait::async_trait;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tidelock_connector::{Committable, Committer, Error, ErrorKind, Incarnation, Outcome, Result};
use tidelock_store::{Published, Store};

use crate::names;

/// How many objects are deleted with one request.
const DELETED_AT_ONCE: usize = 1_000;

/// Publishes staged files, from whatever process.
///
/// A committable's detail is `{"moves": [{"from", "to", "size"}, …]}`, to be
/// made in this order: a sidecar is visible before its data file. All paths are
/// relative to the sink's URL.
#[derive(Debug, Clone)]
pub struct FileCommitter {
    store: Store,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Detail {
    pub(crate) moves: Vec<Move>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) size: u64,
}

impl Detail {
    pub(crate) fn of(committable: &Committable) -> Result<Self> {
        Self::deserialize(&committable.detail).map_err(|e| {
            let message = "the record holds a committable that this sink did not make";
            Error::new(ErrorKind::Conflict, message).object(&committable.name).source(e)
        })
    }

    pub(crate) fn to_value(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self)
            .map_err(|e| Error::new(ErrorKind::Other, "cannot write a committable").source(e))
    }
}

impl FileCommitter {
    /// A committer of everything that is staged on `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Committer for FileCommitter {
    async fn commit(&self, committable: &Committable) -> Result<Outcome> {
        let mut outcome = Outcome::AlreadyCommitted;
        for Move { from, to, size } in Detail::of(committable)?.moves {
            match self.store.publish(&from, &to, size).await? {
                Published::Committed => outcome = Outcome::Committed,
                Published::AlreadyThere => {}
                Published::Missing => return Ok(Outcome::Missing),
            }
        }
        Ok(outcome)
    }

    async fn discard(&self, committables: &[Committable]) -> Result<()> {
        let mut staged = Vec::new();
        for committable in committables {
            staged.extend(Detail::of(committable)?.moves.into_iter().map(|step| step.from));
        }
        for paths in staged.chunks(DELETED_AT_ONCE) {
            self.store.delete(paths).await?;
        }
        Ok(())
    }

    async fn staged(&self, pipeline: &str) -> Result<Vec<Incarnation>> {
        let folders = self.store.list_folders(&names::staging(pipeline)).await?;
        Ok(folders.iter().filter_map(|name| Incarnation::parse(name)).collect())
    }

    async fn collect(&self, pipeline: &str, incarnation: Incarnation) -> Result<()> {
        let folder = names::staged_by(pipeline, incarnation);
        let mut chunks =
            self.store.list(&folder).map_ok(|entry| entry.path).try_chunks(DELETED_AT_ONCE);
        while let Some(paths) = chunks.try_next().await.map_err(|e| e.1)? {
            self.store.delete(&paths).await?;
        }
        Ok(())
    }
}
