//! The port through which the record is read and written.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_store::{Store, Version, Versioned};
use tokio::sync::Mutex;

use super::mutation::{Mutation, planted};

/// Where a pipeline's record lives: one mutable object, written by
/// compare-and-swap, and immutable objects beside it.
///
/// An error of [`write`](Self::write) never says that nothing was written.
#[async_trait]
pub trait RecordStore: Send + Sync {
    /// The record's bytes and their version; `None` when there is no record.
    async fn read(&self) -> Result<Option<(Bytes, RecordVersion)>>;

    /// Replaces the version `expected`, or creates the record when it is
    /// `None`.
    async fn write(&self, bytes: Bytes, expected: Option<&RecordVersion>) -> Result<RecordVersion>;

    /// Writes an immutable object beside the record.
    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<()>;

    /// Reads an immutable object from beside the record.
    async fn get_object(&self, name: &str) -> Result<Option<Bytes>>;

    /// Deletes objects from beside the record; missing ones are fine.
    async fn delete_objects(&self, names: &[String]) -> Result<()>;
}

/// A version of the record, comparable and otherwise opaque.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordVersion {
    /// Of a store.
    Store(Version),
    /// Of memory.
    Memory(u64),
}

/// The record on a store, under `_tidelock/<pipeline>/`.
#[derive(Clone)]
pub struct StoredRecord {
    store: Store,
    folder: String,
    head: Versioned,
}

impl StoredRecord {
    /// The record of `pipeline` on `store`.
    pub fn new(store: Store, pipeline: &str) -> Self {
        let folder = format!("_tidelock/{pipeline}");
        let head = store.versioned(&format!("{folder}/head.json"));
        Self { store, folder, head }
    }

    fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }
}

#[async_trait]
impl RecordStore for StoredRecord {
    async fn read(&self) -> Result<Option<(Bytes, RecordVersion)>> {
        Ok(self.head.read().await?.map(|(bytes, version)| (bytes, RecordVersion::Store(version))))
    }

    async fn write(&self, bytes: Bytes, expected: Option<&RecordVersion>) -> Result<RecordVersion> {
        if planted(Mutation::BlindOverwrite) {
            self.store.put(&self.object("head.json"), bytes).await?;
            let found = self.head.read().await?;
            let gone = || Error::new(ErrorKind::Unavailable, "the record is gone");
            return found.map(|(_, version)| RecordVersion::Store(version)).ok_or_else(gone);
        }
        let expected = match expected {
            None => None,
            Some(RecordVersion::Store(version)) => Some(version),
            Some(RecordVersion::Memory(_)) => {
                return Err(Error::new(ErrorKind::Other, "a version of another record store"));
            }
        };
        self.head.write(bytes, expected).await.map(RecordVersion::Store)
    }

    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.store.put(&self.object(name), bytes).await
    }

    async fn get_object(&self, name: &str) -> Result<Option<Bytes>> {
        self.store.get(&self.object(name)).await
    }

    async fn delete_objects(&self, names: &[String]) -> Result<()> {
        let paths: Vec<String> = names.iter().map(|name| self.object(name)).collect();
        self.store.delete(&paths).await
    }
}

/// A record in memory, gone with the process: for pipelines whose sinks are
/// all at-least-once, where the source's committed offsets are enough to go on
/// from.
#[derive(Clone, Default)]
pub struct MemoryRecord(Arc<Mutex<MemoryState>>);

#[derive(Default)]
struct MemoryState {
    head: Option<(Bytes, u64)>,
    objects: std::collections::BTreeMap<String, Bytes>,
}

#[async_trait]
impl RecordStore for MemoryRecord {
    async fn read(&self) -> Result<Option<(Bytes, RecordVersion)>> {
        let state = self.0.lock().await;
        Ok(state.head.as_ref().map(|(bytes, v)| (bytes.clone(), RecordVersion::Memory(*v))))
    }

    async fn write(&self, bytes: Bytes, expected: Option<&RecordVersion>) -> Result<RecordVersion> {
        let mut state = self.0.lock().await;
        let current = state.head.as_ref().map(|(_, version)| RecordVersion::Memory(*version));
        if current.as_ref() != expected {
            return Err(Error::new(ErrorKind::Fenced, "the record has another version"));
        }
        let version = state.head.as_ref().map_or(1, |(_, version)| version + 1);
        state.head = Some((bytes, version));
        Ok(RecordVersion::Memory(version))
    }

    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.0.lock().await.objects.insert(name.to_owned(), bytes);
        Ok(())
    }

    async fn get_object(&self, name: &str) -> Result<Option<Bytes>> {
        Ok(self.0.lock().await.objects.get(name).cloned())
    }

    async fn delete_objects(&self, names: &[String]) -> Result<()> {
        let mut state = self.0.lock().await;
        for name in names {
            state.objects.remove(name);
        }
        Ok(())
    }
}
