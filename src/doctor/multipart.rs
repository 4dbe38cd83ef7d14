//! Uploads in parts. Large files are staged that way, and one provider or the
//! other might even publish by completing an upload; that is not done here,
//! and the trials say why not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use tidelock_connector::Result;
use tidelock_store::Store;
use tidelock_store::object_store::multipart::{MultipartStore, PartId};
use tidelock_store::object_store::path::Path;
use tidelock_store::object_store::{
    Error as StoreError, MultipartId, ObjectStore, ObjectStoreExt, PutPayload,
};

use super::basics::failed;
use super::{Exam, Finding, Trial, tried};

/// No provider takes a smaller part, unless it is the last one.
const PART_BYTES: usize = 5 << 20;
/// How often a completion is cut.
const CUTS: u32 = 12;

pub(super) async fn examine(
    exam: &mut Exam<'_>,
    client: &dyn ObjectStore,
    multipart: Option<&dyn MultipartStore>,
) {
    let Some(multipart) = multipart else {
        let check = tried(Trial::Multipart, staged(exam.store, &exam.path("parts"))).await;
        exam.checks.push(check);
        return;
    };
    let uploads = Uploads { store: exam.store, client, multipart };
    let folder = exam.path("uploads");
    let path = |name: &str| format!("{folder}/{name}");
    let check = tried(Trial::Multipart, uploads.before_and_after(&path("visible"))).await;
    exam.checks.push(check);
    let check = tried(Trial::CompleteTwice, uploads.complete_twice(&path("twice"))).await;
    exam.checks.push(check);
    let check = tried(Trial::Abort, uploads.abort(&path("aborted"))).await;
    exam.checks.push(check);
    let check = tried(Trial::AbortAfterComplete, uploads.abort_after(&path("after"))).await;
    exam.checks.push(check);
    let check = tried(Trial::CompleteCut, uploads.cut(&path("cut"))).await;
    exam.checks.push(check);
}

/// The provider's plain uploads are not at hand: staging a large file is what
/// pipelines need of them.
async fn staged(store: &Store, path: &str) -> Result<Finding> {
    let bytes = Bytes::from(vec![7; 3 * PART_BYTES]);
    let mut writer = store.stage(path).await?;
    writer.write(bytes.clone()).await?;
    if store.size(path).await?.is_some() {
        return Ok(Finding::bad("an upload is visible before it is complete"));
    }
    writer.finish().await?;
    Ok(match store.get(path).await? {
        Some(found) if found == bytes => Finding::good("invisible until complete, then whole"),
        _ => Finding::bad("complete, and the bytes are not there"),
    })
}

struct Uploads<'a> {
    store: &'a Store,
    client: &'a dyn ObjectStore,
    multipart: &'a dyn MultipartStore,
}

struct Upload {
    key: Path,
    id: MultipartId,
    parts: Vec<PartId>,
    bytes: usize,
}

