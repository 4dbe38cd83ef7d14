//! The store itself, as it would be if nothing ever went wrong on the way to
//! it: strictly consistent, with conditional writes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use chrono::DateTime;
use object_store::path::Path;
use object_store::{CopyMode, Error, GetRange, ListResult, ObjectMeta, PutMode, PutResult, Result};

/// One object.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) bytes: Bytes,
    e_tag: u64,
}

/// All objects by their key.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    map: BTreeMap<String, Object>,
    next_e_tag: u64,
    /// What has arrived of uploads that are not completed, by their id.
    uploads: BTreeMap<u64, BTreeMap<usize, Bytes>>,
    /// Uploads that answer every completion with an error, for ever.
    wedged: BTreeSet<u64>,
    next_upload: u64,
}

/// What is asked of the store.
#[derive(Debug)]
pub(crate) enum Request {
    Put {
        key: Path,
        bytes: Bytes,
        mode: PutMode,
    },
    Get {
        key: Path,
        range: Option<GetRange>,
        head: bool,
    },
    Delete {
        key: Path,
    },
    List {
        prefix: String,
    },
    Folders {
        prefix: String,
    },
    Copy {
        from: Path,
        to: Path,
        mode: CopyMode,
    },
    /// Begins an upload in parts.
    Upload {
        key: Path,
    },
    Part {
        key: Path,
        upload: u64,
        index: usize,
        bytes: Bytes,
    },
    Complete {
        key: Path,
        upload: u64,
        parts: usize,
    },
    Abort {
        key: Path,
        upload: u64,
    },
}

/// What it answers.
#[derive(Debug)]
pub(crate) enum Reply {
    Put(PutResult),
    Got { bytes: Bytes, range: Range<u64>, meta: ObjectMeta },
    Done,
    Listed(Vec<ObjectMeta>),
    Folders(ListResult),
    Upload(u64),
}

impl Request {
    /// The name of the call, and the key that it is about.
    pub(crate) fn shown(&self) -> (&'static str, &str) {
        match self {
            Self::Put { key, mode: PutMode::Overwrite, .. } => ("put", key.as_ref()),
            Self::Put { key, .. } => ("swap", key.as_ref()),
            Self::Get { key, head: true, .. } => ("head", key.as_ref()),
            Self::Get { key, .. } => ("get", key.as_ref()),
            Self::Delete { key } => ("delete", key.as_ref()),
            Self::List { prefix } => ("list", prefix),
            Self::Folders { prefix } => ("folders", prefix),
            Self::Copy { to, .. } => ("copy", to.as_ref()),
            Self::Upload { key } => ("upload", key.as_ref()),
            Self::Part { key, .. } => ("part", key.as_ref()),
            Self::Complete { key, .. } => ("complete", key.as_ref()),
            Self::Abort { key, .. } => ("abort", key.as_ref()),
        }
    }
}

fn not_found(key: &str) -> Error {
    Error::NotFound { path: key.to_owned(), source: "no such object".into() }
}

fn precondition(key: &str) -> Error {
    Error::Precondition { path: key.to_owned(), source: "another version".into() }
}

fn invalid_part(key: &str) -> Error {
    Error::Generic { store: "simulated", source: format!("InvalidPart: {key}").into() }
}

fn exists(key: &str) -> Error {
    Error::AlreadyExists { path: key.to_owned(), source: "it exists".into() }
}

impl Objects {
    pub(crate) fn get(&self, key: &str) -> Option<&Object> {
        self.map.get(key)
    }

