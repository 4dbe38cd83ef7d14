//! Rights, listings, clocks and metadata.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_store::object_store::{
    Attribute, Attributes, GetOptions, ObjectStore, ObjectStoreExt, PutOptions,
};
use tidelock_store::{Beneath, Store};

use super::{Exam, Finding, Trial, tried};

/// How many objects are written before a listing.
const LISTED: usize = 20;
/// Our requests are signed with the time; providers refuse a quarter of an
/// hour, and seconds are what a note is worth.
const SKEW_NOTED_MS: i64 = 5_000;
const SKEW_REFUSED_MS: i64 = 10 * 60_000;
/// How the metadata are called that are given to objects.
pub(super) const TOKEN: &str = "tidelock-token";

pub(super) async fn examine(exam: &mut Exam<'_>) {
    let store = exam.store;
    let check = tried(Trial::Rights, rights(store, &exam.path("rights"))).await;
    exam.checks.push(check);
    let check = tried(Trial::ListAfterWrite, list_after_write(store, &exam.path("listed"))).await;
    exam.checks.push(check);
    let path = exam.path("clock");
    match store.beneath() {
        Beneath::Object { store: client, .. } => {
            let check = tried(Trial::Clock, clock_of(store, client.as_ref(), &path)).await;
            exam.checks.push(check);
            let path = exam.path("token");
            let check = tried(Trial::Token, token(store, client.as_ref(), &path)).await;
            exam.checks.push(check);
        }
        Beneath::Folder(root) => {
            let check = tried(Trial::Clock, clock_of_folder(store, &root, &path)).await;
            exam.checks.push(check);
        }
        _ => {}
    }
}

/// Names every right that is missing, not only the first.
async fn rights(store: &Store, path: &str) -> Result<Finding> {
    let bytes = Bytes::from_static(b"0123456789");
    let mut missing = Vec::new();
    let mut note = |right: &str, error: Option<String>| {
        if let Some(error) = error {
            missing.push(format!("{right}: {error}"));
        }
    };
    let wrong = || Some("gave other bytes than were written".to_owned());
    note("put", store.put(path, bytes.clone()).await.err().map(|e| e.to_string()));
    note(
        "get",
        match store.get(path).await {
            Ok(found) if found.as_ref() == Some(&bytes) => None,
            Ok(_) => wrong(),
            Err(error) => Some(error.to_string()),
        },
    );
    note(
        "get a range",
        match store.get_range(path, 2..5).await {
            Ok(found) if found == bytes.slice(2..5) => None,
            Ok(_) => wrong(),
            Err(error) => Some(error.to_string()),
        },
    );
    note(
        "head",
        match store.size(path).await {
            Ok(Some(10)) => None,
            Ok(size) => Some(format!("says {size:?} bytes instead of 10")),
            Err(error) => Some(error.to_string()),
        },
    );
    let listed = store.list(parent(path)).map(|entry| entry.map(drop)).try_collect::<()>().await;
    note("list", listed.err().map(|e| e.to_string()));
    note("delete", store.delete(&[path.to_owned()]).await.err().map(|e| e.to_string()));
    note(
        "delete",
        match store.get(path).await {
            Ok(None) => None,
            Ok(Some(_)) => Some("the object is still there".to_owned()),
            Err(error) => Some(error.to_string()),
        },
    );
    Ok(match missing.as_slice() {
        [] => Finding::good("put, get, range, head, list, delete"),
        missing => Finding::bad(missing.join("; ")),
    })
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

async fn list_after_write(store: &Store, folder: &str) -> Result<Finding> {
    let paths: Vec<String> = (0..LISTED).map(|n| format!("{folder}/{n:02}/object")).collect();
    for path in &paths {
        store.put(path, Bytes::from_static(b"listed")).await?;
    }
    let list = || async {
        let entries: BTreeSet<String> =
            store.list(folder).map_ok(|entry| entry.path).try_collect().await?;
        Ok::<_, Error>(entries)
    };
    let seen = list().await?;
    let hidden = paths.iter().filter(|path| !seen.contains(*path)).count();
    let folders = store.list_folders(folder).await?.len();
    let (gone, kept) = paths.split_at(LISTED / 2);
    store.delete(gone).await?;
    let seen = list().await?;
    let ghosts = gone.iter().filter(|path| seen.contains(*path)).count();
    let vanished = kept.iter().filter(|path| !seen.contains(*path)).count();
    store.delete(kept).await?;
    Ok(if hidden > 0 {
        Finding::bad(format!("{hidden} of {LISTED} new objects are not in the listing"))
    } else if ghosts + vanished > 0 {
        Finding::bad(format!(
            "after deletions the listing shows {ghosts} deleted objects and hides {vanished}"
        ))
    } else if folders != LISTED {
        Finding::bad(format!("{folders} folders are listed instead of {LISTED}"))
    } else {
        Finding::good("what is written is listed, what is deleted is not")
    })
}

async fn clock_of(store: &Store, client: &dyn ObjectStore, path: &str) -> Result<Finding> {
    let key = store.key(path)?;
    let before = chrono::Utc::now();
    store.put(path, Bytes::from_static(b"now")).await?;
    let after = chrono::Utc::now();
    let meta = client.head(&key).await.map_err(|e| failed("read the time", path, e))?;
    // Times of objects have whole seconds.
    let theirs = meta.last_modified.timestamp_millis();
    let early = theirs + 999 - before.timestamp_millis();
    let late = theirs - after.timestamp_millis();
    Ok(skew(if early < 0 { early } else { late.max(0) }))
}

async fn clock_of_folder(store: &Store, root: &std::path::Path, path: &str) -> Result<Finding> {
    let before = chrono::Utc::now().timestamp_millis();
    store.put(path, Bytes::from_static(b"now")).await?;
    let file = root.join(path);
    let modified = tokio::fs::metadata(file).await.and_then(|meta| meta.modified());
    let modified = modified.map_err(|error| {
        Error::new(ErrorKind::Unavailable, "cannot read the time").object(path).source(error)
    })?;
    let theirs = chrono::DateTime::<chrono::Utc>::from(modified).timestamp_millis();
    let after = chrono::Utc::now().timestamp_millis();
    // File systems keep the time of the last tick.
    let early = theirs + 20 - before;
    Ok(skew(if early < 0 { early } else { (theirs - after).max(0) }))
}

fn skew(ms: i64) -> Finding {
    let words = if ms < 0 { "behind" } else { "ahead of" };
    let seconds = ms.unsigned_abs() as f64 / 1000.0;
    if ms.abs() >= SKEW_REFUSED_MS {
        Finding::bad(format!("its clock is {seconds:.0} s {words} ours: requests will be refused"))
    } else if ms.abs() >= SKEW_NOTED_MS {
        Finding::good(format!("its clock is {seconds:.0} s {words} ours; nothing depends on it"))
    } else {
        Finding::good("its clock agrees with ours")
    }
}

/// The client's errors, as far as the runtime's own words do not cover them.
pub(super) fn failed(
    action: &str,
    path: &str,
    error: tidelock_store::object_store::Error,
) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot {action}")).object(path).source(error)
}

