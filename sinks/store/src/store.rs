//! The store: one type in front of every place that bytes go to.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::ObjectStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use tidelock_connector::{Error, ErrorKind, Result};

use crate::config::{self, StoreConfig};
use crate::local::Local;
use crate::object::Object;
use crate::stage::PART_BYTES;
use crate::{StagedWriter, Versioned};

/// How long a store may take to answer [`Store::check`].
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// A folder or a prefix of a bucket. Cheap to clone; every path is relative to
/// the URL that it was opened with.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    backend: Backend,
}

pub(crate) enum Backend {
    Local(Local),
    Object(Object),
}

/// What a [`Store`] stands upon, for whoever examines it. Keys and paths are
/// those of the provider: [`Store::key`] makes them.
#[non_exhaustive]
pub enum Beneath {
    /// A local folder.
    Folder(std::path::PathBuf),
    /// An object store.
    Object {
        /// The provider's client, which tries requests again by itself.
        store: Arc<dyn ObjectStore>,
        /// Uploads in parts by their plain ids, where the provider is known.
        multipart: Option<Arc<dyn MultipartStore>>,
    },
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path, relative to the store.
    pub path: String,
    /// How many bytes.
    pub size: u64,
}

/// What [`Store::publish`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is visible now.
    Committed,
    /// It was visible already.
    AlreadyThere,
    /// Neither the staged bytes nor the final ones are there.
    Missing,
}

impl Store {
    /// Opens the store. Nothing is asked of it yet: see [`check`](Self::check).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an unknown scheme, a feature that was not
    /// built, an endpoint without TLS that is not permitted.
    pub fn open(config: &StoreConfig) -> Result<Self> {
        let (url, backend) = config::open(config)?;
        Ok(Self { inner: Arc::new(Inner { url, backend }) })
    }

    /// A prefix of a given object store: a wrapper that injects faults, a
    /// provider that the URL schemes do not know. Its client should not try
    /// conditional writes again by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when `prefix` is not a valid key.
    pub fn from_object_store(
        url: impl Into<String>,
        store: Arc<dyn ObjectStore>,
        prefix: &str,
    ) -> Result<Self> {
        Self::with_parts_of(PART_BYTES, url, store, prefix)
    }

    /// The same with another size of uploaded parts, so that a test needs no
    /// large files to upload several.
    ///
    /// # Errors
    /// As [`from_object_store`](Self::from_object_store).
    #[doc(hidden)]
    pub fn with_parts_of(
        bytes: usize,
        url: impl Into<String>,
        store: Arc<dyn ObjectStore>,
        prefix: &str,
    ) -> Result<Self> {
        let prefix = Path::parse(prefix)
            .map_err(|e| Error::config("not a valid key").object(prefix).source(e))?;
        let mut object = Object::new(store, prefix);
        object.part_bytes = bytes;
        let backend = Backend::Object(object);
        Ok(Self { inner: Arc::new(Inner { url: url.into(), backend }) })
    }

    /// The URL, in a form that opens the same store again.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// What the store stands upon.
    pub fn beneath(&self) -> Beneath {
        match self.backend() {
            Backend::Local(local) => Beneath::Folder(local.root().to_owned()),
            Backend::Object(object) => Beneath::Object {
                store: Arc::clone(&object.store),
                multipart: object.multipart.as_ref().map(|multipart| Arc::clone(&multipart.0)),
            },
        }
    }

    /// The provider's key of `path`; in a local folder, `path` itself.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it cannot be one.
    pub fn key(&self, path: &str) -> Result<Path> {
        match self.backend() {
            Backend::Local(_) => Path::parse(path)
                .map_err(|e| Error::config("not a valid path").object(path).source(e)),
            Backend::Object(object) => object.key(path),
        }
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.inner.backend
    }

