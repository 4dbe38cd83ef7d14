use futures::TryStreamExt;
use tidelock_connector::ErrorKind;
use tidelock_store::{StorageOptions, Store, StoreConfig};

use crate::{bytes, open, stage, subjects};

fn refused(url: &str) -> String {
    let error = Store::open(&StoreConfig::new(url)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    error.to_string()
}

#[test]
fn urls_that_cannot_be_opened_say_why() {
    assert!(refused("ftp://host/x").contains("known are file, s3"));
    assert!(refused("s3://").contains("names no bucket"));
    assert!(refused("file://relative/path").contains("file:///folder"));
    assert!(refused("").contains("empty"));
    assert!(refused("s3://bucket/a//b").contains("not a valid key"));
    if cfg!(not(feature = "gcs")) {
        assert!(refused("gs://bucket").contains("feature gcs"));
    }
    if cfg!(not(feature = "azure")) {
        assert!(refused("abfss://c@account.dfs.core.windows.net/x").contains("feature azure"));
    }
    let storage = StorageOptions {
        endpoint: Some("http://127.0.0.1:1".into()),
        allow_http: Some(false),
        ..Default::default()
    };
    let plain = StoreConfig { url: "s3://bucket".into(), storage };
    assert!(Store::open(&plain).unwrap_err().to_string().contains("allow_http = true"));
}

#[test]
fn urls_open_the_same_store_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().display().to_string());
    assert_eq!(store.url(), format!("file://{}", folder.path().display()));
    assert_eq!(open(store.url()).url(), store.url());
    let spaced = folder.path().join("a folder%20");
    let store = open(&spaced.display().to_string());
    assert_eq!(open(store.url()).url(), store.url());
}

#[tokio::test]
async fn paths_stay_inside_and_are_literal() {
    for subject in subjects("paths") {
        let store = subject.store;
        assert_eq!(store.put("../out", bytes("x")).await.unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(store.get("a/../../out").await.unwrap_err().kind(), ErrorKind::Config);
        let odd = "country=D%2FE/tag=ä b+c&d/x.parquet";
        store.put(odd, bytes("odd")).await.unwrap();
        assert_eq!(store.get(odd).await.unwrap(), Some(bytes("odd")));
        let listed: Vec<_> = store.list("").try_collect().await.unwrap();
        assert_eq!(
            listed.iter().map(|e| (e.path.as_str(), e.size)).collect::<Vec<_>>(),
            [(odd, 3)]
        );
    }
}

#[tokio::test]
async fn objects_are_read_listed_and_deleted() {
    for subject in subjects("objects") {
        let store = subject.store;
        store.check().await.unwrap();
        assert!(store.get("a/none").await.unwrap().is_none());
        assert!(store.size("a/none").await.unwrap().is_none());
        let missing = store.get_range("a/none", 0..1).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");

        store.put("a/b/one", bytes("0123456789")).await.unwrap();
        store.put("a/b/one", bytes("9876543210")).await.unwrap();
        stage(&store, "a/c/two", bytes("22")).await;
        stage(&store, "ab/three", bytes("333")).await;
        assert_eq!(store.get_range("a/b/one", 2..5).await.unwrap(), bytes("765"));
        assert_eq!(store.size("a/c/two").await.unwrap(), Some(2));

        let mut below: Vec<_> = store.list("a").map_ok(|e| e.path).try_collect().await.unwrap();
        below.sort();
        assert_eq!(below, ["a/b/one", "a/c/two"], "a prefix is a whole folder");
        let mut folders = store.list_folders("a").await.unwrap();
        folders.sort();
        assert_eq!(folders, ["b", "c"]);
        assert!(store.list_folders("nowhere").await.unwrap().is_empty());
        assert!(store.list("nowhere").try_next().await.unwrap().is_none());

        let gone = ["a/b/one".to_owned(), "a/b/never".to_owned()];
        store.delete(&gone).await.unwrap();
        store.delete(&gone).await.unwrap();
        store.delete(&[]).await.unwrap();
        assert_eq!(store.list_folders("a").await.unwrap(), ["c"], "empty folders do not exist");
    }
}

#[tokio::test]
async fn more_objects_than_a_page_are_deleted_at_once() {
    for subject in subjects("many") {
        let paths: Vec<_> = (0..1_200).map(|i| format!("many/{i:05}")).collect();
        let puts = paths.iter().map(|path| subject.store.put(path, bytes("x")));
        futures::future::try_join_all(puts).await.unwrap();
        let listed: Vec<_> = subject.store.list("many").try_collect().await.unwrap();
        assert_eq!(listed.len(), paths.len());
        subject.store.delete(&paths).await.unwrap();
        assert!(subject.store.list("many").try_next().await.unwrap().is_none());
    }
}

/// Nobody listens on the port; the answer says so, in time, and may be retried.
#[tokio::test]
async fn an_unreachable_endpoint_is_reported_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let storage =
        StorageOptions { endpoint: Some(endpoint), allow_http: Some(true), ..Default::default() };
    let store = Store::open(&StoreConfig { url: "s3://bucket".into(), storage }).unwrap();
    let started = std::time::Instant::now();
    let error = store.check().await.unwrap_err();
    assert!(started.elapsed().as_secs() < 21);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains("endpoint=http://127.0.0.1:"), "{error}");
}

/// Credentials come from the environment, which tests share: tried by hand.
#[tokio::test]
async fn a_missing_bucket_is_named() {
    if std::env::var("TIDELOCK_TEST_STORE").is_err() {
        eprintln!("skipped: TIDELOCK_TEST_STORE is not set");
        return;
    }
    let none = open("s3://tidelock-has-no-such-bucket/x").check().await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound, "{none}");
    assert!(none.to_string().contains("create it"), "{none}");
}

#[tokio::test]
async fn a_file_in_the_place_of_a_folder_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.join("below"), file] {
        let error = open(&path.display().to_string()).check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}
