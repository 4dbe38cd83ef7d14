//! Buckets, conditional writes, and a server that goes and comes back.

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};
use tidelock_services::{S3, S3Kind, or_skip};

fn store(s3: &S3, bucket: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(s3.endpoint())
        .with_allow_http(true)
        .with_region(S3::REGION)
        .with_bucket_name(bucket)
        .with_access_key_id(S3::ACCESS_KEY)
        .with_secret_access_key(S3::SECRET_KEY)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .build()
        .unwrap()
}

async fn conditional_writes(s3: &S3) {
    let store = store(s3, &s3.bucket("lake").unwrap());
    let key = Path::from("a/b.json");
    let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let first = store.put_opts(&key, "one".into(), create()).await.unwrap();
    store.put_opts(&key, "two".into(), create()).await.unwrap_err();
    let update = |version| PutOptions { mode: PutMode::Update(version), ..PutOptions::default() };
    store.put_opts(&key, "three".into(), update(first.clone().into())).await.unwrap();
    store.put_opts(&key, "four".into(), update(first.into())).await.unwrap_err();
    assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), "three");
}

#[tokio::test]
async fn minio_honours_conditional_writes() {
    let Some(s3) = tidelock_services::minio() else { return };
    conditional_writes(s3).await;
}

#[tokio::test]
async fn versitygw_honours_conditional_writes() {
    let Some(s3) = tidelock_services::versitygw() else { return };
    conditional_writes(s3).await;
}

#[tokio::test]
async fn a_killed_server_comes_back_with_its_data() {
    for kind in S3Kind::ALL {
        let Some(mut s3) = or_skip(S3::start_private(kind)) else { return };
        let store = store(&s3, &s3.bucket("lake").unwrap());
        let key = Path::from("kept");
        store.put(&key, "kept".into()).await.unwrap();
        s3.kill().unwrap();
        store.get(&key).await.unwrap_err();
        s3.restart().unwrap();
        assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), "kept", "{kind:?}");
    }
}

#[tokio::test]
async fn buckets_are_made_once_and_keys_are_checked() {
    let Some(s3) = tidelock_services::minio() else { return };
    let bucket = s3.bucket("lake").unwrap();
    assert!(s3.create_bucket(&bucket).is_err());
    let stranger = AmazonS3Builder::new()
        .with_endpoint(s3.endpoint())
        .with_allow_http(true)
        .with_bucket_name(&bucket)
        .with_access_key_id(S3::ACCESS_KEY)
        .with_secret_access_key("wrong")
        .build()
        .unwrap();
    stranger.put(&Path::from("x"), "x".into()).await.unwrap_err();
}
