//! A store that fails, before or after it did what it was asked for.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tidelock_connector::ErrorKind;
use tidelock_store::{Published, Store, object_store};

use crate::{bytes, stage};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Put,
    Part,
    Complete,
    Copy,
    Head,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
}

/// The next call of each kind that is named fails.
#[derive(Debug, Default)]
struct Plan(Mutex<Vec<(Call, When)>>);

impl Plan {
    fn take(&self, call: Call, when: When) -> Result<()> {
        let mut faults = self.0.lock().unwrap();
        match faults.iter().position(|fault| *fault == (call, when)) {
            None => Ok(()),
            Some(index) => {
                faults.remove(index);
                Err(Error::Generic { store: "faulty", source: format!("{call:?} {when:?}").into() })
            }
        }
    }
}

#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    plan: Arc<Plan>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        self.plan.take(Call::Put, When::Before)?;
        let put = self.inner.put_opts(at, payload, o).await?;
        self.plan.take(Call::Put, When::After)?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        o: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(at, o).await?;
        Ok(Box::new(FaultyUpload { inner, plan: Arc::clone(&self.plan) }))
    }

    async fn get_opts(&self, at: &Path, o: GetOptions) -> Result<GetResult> {
        if o.head {
            self.plan.take(Call::Head, When::Before)?;
        }
        self.inner.get_opts(at, o).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, o: CopyOptions) -> Result<()> {
        self.plan.take(Call::Copy, When::Before)?;
        self.inner.copy_opts(from, to, o).await?;
        self.plan.take(Call::Copy, When::After)
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    plan: Arc<Plan>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.plan.take(Call::Part, When::Before) {
            Ok(()) => self.inner.put_part(data),
            Err(e) => Box::pin(async { Err(e) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.plan.take(Call::Complete, When::Before)?;
        let put = self.inner.complete().await?;
        self.plan.take(Call::Complete, When::After)?;
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

fn faulty(faults: &[(Call, When)]) -> (Store, Arc<Plan>) {
    let plan = Arc::new(Plan(Mutex::new(faults.to_vec())));
    let object_store = Arc::new(Faulty { inner: InMemory::new(), plan: Arc::clone(&plan) });
    (Store::from_object_store("faulty://", object_store, "lake").unwrap(), plan)
}

fn spent(plan: &Plan) {
    assert!(plan.0.lock().unwrap().is_empty(), "the fault did not happen");
}

#[tokio::test]
async fn a_copy_whose_answer_is_lost_was_published() {
    let (store, plan) = faulty(&[(Call::Copy, When::After)]);
    let size = stage(&store, "a.staged", bytes("content")).await;
    assert_eq!(store.publish("a.staged", "a", size).await.unwrap(), Published::AlreadyThere);
    spent(&plan);
}

#[tokio::test]
async fn a_copy_that_did_not_happen_can_be_tried_again() {
    let (store, plan) = faulty(&[(Call::Copy, When::Before)]);
    let size = stage(&store, "a.staged", bytes("content")).await;
    let error = store.publish("a.staged", "a", size).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(store.publish("a.staged", "a", size).await.unwrap(), Published::Committed);
    spent(&plan);
}

/// Not knowing is not "missing".
#[tokio::test]
async fn without_an_answer_nothing_is_called_missing() {
    let (store, plan) = faulty(&[(Call::Head, When::Before)]);
    let error = store.publish("a.staged", "a", 7).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(store.publish("a.staged", "a", 7).await.unwrap(), Published::Missing);
    spent(&plan);
}

#[tokio::test]
async fn a_swap_whose_answer_is_lost_is_found_by_reading() {
    let (store, plan) = faulty(&[(Call::Put, When::After)]);
    let head = store.versioned("head.json");
    let error = head.write(bytes("1"), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let (content, version) = head.read().await.unwrap().unwrap();
    assert_eq!(content, bytes("1"));
    assert_eq!(head.write(bytes("1"), None).await.unwrap_err().kind(), ErrorKind::Fenced);
    head.write(bytes("2"), Some(&version)).await.unwrap();
    spent(&plan);
}

#[tokio::test]
async fn a_completion_whose_answer_is_lost_has_staged_the_file() {
    let (store, plan) = faulty(&[(Call::Complete, When::After)]);
    let size = stage(&store, "a.staged", Bytes::from(vec![7; 20 << 20])).await;
    assert_eq!(store.size("a.staged").await.unwrap(), Some(size));
    spent(&plan);
}

#[tokio::test]
async fn a_file_that_misses_a_part_is_not_staged() {
    for fault in [(Call::Part, When::Before), (Call::Complete, When::Before)] {
        let (store, plan) = faulty(&[fault]);
        let mut writer = store.stage("a.staged").await.unwrap();
        let mut failed = None;
        for _ in 0..20 {
            failed = writer.write(Bytes::from(vec![7; 1 << 20])).await.err();
            if failed.is_some() {
                break;
            }
        }
        let error = match failed {
            Some(error) => {
                writer.abort().await.unwrap();
                error
            }
            None => writer.finish().await.unwrap_err(),
        };
        assert!(error.is_retryable(), "{error}");
        assert!(store.size("a.staged").await.unwrap().is_none());
        spent(&plan);
    }
}