    /// Every object below a folder, in order.
    pub(crate) fn below<'a>(
        &'a self,
        folder: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a Object)> {
        let inside = move |key: &str| {
            folder.is_empty() || key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        };
        self.map
            .range(folder.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(folder))
            .filter(move |(key, _)| inside(key))
    }

    fn meta(key: &str, object: &Object) -> ObjectMeta {
        ObjectMeta {
            location: Path::from(key),
            last_modified: DateTime::UNIX_EPOCH,
            size: object.bytes.len() as u64,
            e_tag: Some(object.e_tag.to_string()),
            version: None,
        }
    }

    fn store(&mut self, key: &str, bytes: Bytes) -> PutResult {
        self.next_e_tag += 1;
        let e_tag = self.next_e_tag;
        self.map.insert(key.to_owned(), Object { bytes, e_tag });
        PutResult { e_tag: Some(e_tag.to_string()), version: None }
    }

    /// Does what is asked.
    pub(crate) fn apply(&mut self, request: &Request) -> Result<Reply> {
        match request {
            Request::Put { key, bytes, mode } => {
                let found = self.map.get(key.as_ref());
                match (mode, found) {
                    (PutMode::Overwrite, _) | (PutMode::Create, None) => {}
                    (PutMode::Create, Some(_)) => return Err(exists(key.as_ref())),
                    (PutMode::Update(version), found) => {
                        let now = found.map(|object| object.e_tag.to_string());
                        if now.is_none() || now != version.e_tag {
                            return Err(precondition(key.as_ref()));
                        }
                    }
                }
                Ok(Reply::Put(self.store(key.as_ref(), bytes.clone())))
            }
            Request::Get { key, range, head } => {
                let object = self.map.get(key.as_ref()).ok_or_else(|| not_found(key.as_ref()))?;
                let meta = Self::meta(key.as_ref(), object);
                let size = object.bytes.len() as u64;
                let range = match range {
                    Some(range) => range.as_range(size).map_err(|source| Error::Generic {
                        store: "simulated",
                        source: source.into(),
                    })?,
                    None => 0..size,
                };
                let bytes = match head {
                    true => Bytes::new(),
                    false => object.bytes.slice(range.start as usize..range.end as usize),
                };
                Ok(Reply::Got { bytes, range, meta })
            }
            Request::Delete { key } => {
                self.map.remove(key.as_ref());
                Ok(Reply::Done)
            }
            Request::List { prefix } => {
                Ok(Reply::Listed(self.below(prefix).map(|(k, o)| Self::meta(k, o)).collect()))
            }
            Request::Folders { prefix } => Ok(Reply::Folders(self.folders(prefix))),
            Request::Copy { from, to, mode } => {
                let object = self.map.get(from.as_ref()).ok_or_else(|| not_found(from.as_ref()))?;
                if *mode == CopyMode::Create && self.map.contains_key(to.as_ref()) {
                    return Err(exists(to.as_ref()));
                }
                let bytes = object.bytes.clone();
                self.store(to.as_ref(), bytes);
                Ok(Reply::Done)
            }
            Request::Upload { .. } => {
                self.next_upload += 1;
                self.uploads.insert(self.next_upload, BTreeMap::new());
                Ok(Reply::Upload(self.next_upload))
            }
            Request::Part { key, upload, index, bytes } => {
                let parts = self.uploads.get_mut(upload).ok_or_else(|| not_found(key.as_ref()))?;
                parts.insert(*index, bytes.clone());
                Ok(Reply::Done)
            }
            Request::Complete { key, upload, parts } => {
                let bytes =
                    self.assembled(*upload, *parts).ok_or_else(|| invalid_part(key.as_ref()))?;
                self.uploads.remove(upload);
                Ok(Reply::Put(self.store(key.as_ref(), bytes)))
            }
            Request::Abort { upload, .. } => {
                self.uploads.remove(upload);
                Ok(Reply::Done)
            }
        }
    }

    /// What a completion would make of an upload, if it can be completed.
    pub(crate) fn assembled(&self, upload: u64, parts: usize) -> Option<Bytes> {
        let arrived = self.uploads.get(&upload)?;
        if self.wedged.contains(&upload) || arrived.len() != parts {
            return None;
        }
        Some(arrived.values().flatten().copied().collect())
    }

    /// No completion of this upload will ever succeed.
    pub(crate) fn wedge(&mut self, upload: u64) {
        self.wedged.insert(upload);
    }

    fn folders(&self, prefix: &str) -> ListResult {
        let mut common_prefixes: Vec<Path> = Vec::new();
        let mut objects = Vec::new();
        for (key, object) in self.below(prefix) {
            let rest = key[prefix.len()..].trim_start_matches('/');
            match rest.split_once('/') {
                None => objects.push(Self::meta(key, object)),
                Some((folder, _)) => {
                    let path = Path::from(format!("{prefix}/{folder}"));
                    if common_prefixes.last() != Some(&path) {
                        common_prefixes.push(path);
                    }
                }
            }
        }
        ListResult { common_prefixes, objects }
    }
}
