//! Stores that lie, and what the doctor says of them.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tidelock_store::object_store::memory::InMemory;
use tidelock_store::object_store::path::Path;
use tidelock_store::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use tidelock_store::{Store, StoreConfig};

use super::{Diagnosis, Guarantee, Outcome, Trial, examine};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lie {
    /// Every conditional write succeeds.
    IgnoresConditions,
    /// Creates are checked, updates are not.
    IgnoresVersions,
    /// Copies are acknowledged and not made.
    ForgetsCopies,
    /// Copies are cut short.
    ShortensCopies,
    /// Listings do not show new objects.
    ListsLate,
    /// Metadata are dropped.
    ForgetsMetadata,
    /// Deletions are acknowledged and not made.
    KeepsEverything,
}

#[derive(Debug)]
struct Liar {
    truth: InMemory,
    lies: BTreeSet<Lie>,
}

impl Liar {
    fn store(lies: &[Lie]) -> Store {
        let liar = Self { truth: InMemory::new(), lies: lies.iter().copied().collect() };
        Store::from_object_store("liar://", Arc::new(liar), "").unwrap()
    }

    fn lies(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }
}

impl fmt::Display for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Liar")
    }
}

#[async_trait]
impl ObjectStore for Liar {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> StoreResult<PutResult> {
        let is_update = matches!(options.mode, PutMode::Update(_));
        if self.lies(Lie::IgnoresConditions) || (is_update && self.lies(Lie::IgnoresVersions)) {
            options.mode = PutMode::Overwrite;
        }
        if self.lies(Lie::ForgetsMetadata) {
            options.attributes = Default::default();
        }
        self.truth.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.truth.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.truth.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.truth.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        if self.lies(Lie::KeepsEverything) {
            locations
        } else {
            self.truth.delete_stream(locations)
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        if self.lies(Lie::ListsLate) {
            // The examination's own cleaning up must still find things.
            let shown = prefix.is_some_and(|p| !p.as_ref().contains("listed"));
            return self.truth.list(prefix).try_filter(move |_| std::future::ready(shown)).boxed();
        }
        self.truth.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.truth.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        if self.lies(Lie::ForgetsCopies) {
            return Ok(());
        }
        if self.lies(Lie::ShortensCopies) {
            let bytes = self.truth.get_opts(from, GetOptions::default()).await?.bytes().await?;
            let short = bytes.slice(..bytes.len() / 2);
            return self.truth.put_opts(to, short.into(), PutOptions::default()).await.map(drop);
        }
        self.truth.copy_opts(from, to, options).await
    }
}

async fn of(lies: &[Lie]) -> Diagnosis {
    examine(&Liar::store(lies)).await.unwrap()
}

fn bad(diagnosis: &Diagnosis) -> Vec<Trial> {
    diagnosis.checks.iter().filter(|c| c.outcome == Outcome::Bad).map(|c| c.trial).collect()
}

#[tokio::test]
async fn an_honest_store_passes_everything() {
    let diagnosis = of(&[]).await;
    assert_eq!(bad(&diagnosis), [], "{}", diagnosis.render());
    assert!(diagnosis.is_exactly_once());
    assert!(diagnosis.holds(Guarantee::OrphanCollection));
    // The client's plain uploads are not at hand, so nothing is said of them.
    assert!(!diagnosis.holds(Guarantee::StagingByUpload));
}

#[tokio::test]
async fn memory_passes_and_is_left_empty() {
    let store = Store::open(&StoreConfig::new("memory:///doctor/here")).unwrap();
    let diagnosis = examine(&store).await.unwrap();
    assert_eq!(bad(&diagnosis), [], "{}", diagnosis.render());
    assert!(diagnosis.holds(Guarantee::StagingByUpload), "{}", diagnosis.render());
    assert!(diagnosis.is_exactly_once());
    let left: Vec<_> = store.list("").try_collect().await.unwrap();
    assert_eq!(left, []);
}

#[tokio::test]
async fn a_folder_passes_and_is_left_empty() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().display().to_string();
    let diagnosis = examine(&Store::open(&StoreConfig::new(url)).unwrap()).await.unwrap();
    assert_eq!(bad(&diagnosis), [], "{}", diagnosis.render());
    assert!(diagnosis.is_exactly_once());
    assert_eq!(diagnosis.check(Trial::Link).unwrap().outcome, Outcome::Good);
    assert!(diagnosis.check(Trial::Multipart).is_none());
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "the folder of the examination is gone");
}

#[tokio::test]
async fn ignored_conditions_end_fencing_and_exactly_once() {
    let diagnosis = of(&[Lie::IgnoresConditions]).await;
    let all = [Trial::CreateTwice, Trial::Update, Trial::RacingCreates, Trial::RacingUpdates];
    assert_eq!(bad(&diagnosis), all, "{}", diagnosis.render());
    assert!(!diagnosis.is_exactly_once() && !diagnosis.holds(Guarantee::Fencing));
    assert!(diagnosis.holds(Guarantee::StagingByCopy));
    assert!(diagnosis.render().contains("at_least_once"));

    let diagnosis = of(&[Lie::IgnoresVersions]).await;
    assert_eq!(bad(&diagnosis), [Trial::Update, Trial::RacingUpdates]);
    assert!(!diagnosis.is_exactly_once());
}

#[tokio::test]
async fn false_copies_end_staging_and_exactly_once() {
    for lie in [Lie::ForgetsCopies, Lie::ShortensCopies] {
        let diagnosis = of(&[lie]).await;
        let found = bad(&diagnosis);
        for trial in [Trial::Copy, Trial::PublishTwice, Trial::PublishCut] {
            assert!(found.contains(&trial), "{lie:?}: {}", diagnosis.render());
        }
        assert!(!diagnosis.is_exactly_once() && !diagnosis.holds(Guarantee::StagingByCopy));
        assert!(diagnosis.holds(Guarantee::Fencing));
    }
}

#[tokio::test]
async fn late_listings_end_the_collection_of_orphans_alone() {
    let diagnosis = of(&[Lie::ListsLate]).await;
    assert_eq!(bad(&diagnosis), [Trial::ListAfterWrite], "{}", diagnosis.render());
    assert!(diagnosis.is_exactly_once());
    assert!(!diagnosis.holds(Guarantee::OrphanCollection));
}

#[tokio::test]
async fn forgotten_metadata_are_told_and_cost_nothing() {
    let diagnosis = of(&[Lie::ForgetsMetadata]).await;
    assert_eq!(bad(&diagnosis), [Trial::Token], "{}", diagnosis.render());
    assert!(diagnosis.is_exactly_once());
}

#[tokio::test]
async fn a_store_that_deletes_nothing_is_found_out() {
    let diagnosis = of(&[Lie::KeepsEverything]).await;
    let found = bad(&diagnosis);
    for trial in [Trial::Rights, Trial::ListAfterWrite, Trial::CleanUp] {
        assert!(found.contains(&trial), "{}", diagnosis.render());
    }
    assert!(!diagnosis.is_exactly_once());
}