pub(super) fn token_attributes(token: &str) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::Metadata(TOKEN.into()), token.to_owned().into());
    attributes
}

/// The token in the metadata of an object.
pub(super) async fn token_of(
    store: &Store,
    client: &dyn ObjectStore,
    path: &str,
) -> Result<Option<String>> {
    let head = GetOptions { head: true, ..GetOptions::default() };
    let found = client.get_opts(&store.key(path)?, head).await;
    let found = found.map_err(|e| failed("read the metadata", path, e))?;
    let token = found.attributes.get(&Attribute::Metadata(TOKEN.into()));
    Ok(token.map(|value| value.as_ref().to_owned()))
}

/// Puts an object with a token; false when the store takes no metadata.
pub(super) async fn put_with_token(
    store: &Store,
    client: &dyn ObjectStore,
    path: &str,
    bytes: Bytes,
    token: &str,
) -> Result<bool> {
    use tidelock_store::object_store::Error as StoreError;
    let options = PutOptions { attributes: token_attributes(token), ..PutOptions::default() };
    match client.put_opts(&store.key(path)?, bytes.into(), options).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => Ok(false),
        Err(error) => Err(failed("put with metadata", path, error)),
    }
}

async fn token(store: &Store, client: &dyn ObjectStore, path: &str) -> Result<Finding> {
    let token = uuid::Uuid::new_v4().as_simple().to_string();
    let bytes = Bytes::from_static(b"token");
    if !put_with_token(store, client, path, bytes, &token).await? {
        return Ok(Finding::unknown("the client gives no metadata to objects"));
    }
    Ok(match token_of(store, client, path).await? {
        Some(found) if found == token => Finding::good("metadata come back as they were given"),
        Some(found) => Finding::bad(format!("metadata came back as {found:?}")),
        None => Finding::bad("metadata are forgotten"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn only_a_clock_that_gets_requests_refused_is_bad() {
        assert_eq!(skew(0).outcome, Outcome::Good);
        assert!(skew(-30_000).text.contains("30 s behind"));
        assert_eq!(skew(-30_000).outcome, Outcome::Good);
        assert_eq!(skew(900_000).outcome, Outcome::Bad);
    }
}
