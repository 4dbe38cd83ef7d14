//! One mutable object, written only by compare-and-swap.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use object_store::{ObjectStoreExt, PutMode, UpdateVersion};
use tidelock_connector::{Error, ErrorKind, Result};

use crate::error;
use crate::local::{self, Local, TEMPORARY};
use crate::object::Object;
use crate::store::{Backend, Store};

/// How many versions a local folder keeps. Readers that are slower than this
/// many writes read again.
const KEPT_VERSIONS: usize = 8;
/// The age from which a writer's temporary file is garbage: its writer would
/// find it gone, fail, and read again.
const TEMPORARY_AGE: Duration = Duration::from_secs(3600);

/// An opaque name of one version of a [`Versioned`] object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(Token);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Tag { e_tag: Option<String>, version: Option<String> },
    Sequence(u64),
}

/// One mutable object that is only ever written by compare-and-swap.
///
/// # Contract
/// Of all writers that expect the same version at most one succeeds. **Every
/// error of [`write`](Self::write) is ambiguous**, also
/// [`ErrorKind::Fenced`]: the write may have been applied, its answer lost, and
/// the object been written again by somebody who built upon it. After any error
/// read, and look for something that only this write can have put there and
/// that later writers keep. Bytes must never repeat, for a store's ETag may be
/// a hash of them.
/// No request is sent twice inside, so that a single lost answer is reported as
/// what it is.
///
/// In a local folder the object `head.json` is the files `head-<n>.json`, of
/// which the highest counts. A version is written aside, synced, and linked
/// under its number, which fails if the number is taken; then the folder is
/// listed again, for a writer that slept while its number was used and removed
/// must not believe that it won. No lock is held, so that a stopped process
/// blocks nobody.
#[derive(Debug, Clone)]
pub struct Versioned {
    store: Store,
    path: String,
}

impl Versioned {
    pub(crate) fn new(store: Store, path: &str) -> Self {
        Self { store, path: path.to_owned() }
    }

    /// The object's path within its store.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The newest version.
    pub async fn read(&self) -> Result<Option<(Bytes, Version)>> {
        match self.store.backend() {
            Backend::Local(local) => {
                let files = Files::new(local, &self.path)?;
                let read = local::blocking(move || files.read()).await?;
                let read = read.map_err(|e| error::io(e, "read", &self.path))?;
                Ok(read.map(|(n, bytes)| (bytes.into(), Version(Token::Sequence(n)))))
            }
            Backend::Object(object) => self.read_object(object).await,
        }
    }

    async fn read_object(&self, object: &Object) -> Result<Option<(Bytes, Version)>> {
        let failed = |e| error::store(e, "read", &self.path);
        let found = match object.store.get(&object.key(&self.path)?).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let version = self.tag(found.meta.e_tag.clone(), found.meta.version.clone())?;
        Ok(Some((found.bytes().await.map_err(failed)?, version)))
    }

    fn tag(&self, e_tag: Option<String>, version: Option<String>) -> Result<Version> {
        if e_tag.is_none() && version.is_none() {
            let message = "the store tells no version of its objects, so writers cannot be fenced";
            return Err(Error::new(ErrorKind::Unsupported, message).object(&self.path));
        }
        Ok(Version(Token::Tag { e_tag, version }))
    }

    /// Writes the next version if `expected` is the newest; `None` expects that
    /// there is none yet.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when the condition does not hold: somebody else
    /// has written, *or this very write was applied before* (see the type's
    /// contract). After any other error it may have been applied as well.
    pub async fn write(&self, bytes: Bytes, expected: Option<&Version>) -> Result<Version> {
        match self.store.backend() {
            Backend::Local(local) => {
                let before = match expected.map(|version| &version.0) {
                    None => 0,
                    Some(Token::Sequence(n)) => *n,
                    Some(Token::Tag { .. }) => return Err(foreign(&self.path)),
                };
                let files = Files::new(local, &self.path)?;
                let written = local::blocking(move || files.write(&bytes, before)).await?;
                match written.map_err(|e| error::io(e, "write", &self.path))? {
                    true => Ok(Version(Token::Sequence(before + 1))),
                    false => Err(error::fenced(&self.path)),
                }
            }
            Backend::Object(object) => self.write_object(object, bytes, expected).await,
        }
    }

    async fn write_object(
        &self,
        object: &Object,
        bytes: Bytes,
        expected: Option<&Version>,
    ) -> Result<Version> {
        let mode = match expected.map(|version| version.0.clone()) {
            None => PutMode::Create,
            Some(Token::Tag { e_tag, version }) => {
                PutMode::Update(UpdateVersion { e_tag, version })
            }
            Some(Token::Sequence(_)) => return Err(foreign(&self.path)),
        };
        let key = object.key(&self.path)?;
        match object.once.put_opts(&key, bytes.into(), mode.into()).await {
            Ok(put) => self.tag(put.e_tag, put.version),
            Err(e) => Err(error::conditional(e, &self.path)),
        }
    }

