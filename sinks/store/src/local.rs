//! Local folders, durably: every acknowledged change was followed by `fsync`
//! of the file and of the folder that names it.
//!
//! Temporary files have names that begin with [`TEMPORARY`]; no listing shows
//! them. Folders without files do not count as existing, as in object stores.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tidelock_connector::{Error, ErrorKind, Result};

use crate::error;
use crate::store::{Entry, Published, conflict};

/// How names of files begin that are still being written.
pub(crate) const TEMPORARY: &str = ".tidelock-";

/// A folder.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    root: Arc<Path>,
}

impl Local {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The file of a relative path, which cannot lead out of the folder.
    pub(crate) fn file(&self, path: &str) -> Result<PathBuf> {
        let key = object_store::path::Path::parse(path)
            .map_err(|e| Error::config("not a valid path").object(path).source(e))?;
        Ok(self.root.join(key.as_ref()))
    }

    pub(crate) async fn check(&self) -> Result<()> {
        let root = Arc::clone(&self.root);
        let tried = blocking(move || {
            make_folders(&root)?;
            let probe = temporary(&root);
            let written = fs::write(&probe, b"tidelock");
            let removed = remove(&probe);
            written.and(removed)
        });
        let tried = tried.await?;
        tried.map_err(|e| error::io(e, "write into the folder", self.root.display()))
    }

    pub(crate) async fn publish(&self, from: &str, to: &str, size: u64) -> Result<Published> {
        let (source, target) = (self.file(from)?, self.file(to)?);
        let found = blocking(move || move_once(&source, &target, size)).await?;
        match found.map_err(|e| error::io(e, "publish", to).with("staged", from))? {
            Moved::Done(published) => Ok(published),
            Moved::Occupied(found) => Err(conflict(to, size, found)),
        }
    }

    pub(crate) async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        let file = self.file(path)?;
        let written = blocking(move || {
            let folder = parent(&file);
            let temporary = write_temporary(folder, &bytes)?;
            fs::rename(&temporary, &file).inspect_err(|_| drop(remove(&temporary)))?;
            sync_folder(folder)
        });
        written.await?.map_err(|e| error::io(e, "write", path))
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let file = self.file(path)?;
        let read = blocking(move || found(fs::read(file))).await?;
        Ok(read.map_err(|e| error::io(e, "read", path))?.map(Bytes::from))
    }

    pub(crate) async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let file = self.file(path)?;
        let read = blocking(move || {
            let mut file = File::open(file)?;
            file.seek(SeekFrom::Start(range.start))?;
            let length = range.end.saturating_sub(range.start);
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.take(length).read_to_end(&mut bytes)?;
            io::Result::Ok(bytes)
        });
        Ok(read.await?.map_err(|e| error::io(e, "read", path))?.into())
    }

    pub(crate) async fn size(&self, path: &str) -> Result<Option<u64>> {
        let file = self.file(path)?;
        blocking(move || size_of(&file)).await?.map_err(|e| error::io(e, "read the size", path))
    }

    pub(crate) async fn delete(&self, paths: &[String]) -> Result<()> {
        let files = paths.iter().map(|path| self.file(path)).collect::<Result<Vec<_>>>()?;
        let root = Arc::clone(&self.root);
        let deleted = blocking(move || {
            for file in &files {
                remove(file)?;
                remove_empty_folders(parent(file), &root);
            }
            io::Result::Ok(())
        });
        deleted.await?.map_err(|e| error::io(e, "delete", paths.join(", ")))
    }

    /// Folder by folder, so that memory is bounded by the largest folder.
    pub(crate) fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let start = match self.file(prefix) {
            Ok(start) => start,
            Err(e) => return stream::iter([Err(e)]).boxed(),
        };
        let root = Arc::clone(&self.root);
        stream::unfold(vec![start], move |mut open| {
            let root = Arc::clone(&root);
            async move {
                let folder = open.pop()?;
                let shown = folder.display().to_string();
                let listed = blocking(move || read_folder(&folder, &root)).await;
                let listed = listed.and_then(|r| r.map_err(|e| error::io(e, "list", shown)));
                let entries = match listed {
                    Ok((folders, files)) => {
                        open.extend(folders);
                        files.into_iter().map(Ok).collect()
                    }
                    Err(e) => vec![Err(e)],
                };
                Some((stream::iter(entries), open))
            }
        })
        .flatten()
        .boxed()
    }

    pub(crate) async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let folder = self.file(prefix)?;
        let root = Arc::clone(&self.root);
        let listed = blocking(move || {
            let mut names = Vec::new();
            for folder in read_folder(&folder, &root)?.0 {
                if holds_a_file(&folder, &root)?
                    && let Some(name) = folder.file_name()
                {
                    names.push(name.to_string_lossy().into_owned());
                }
            }
            io::Result::Ok(names)
        });
        listed.await?.map_err(|e| error::io(e, "list", prefix))
    }
}

