//! What every store has to do, tried on a local folder, in memory, and on the
//! S3 bucket that `TIDELOCK_TEST_STORE` names (with the usual `AWS_` variables).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod open;
mod publish;
mod stage;
mod versioned;

use bytes::Bytes;
use tidelock_store::{Store, StoreConfig};

/// A store of its own for one test; the folder lives as long as the value.
struct Subject {
    store: Store,
    _folder: Option<tempfile::TempDir>,
}

fn open(url: &str) -> Store {
    Store::open(&StoreConfig::new(url)).unwrap()
}

fn subjects(test: &str) -> Vec<Subject> {
    let unique = format!("{test}-{}", uuid::Uuid::new_v4().simple());
    let folder = tempfile::tempdir().unwrap();
    let local = open(&format!("file://{}/lake", folder.path().display()));
    let memory = open(&format!("memory:///{unique}/lake"));
    let mut subjects = vec![
        Subject { store: local, _folder: Some(folder) },
        Subject { store: memory, _folder: None },
    ];
    match std::env::var("TIDELOCK_TEST_STORE") {
        Ok(url) => {
            let store = open(&format!("{url}/{unique}"));
            subjects.push(Subject { store, _folder: None });
        }
        Err(_) => eprintln!("skipped on a bucket: TIDELOCK_TEST_STORE is not set"),
    }
    subjects
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn stage(store: &Store, path: &str, content: Bytes) -> u64 {
    let mut writer = store.stage(path).await.unwrap();
    writer.write(content).await.unwrap();
    writer.finish().await.unwrap()
}