    /// Whether conditions are really checked; see
    /// [`Store::probe_conditional_writes`].
    pub(crate) async fn probe(&self) -> Result<bool> {
        let bytes = |n: u8| Bytes::from(format!("{{\"probe\":{n}}}"));
        let first = match self.write(bytes(1), None).await {
            Ok(version) => version,
            Err(e) if e.kind() == ErrorKind::Unsupported => return Ok(false),
            Err(e) => return Err(e),
        };
        let refused = |result: Result<Version>| match result {
            Ok(_) => Ok(false),
            Err(e) if e.kind() == ErrorKind::Fenced => Ok(true),
            Err(e) => Err(e),
        };
        if !refused(self.write(bytes(2), None).await)? {
            return Ok(false);
        }
        let second = match self.write(bytes(3), Some(&first)).await {
            Ok(version) => version,
            Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::Fenced) => {
                return Ok(false);
            }
            Err(e) => return Err(e),
        };
        if !refused(self.write(bytes(4), Some(&first)).await)? {
            return Ok(false);
        }
        let now = self.read().await?;
        Ok(now.is_some_and(|(found, version)| found == bytes(3) && version == second))
    }

    /// Removes the object with all its versions.
    pub(crate) async fn remove(&self) -> Result<()> {
        let Backend::Local(local) = self.store.backend() else {
            return self.store.delete(std::slice::from_ref(&self.path)).await;
        };
        let files = Files::new(local, &self.path)?;
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let numbers = local::blocking(move || files.list().map(|found| (found, files))).await?;
        let (numbers, files) = numbers.map_err(|e| error::io(e, "list", &self.path))?;
        let paths: Vec<_> = numbers
            .iter()
            .map(|n| format!("{folder}/{}", files.name(*n)).trim_start_matches('/').to_owned())
            .collect();
        local.delete(&paths).await
    }
}

fn foreign(path: &str) -> Error {
    Error::new(ErrorKind::Other, "the version is one of another store").object(path)
}

/// The numbered files that stand for one object in a local folder.
struct Files {
    folder: PathBuf,
    stem: String,
    extension: String,
}

impl Files {
    fn new(local: &Local, path: &str) -> Result<Self> {
        let file = local.file(path)?;
        let part = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
        };
        Ok(Self {
            stem: part(file.file_stem()),
            extension: part(file.extension()),
            folder: local::parent(&file).to_owned(),
        })
    }

    fn name(&self, number: u64) -> String {
        let Self { stem, extension, .. } = self;
        let dot = if extension.is_empty() { "" } else { "." };
        format!("{stem}-{number:020}{dot}{extension}")
    }

    fn number(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.stem)?.strip_prefix('-')?.get(..20)?;
        let number = digits.parse().ok()?;
        (self.name(number) == name).then_some(number)
    }

    /// The numbers that are there, in order.
    fn list(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for name in names(&self.folder)? {
            numbers.extend(self.number(&name));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            let Some(newest) = self.list()?.last().copied() else { return Ok(None) };
            // A writer that was killed may not have come to it, and what is
            // built upon this version must not outlive it.
            local::sync_folder(&self.folder)?;
            // Gone: so many were written meanwhile that it was removed.
            if let Some(bytes) = local::found(std::fs::read(self.folder.join(self.name(newest))))? {
                return Ok(Some((newest, bytes)));
            }
        }
    }

    /// Whether the version behind `before` was written, and is the newest.
    fn write(&self, bytes: &[u8], before: u64) -> io::Result<bool> {
        if self.list()?.last().copied().unwrap_or(0) != before {
            return Ok(false);
        }
        let number = before + 1;
        let temporary = local::write_temporary(&self.folder, bytes)?;
        let linked = std::fs::hard_link(&temporary, self.folder.join(self.name(number)));
        local::remove(&temporary)?;
        match linked {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) if no_links(&e) => {
                let message = "the file system has no hard links, so writers cannot be fenced";
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
            Err(e) => return Err(e),
        }
        local::sync_folder(&self.folder)?;
        let numbers = self.list()?;
        if numbers.last() != Some(&number) {
            return Ok(false);
        }
        self.clean(&numbers);
        Ok(true)
    }

    /// Removes old versions and forgotten temporary files, as far as it goes.
    fn clean(&self, numbers: &[u64]) {
        for number in &numbers[..numbers.len().saturating_sub(KEPT_VERSIONS)] {
            let _ = local::remove(&self.folder.join(self.name(*number)));
        }
        for name in names(&self.folder).unwrap_or_default() {
            let file = self.folder.join(&name);
            if name.starts_with(TEMPORARY) && is_old(&file) {
                let _ = local::remove(&file);
            }
        }
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let Some(entries) = local::found(std::fs::read_dir(folder))? else { return Ok(Vec::new()) };
    entries.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned())).collect()
}

fn is_old(file: &Path) -> bool {
    let modified = std::fs::metadata(file).and_then(|meta| meta.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > TEMPORARY_AGE))
}

/// FAT answers EPERM, others ENOTSUP or "not implemented".
fn no_links(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
}