impl Uploads<'_> {
    /// An upload with parts of these sizes, not complete.
    async fn begin(&self, path: &str, sizes: &[usize]) -> Result<Upload> {
        let key = self.store.key(path)?;
        let begun = self.multipart.create_multipart(&key).await;
        let id = begun.map_err(|e| failed("begin an upload", path, e))?;
        let mut upload = Upload { key, id, parts: Vec::new(), bytes: 0 };
        for (index, size) in sizes.iter().enumerate() {
            let part = PutPayload::from(vec![index as u8; *size]);
            let put = self.multipart.put_part(&upload.key, &upload.id, index, part).await;
            upload.parts.push(put.map_err(|e| failed("upload a part", path, e))?);
            upload.bytes += size;
        }
        Ok(upload)
    }

    async fn complete(&self, upload: &Upload) -> Result<(), StoreError> {
        let parts = upload.parts.clone();
        self.multipart.complete_multipart(&upload.key, &upload.id, parts).await.map(drop)
    }

    async fn give_up(&self, upload: &Upload) -> Result<(), StoreError> {
        self.multipart.abort_multipart(&upload.key, &upload.id).await
    }

    /// Whether the object is there as a whole.
    async fn is_there(&self, upload: &Upload) -> Result<bool> {
        match self.client.head(&upload.key).await {
            Ok(meta) => Ok(meta.size == upload.bytes as u64),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed("look for the object", upload.key.as_ref(), error)),
        }
    }

    async fn before_and_after(&self, path: &str) -> Result<Finding> {
        let upload = self.begin(path, &[PART_BYTES, 1000]).await?;
        let listed = self.store.list(path.rsplit_once('/').map_or("", |(folder, _)| folder));
        let listed = listed.try_any(|entry| async move { entry.path == path }).await?;
        if listed || self.is_there(&upload).await? {
            return Ok(Finding::bad("an upload is visible before it is complete"));
        }
        let done = self.complete(&upload).await;
        done.map_err(|e| failed("complete an upload", path, e))?;
        Ok(match self.is_there(&upload).await? {
            true => Finding::good("invisible until complete, then whole"),
            false => Finding::bad("complete, and the object is not there"),
        })
    }

    async fn complete_twice(&self, path: &str) -> Result<Finding> {
        let upload = self.begin(path, &[1000]).await?;
        self.complete(&upload).await.map_err(|e| failed("complete an upload", path, e))?;
        let again = self.complete(&upload).await;
        if !self.is_there(&upload).await? {
            return Ok(Finding::bad("completing twice destroyed the object"));
        }
        Ok(Finding::good(match again {
            Ok(()) => "the second time it says OK again".to_owned(),
            Err(error) => format!("the second time it says: {}; the object stays", brief(&error)),
        }))
    }

    async fn abort(&self, path: &str) -> Result<Finding> {
        let upload = self.begin(path, &[1000]).await?;
        self.give_up(&upload).await.map_err(|e| failed("abort an upload", path, e))?;
        let completed = self.complete(&upload).await;
        Ok(match (completed, self.is_there(&upload).await?) {
            (_, true) => Finding::bad("an aborted upload was completed"),
            (Ok(()), false) => Finding::bad("completing an aborted upload said OK"),
            (Err(_), false) => Finding::good("an aborted upload cannot be completed"),
        })
    }

    async fn abort_after(&self, path: &str) -> Result<Finding> {
        let upload = self.begin(path, &[1000]).await?;
        self.complete(&upload).await.map_err(|e| failed("complete an upload", path, e))?;
        let aborted = self.give_up(&upload).await;
        let said = match aborted {
            Ok(()) => "OK".to_owned(),
            Err(error) => brief(&error),
        };
        Ok(match self.is_there(&upload).await? {
            true => Finding::good(format!("it says: {said}; the object stays")),
            false => Finding::bad("aborting a complete upload destroyed the object"),
        })
    }

    /// Cuts the connection in the middle of completions, and completes again.
    async fn cut(&self, path: &str) -> Result<Finding> {
        let upload = self.begin(&format!("{path}/whole"), &[1000]).await?;
        let began = Instant::now();
        self.complete(&upload).await.map_err(|e| failed("complete an upload", path, e))?;
        let took = began.elapsed();
        let (mut cut, mut wedged, mut said) = (0, 0, String::new());
        for case in 0..CUTS {
            let upload = self.begin(&format!("{path}/{case}"), &[1000]).await?;
            let wait = took.mul_f64(f64::from(case) * 1.1 / f64::from(CUTS));
            if tokio::time::timeout(wait, self.complete(&upload)).await.is_ok() {
                continue;
            }
            cut += 1;
            if let Some(error) = self.complete_patiently(&upload).await? {
                wedged += 1;
                said = error;
                // It stays behind otherwise; an error here is no news.
                let _ = self.give_up(&upload).await;
            }
        }
        Ok(match wedged {
            0 => Finding::good(format!("cut {cut} times; the second try always completed")),
            _ => Finding::bad(format!(
                "{wedged} of {cut} uploads that were cut can never be completed: {said}"
            )),
        })
    }

    /// What it says in the end, if the object is never there.
    async fn complete_patiently(&self, upload: &Upload) -> Result<Option<String>> {
        let mut said = String::new();
        for _ in 0..3 {
            if let Err(error) = self.complete(upload).await {
                said = brief(&error);
            }
            if self.is_there(upload).await? {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Some(said))
    }
}

/// The code of a provider's answer, or its first words.
fn brief(error: &StoreError) -> String {
    let text = error.to_string();
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map(|(code, _)| code.to_owned());
    code.unwrap_or_else(|| text.chars().take(60).collect())
}
