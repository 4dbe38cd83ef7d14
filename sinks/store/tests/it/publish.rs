use tidelock_connector::ErrorKind;
use tidelock_store::Published;

use crate::{bytes, stage, subjects};

const STAGED: &str = "_tidelock/p/staging/i/1-0.staged";
const FINAL: &str = "day=2026-11-21/a.parquet";

#[tokio::test]
async fn publishing_again_changes_nothing() {
    for subject in subjects("publish") {
        let store = subject.store;
        let size = stage(&store, STAGED, bytes("content")).await;
        assert_eq!(size, 7);
        assert_eq!(store.size(FINAL).await.unwrap(), None, "nothing is visible before");
        let first = store.publish(STAGED, FINAL, size).await.unwrap();
        assert_eq!(first, Published::Committed);
        let again = store.publish(STAGED, FINAL, size).await.unwrap();
        assert_ne!(again, Published::Missing);
        store.delete(&[STAGED.to_owned()]).await.unwrap();
        let after = store.publish(STAGED, FINAL, size).await.unwrap();
        assert_eq!(after, Published::AlreadyThere);
        assert_eq!(store.get(FINAL).await.unwrap(), Some(bytes("content")));
    }
}

#[tokio::test]
async fn lost_staged_bytes_are_missing_and_strangers_a_conflict() {
    for subject in subjects("missing") {
        let store = subject.store;
        assert_eq!(store.publish(STAGED, FINAL, 7).await.unwrap(), Published::Missing);
        store.put(FINAL, bytes("something else")).await.unwrap();
        let error = store.publish(STAGED, FINAL, 7).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(store.get(FINAL).await.unwrap(), Some(bytes("something else")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_publishers_all_succeed() {
    for subject in subjects("race") {
        let store = subject.store;
        for round in 0..20 {
            let staged = format!("_tidelock/p/staging/i/{round}.staged");
            let visible = format!("x/{round}.parquet");
            let size = stage(&store, &staged, bytes("content")).await;
            let racers = (0..4).map(|_| {
                let (store, staged, visible) = (store.clone(), staged.clone(), visible.clone());
                tokio::spawn(async move { store.publish(&staged, &visible, size).await })
            });
            for outcome in futures::future::join_all(racers).await {
                assert_ne!(outcome.unwrap().unwrap(), Published::Missing);
            }
            assert_eq!(store.get(&visible).await.unwrap(), Some(bytes("content")));
        }
    }
}
