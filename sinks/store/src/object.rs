//! Object stores, through `object_store`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, Error as StoreError, ObjectStore, ObjectStoreExt};
use tidelock_connector::{Error, Result};

use crate::error;
use crate::stage::PART_BYTES;
use crate::store::Entry;

/// A prefix of an object store.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// For everything that may be tried again without a change of meaning.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same store with a client that sends each request once.
    pub(crate) once: Arc<dyn ObjectStore>,
    /// Uploads in parts by their plain ids, where the provider is known.
    pub(crate) multipart: Option<Multipart>,
    prefix: Path,
    /// The size of an uploaded part.
    pub(crate) part_bytes: usize,
    /// Whether a copy may replace something. S3 knows no other copy, so that
    /// there a second publisher copies the same bytes again.
    pub(crate) copy_mode: CopyMode,
    /// The server, where it is not the provider's own.
    pub(crate) endpoint: Option<String>,
    /// What to say when the store cannot be reached.
    pub(crate) hint: Option<&'static str>,
}

/// A store that takes uploads in parts.
#[derive(Clone)]
pub(crate) struct Multipart(pub(crate) Arc<dyn MultipartStore>);

impl fmt::Debug for Multipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Multipart")
    }
}

impl Object {
    /// A store whose client does not try conditional writes again by itself.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self::with_conditional(Arc::clone(&store), store, prefix)
    }

    pub(crate) fn with_conditional(
        store: Arc<dyn ObjectStore>,
        once: Arc<dyn ObjectStore>,
        prefix: Path,
    ) -> Self {
        let copy_mode = CopyMode::Overwrite;
        Self {
            store,
            once,
            multipart: None,
            prefix,
            part_bytes: PART_BYTES,
            copy_mode,
            endpoint: None,
            hint: None,
        }
    }

    /// The key of `path`.
    pub(crate) fn key(&self, path: &str) -> Result<Path> {
        let key = match self.prefix.as_ref() {
            "" => Path::parse(path),
            prefix => Path::parse(format!("{prefix}/{}", path.trim_start_matches('/'))),
        };
        key.map_err(|e| Error::config("not a valid key").object(path).source(e))
    }

    /// The path of `key`, which is below our prefix.
    fn path(&self, key: &Path) -> String {
        let path = key.as_ref();
        path.strip_prefix(self.prefix.as_ref()).unwrap_or(path).trim_start_matches('/').to_owned()
    }

    /// The first page of the listing: proves that the bucket is there and that
    /// we may look into it.
    pub(crate) async fn check(&self) -> Result<()> {
        match self.store.list(Some(&self.prefix)).next().await {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(e)) => Err(error::store(e, "list the bucket", self.prefix.as_ref())),
        }
    }

    pub(crate) async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        let key = self.key(path)?;
        match self.store.put(&key, bytes.into()).await {
            Ok(_) => Ok(()),
            Err(e) => Err(error::store(e, "write", path)),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let failed = |e| error::store(e, "read", path);
        match self.store.get(&self.key(path)?).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(failed)?)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    pub(crate) async fn get_range(&self, path: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
        let key = self.key(path)?;
        self.store.get_range(&key, range).await.map_err(|e| error::store(e, "read", path))
    }

    pub(crate) async fn size(&self, path: &str) -> Result<Option<u64>> {
        match self.store.head(&self.key(path)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(e) => Err(error::store(e, "read the size", path)),
        }
    }

    pub(crate) async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.key(from)?, self.key(to)?);
        self.store
            .copy_opts(&source, &target, CopyOptions::new().with_mode(self.copy_mode))
            .await
            .map_err(|e| error::store(e, "publish", to).with("staged", from))
    }

    pub(crate) async fn delete(&self, paths: &[String]) -> Result<()> {
        let keys = paths.iter().map(|path| self.key(path)).collect::<Result<Vec<_>>>()?;
        let mut answers = self.store.delete_stream(stream::iter(keys.into_iter().map(Ok)).boxed());
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(e) => return Err(error::store(e, "delete", &paths.join(", "))),
            }
        }
        Ok(())
    }

    pub(crate) fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let key = match self.key(prefix) {
            Ok(key) => key,
            Err(e) => return stream::iter([Err(e)]).boxed(),
        };
        let this = self.clone();
        let folder = prefix.to_owned();
        self.store
            .list(Some(&key))
            .map_ok(move |meta| Entry { path: this.path(&meta.location), size: meta.size })
            .map_err(move |e| error::store(e, "list", &folder))
            .boxed()
    }

    pub(crate) async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let key = self.key(prefix)?;
        let found = self.store.list_with_delimiter(Some(&key)).await;
        let found = found.map_err(|e| error::store(e, "list", prefix))?;
        Ok(found
            .common_prefixes
            .iter()
            .filter_map(|folder| folder.filename().map(str::to_owned))
            .collect())
    }
}