    /// Asks whether the bucket is there, or makes the folder, and whether the
    /// credentials are good. Answers within 20 seconds.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: no such bucket. [`ErrorKind::Denied`]: wrong
    /// credentials or rights. [`ErrorKind::Unavailable`], retryable: nobody
    /// answers.
    pub async fn check(&self) -> Result<()> {
        let object = match self.backend() {
            Backend::Local(local) => return local.check().await,
            Backend::Object(object) => object,
        };
        let advice = |kind| match kind {
            ErrorKind::NotFound => "the bucket does not exist: create it, or correct the url",
            ErrorKind::Denied => {
                "access is denied: the credentials in the environment are wrong, \
                 or lack the right to list, read, write and delete here"
            }
            _ if object.hint.is_some() => {
                "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            }
            _ => "the store cannot be reached: is the endpoint right, and does the server run?",
        };
        let error = match tokio::time::timeout(CHECK_TIMEOUT, object.check()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Error::new(error.kind(), advice(error.kind())).source(error),
            Err(_) => {
                let waited = format!("no answer within {} s", CHECK_TIMEOUT.as_secs());
                let kind = ErrorKind::Unavailable;
                Error::new(kind, advice(kind)).source(waited)
            }
        };
        let error = error.with("url", self.url());
        let error = match &object.endpoint {
            Some(endpoint) => error.with("endpoint", endpoint),
            None => error,
        };
        Err(match object.hint {
            Some(hint) => error.with("hint", hint),
            None => error,
        })
    }

    /// Starts writing a file of unknown size.
    ///
    /// # Errors
    /// When the local file cannot be made; object stores are asked only when
    /// there is something to send.
    pub async fn stage(&self, path: &str) -> Result<StagedWriter> {
        StagedWriter::open(self, path).await
    }

    /// Makes staged bytes visible under their final path. May be called again
    /// after any outcome and by several processes at once.
    ///
    /// Object stores copy on the server and keep the staged bytes; a local
    /// file is renamed. `to` must belong to this attempt alone, for then its
    /// size tells whose it is.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when something of another size is at `to`.
    /// Otherwise it is not published, or may not be, and the staged bytes are
    /// still there: try again where the error is retryable.
    pub async fn publish(&self, from: &str, to: &str, size: u64) -> Result<Published> {
        let object = match self.backend() {
            Backend::Local(local) => return local.publish(from, to, size).await,
            Backend::Object(object) => object,
        };
        let Err(error) = object.copy(from, to).await else { return Ok(Published::Committed) };
        // The staged bytes are asked for first: whoever deletes them has
        // published before, so that `to` is there if they are gone.
        let staged = object.size(from).await?;
        match object.size(to).await? {
            Some(found) if found == size => Ok(Published::AlreadyThere),
            Some(found) => Err(conflict(to, size, found)),
            None if staged.is_none() => Ok(Published::Missing),
            // The source is there, so "not found" was a passing answer.
            None if error.kind() == ErrorKind::NotFound => Err(error.retryable(true)),
            None => Err(error),
        }
    }

    /// Writes an object, whatever is there.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        match self.backend() {
            Backend::Local(local) => local.put(path, bytes).await,
            Backend::Object(object) => object.put(path, bytes).await,
        }
    }

    /// Reads an object.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        match self.backend() {
            Backend::Local(local) => local.get(path).await,
            Backend::Object(object) => object.get(path).await,
        }
    }

    /// Reads a part of an object.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such object.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        match self.backend() {
            Backend::Local(local) => local.get_range(path, range).await,
            Backend::Object(object) => object.get_range(path, range).await,
        }
    }

    /// How many bytes an object has.
    pub async fn size(&self, path: &str) -> Result<Option<u64>> {
        match self.backend() {
            Backend::Local(local) => local.size(path).await,
            Backend::Object(object) => object.size(path).await,
        }
    }

    /// Deletes objects; those that are not there do not count.
    pub async fn delete(&self, paths: &[String]) -> Result<()> {
        match self.backend() {
            Backend::Local(local) => local.delete(paths).await,
            Backend::Object(object) => object.delete(paths).await,
        }
    }

    /// Every object below the folder `prefix`, in no particular order; the
    /// empty prefix lists all. Temporary files of writers are not shown.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        match self.backend() {
            Backend::Local(local) => local.list(prefix),
            Backend::Object(object) => object.list(prefix),
        }
    }

    /// The names of the folders directly below `prefix`.
    pub async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        match self.backend() {
            Backend::Local(local) => local.list_folders(prefix).await,
            Backend::Object(object) => object.list_folders(prefix).await,
        }
    }

    /// The one mutable object at `path`.
    pub fn versioned(&self, path: &str) -> Versioned {
        Versioned::new(self.clone(), path)
    }

    /// Whether the store really refuses conditional writes whose condition
    /// does not hold. Leaves nothing behind in the folder `prefix`.
    ///
    /// # Errors
    /// Whatever keeps the question from being answered.
    pub async fn probe_conditional_writes(&self, prefix: &str) -> Result<bool> {
        let path = format!("{prefix}/probe-{}.json", uuid::Uuid::new_v4().simple());
        let probe = self.versioned(path.trim_start_matches('/'));
        let answer = probe.probe().await;
        let cleaned = probe.remove().await;
        let answer = answer?;
        cleaned.map(|()| answer)
    }
}

pub(crate) fn conflict(path: &str, expected: u64, found: u64) -> Error {
    Error::new(ErrorKind::Conflict, "something else is under the file's final name")
        .object(path)
        .with("expected_bytes", expected)
        .with("found_bytes", found)
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.inner.url).finish()
    }
}