/// Runs file system calls where they may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Panic, "a file system call did not end").source(e))
}

/// A file's folder; every file that we name has one.
pub(crate) fn parent(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

/// "Not found" is an answer, not a failure.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn size_of(file: &Path) -> io::Result<Option<u64>> {
    Ok(found(fs::metadata(file))?.map(|meta| meta.len()))
}

pub(crate) fn remove(file: &Path) -> io::Result<()> {
    found(fs::remove_file(file)).map(drop)
}

/// Makes a change of a folder's names durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Makes a folder and those above it, durably.
pub(crate) fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = parent(folder);
    make_folders(above)?;
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(above),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match folder.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        },
        Err(e) => Err(e),
    }
}

/// A new file, in folders that are made for it. Whoever deletes the last file
/// of a folder removes the folder, possibly right now: hence the repetition.
pub(crate) fn create(file: &Path) -> io::Result<File> {
    let mut tries = 0;
    loop {
        make_folders(parent(file))?;
        match File::create(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && tries < 10 => tries += 1,
            result => return result,
        }
    }
}

fn temporary(folder: &Path) -> PathBuf {
    folder.join(format!("{TEMPORARY}{}.tmp", uuid::Uuid::new_v4().simple()))
}

/// Writes a durable file under a name that nobody else uses.
pub(crate) fn write_temporary(folder: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let path = temporary(folder);
    let mut file = create(&path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(remove(&path)))?;
    Ok(path)
}

enum Moved {
    Done(Published),
    Occupied(u64),
}

/// The folder is synced whoever has renamed: another process may have been
/// killed between its rename and its sync.
fn move_once(from: &Path, to: &Path, size: u64) -> io::Result<Moved> {
    let occupied = |found: u64| {
        if found != size {
            return Ok(Moved::Occupied(found));
        }
        sync_folder(parent(to))?;
        Ok(Moved::Done(Published::AlreadyThere))
    };
    if let Some(found) = size_of(to)? {
        return occupied(found);
    }
    if size_of(from)?.is_some() {
        make_folders(parent(to))?;
        match fs::rename(from, to) {
            Ok(()) => {
                sync_folder(parent(to))?;
                // It may be gone with the last file in it, and is durable then.
                found(sync_folder(parent(from)))?;
                return Ok(Moved::Done(Published::Committed));
            }
            // Somebody else has renamed it, or removed an empty folder.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let staged = size_of(from)?;
    match size_of(to)? {
        Some(found) => occupied(found),
        None if staged.is_none() => Ok(Moved::Done(Published::Missing)),
        None => Err(io::Error::new(io::ErrorKind::Interrupted, "a folder vanished meanwhile")),
    }
}

fn remove_empty_folders(mut folder: &Path, root: &Path) {
    while folder != root && folder.starts_with(root) && fs::remove_dir(folder).is_ok() {
        folder = parent(folder);
    }
}

/// The folders (as absolute paths) and files of one folder.
fn read_folder(folder: &Path, root: &Path) -> io::Result<(Vec<PathBuf>, Vec<Entry>)> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    let Some(entries) = found(fs::read_dir(folder))? else { return Ok((folders, files)) };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        // Follows symbolic links; what vanishes meanwhile is not there.
        let Some(meta) = found(fs::metadata(&path))? else { continue };
        if meta.is_dir() {
            folders.push(path);
        } else if !is_temporary(&entry.file_name())
            && let Some(path) = path.strip_prefix(root).ok().and_then(Path::to_str)
        {
            files.push(Entry { path: path.to_owned(), size: meta.len() });
        }
    }
    Ok((folders, files))
}

fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
}

fn holds_a_file(folder: &Path, root: &Path) -> io::Result<bool> {
    let (folders, files) = read_folder(folder, root)?;
    if !files.is_empty() {
        return Ok(true);
    }
    for folder in folders {
        if holds_a_file(&folder, root)? {
            return Ok(true);
        }
    }
    Ok(false)
}
