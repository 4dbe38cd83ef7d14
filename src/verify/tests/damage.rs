//! Files are removed, copied, moved, cut and forged, and each is named.

use tidelock_file::{FileFooter, Format, inspect};

use super::super::ProblemKind::{
    CopiedFile, DuplicateOffsets, MisplacedFile, MissingFile, MissingOffsets, MissingSet,
    UnlistedFile, UnreadableFile, WrongRowCount, WrongSize,
};
use super::support::{Lake, PIPELINE, builder, kinds, offsets};

#[tokio::test]
async fn a_removed_file_is_a_gap() {
    for format in [Format::Parquet, Format::Json] {
        let mut lake = Lake::new(builder(format)).await;
        let files = lake.three().await;
        lake.delete(&files[1][0]).await;
        for verdict in [lake.verify().await, lake.verify_deep().await] {
            assert_eq!(kinds(&verdict), [MissingOffsets, MissingOffsets], "{verdict}");
            assert_eq!(offsets(&verdict, 0), ["0: 100..200"]);
            assert_eq!(offsets(&verdict, 1), ["1: 100..200"]);
            let text = verdict.to_string();
            assert!(text.contains("NOT exactly once: 2 problems, 200 offsets missing"), "{text}");
            assert!(text.contains("orders/0") && text.contains("100 missing"), "{text}");
        }
    }
}

/// The last set cannot be missed from the files alone.
#[tokio::test]
async fn the_last_file_is_missed_too() {
    let mut lake = Lake::parquet().await;
    let files = lake.three().await;
    lake.delete(&files[2][0]).await;
    assert_eq!(offsets(&lake.verify().await, 1), ["1: 200..300"]);
    assert!(lake.verify_without_record().await.ok);
}

#[tokio::test]
async fn a_removed_sibling_is_named_with_its_offsets() {
    for format in [Format::Parquet, Format::Json] {
        let mut lake = Lake::by_country(format).await;
        let files = lake.three().await;
        let last = lake.last_of(&files[1]).await;
        let sibling = files[1].iter().find(|file| **file != last).unwrap();
        lake.delete(sibling).await;
        let verdict = lake.verify().await;
        assert_eq!(kinds(&verdict), [MissingFile], "{verdict}");
        assert_eq!(verdict.problems[0].files, std::slice::from_ref(sibling));
        assert_eq!(offsets(&verdict, 0), ["0: 100..200", "1: 100..200"]);
    }
}

#[tokio::test]
async fn siblings_without_their_last_file_are_named() {
    let mut lake = Lake::by_country(Format::Parquet).await;
    let files = lake.three().await;
    let last = lake.last_of(&files[1]).await;
    lake.delete(&last).await;
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [MissingOffsets, MissingOffsets, MissingSet], "{verdict}");
    let mut left: Vec<_> = files[1].iter().filter(|file| **file != last).cloned().collect();
    let mut named = verdict.problems[2].files.clone();
    left.sort();
    named.sort();
    assert_eq!(named, left);
}

#[tokio::test]
async fn a_copy_is_named_with_its_offsets() {
    for format in [Format::Parquet, Format::Json] {
        let mut lake = Lake::by_country(format).await;
        let files = lake.three().await;
        // Both a file that tells about its set and one that does not.
        for file in &files[1] {
            let extension = if format == Format::Parquet { "parquet" } else { "jsonl" };
            let copy = format!("country=DE/copy.{extension}");
            lake.copy(file, &copy).await;
            let verdict = lake.verify().await;
            assert_eq!(kinds(&verdict), [CopiedFile], "{verdict}");
            assert_eq!(verdict.problems[0].files, [copy.clone(), file.clone()]);
            assert_eq!(offsets(&verdict, 0), ["0: 100..200", "1: 100..200"]);
            lake.delete(&copy).await;
        }
        assert!(lake.verify().await.ok);
    }
}

#[tokio::test]
async fn a_moved_file_is_no_missing_file() {
    let mut lake = Lake::by_country(Format::Parquet).await;
    let files = lake.three().await;
    let last = lake.last_of(&files[1]).await;
    lake.copy(&last, "elsewhere.parquet").await;
    lake.delete(&last).await;
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [MisplacedFile], "{verdict}");
    assert_eq!(verdict.problems[0].files, ["elsewhere.parquet"]);

    // A second one is one too many.
    lake.copy("elsewhere.parquet", "again.parquet").await;
    let verdict = lake.verify().await;
    assert!(kinds(&verdict).contains(&DuplicateOffsets), "{verdict}");
    assert!(kinds(&verdict).contains(&CopiedFile), "{verdict}");
}

#[tokio::test]
async fn a_cut_file_is_named_and_its_offsets_are_missing() {
    let mut lake = Lake::parquet().await;
    let files = lake.three().await;
    let whole = lake.store.get(&files[1][0]).await.unwrap().unwrap();
    for left in [whole.len() - 1, whole.len() / 2, 8, 7, 0] {
        lake.store.put(&files[1][0], whole.slice(..left)).await.unwrap();
        let verdict = lake.verify().await;
        assert_eq!(kinds(&verdict), [MissingOffsets, MissingOffsets, UnreadableFile], "{verdict}");
        assert_eq!(verdict.problems[2].files, [files[1][0].clone()]);
        assert_eq!(offsets(&verdict, 0), ["0: 100..200"]);
    }
}

#[tokio::test]
async fn a_cut_sibling_is_named_once_with_its_offsets() {
    let mut lake = Lake::by_country(Format::Parquet).await;
    let files = lake.three().await;
    let last = lake.last_of(&files[1]).await;
    let sibling = files[1].iter().find(|file| **file != last).unwrap();
    lake.store.put(sibling, "PAR1".into()).await.unwrap();
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [UnreadableFile], "{verdict}");
    assert_eq!(offsets(&verdict, 0), ["0: 100..200", "1: 100..200"]);
}

#[tokio::test]
async fn a_sidecar_that_is_gone_is_no_missing_file() {
    let mut lake = Lake::by_country(Format::Json).await;
    let files = lake.three().await;
    let last = lake.last_of(&files[1]).await;
    let sibling = files[1].iter().find(|file| **file != last).unwrap();
    lake.delete(&format!("_tidelock/pipe/footers/{sibling}.json")).await;
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [UnreadableFile], "{verdict}");
    assert_eq!(verdict.problems[0].files, std::slice::from_ref(sibling));
}

/// Of a set's only file, and of the one that tells about its set.
#[tokio::test]
async fn a_file_whose_sidecar_is_gone_is_named_beside_the_gap() {
    for builder in [builder(Format::Json), builder(Format::Json).partition_by(["country"])] {
        let mut lake = Lake::new(builder).await;
        let files = lake.three().await;
        let last = lake.last_of(&files[1]).await;
        let sidecar = format!("_tidelock/pipe/footers/{last}.json");
        let kept = lake.store.get(&sidecar).await.unwrap().unwrap();
        lake.delete(&sidecar).await;
        let verdict = lake.verify().await;
        let kinds = kinds(&verdict);
        assert_eq!(kinds[..2], [MissingOffsets, MissingOffsets], "{verdict}");
        assert_eq!(offsets(&verdict, 0), ["0: 100..200"]);
        let unreadable = kinds.iter().position(|kind| *kind == UnreadableFile).unwrap();
        assert_eq!(verdict.problems[unreadable].files, [last]);
        lake.store.put(&sidecar, kept).await.unwrap();
        assert!(lake.verify().await.ok);
    }
}

#[tokio::test]
async fn a_cut_file_of_json_lines_is_named() {
    let mut lake = Lake::new(builder(Format::Json)).await;
    let files = lake.three().await;
    let whole = lake.store.get(&files[1][0]).await.unwrap().unwrap();
    lake.store.put(&files[1][0], whole.slice(..whole.len() / 2 - 3)).await.unwrap();
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [WrongSize], "{verdict}");
    assert_eq!(verdict.problems[0].files, [files[1][0].clone()]);
    assert_eq!(offsets(&verdict, 0), ["0: 100..200", "1: 100..200"]);
    let verdict = lake.verify_deep().await;
    assert!(kinds(&verdict).contains(&UnreadableFile), "{verdict}");

    let lines = whole.split(|byte| *byte == b'\n').take(50).collect::<Vec<_>>().join(&b'\n');
    lake.store.put(&files[1][0], [lines, vec![b'\n']].concat().into()).await.unwrap();
    let verdict = lake.verify_deep().await;
    assert_eq!(kinds(&verdict), [WrongRowCount], "{verdict}");
    assert!(verdict.problems[0].text.contains("200 rows, and has 50"), "{verdict}");
}

async fn forge(lake: &Lake, path: &str, change: impl FnOnce(&mut FileFooter)) {
    let size = lake.store.size(path).await.unwrap().unwrap();
    let entry = inspect::Entry { path: path.to_owned(), size };
    let mut footer = inspect::read_footer(&lake.store, PIPELINE, &entry).await.unwrap().unwrap();
    change(&mut footer);
    let sidecar = format!("_tidelock/pipe/footers/{path}.json");
    lake.store.put(&sidecar, serde_json::to_vec(&footer).unwrap().into()).await.unwrap();
}

#[tokio::test]
async fn a_file_that_its_set_does_not_list_is_named() {
    let mut lake = Lake::by_country(Format::Json).await;
    let files = lake.three().await;
    let last = lake.last_of(&files[1]).await;
    let sibling = files[1].iter().find(|file| **file != last).unwrap().clone();
    forge(&lake, &last, |footer| {
        footer.set.as_mut().unwrap().files.retain(|file| file.key != sibling);
    })
    .await;
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [UnlistedFile], "{verdict}");
    assert_eq!(verdict.problems[0].files, [sibling]);
}

#[tokio::test]
async fn footers_that_contradict_each_other_are_named() {
    let mut lake = Lake::by_country(Format::Json).await;
    let files = lake.three().await;
    let last = lake.last_of(&files[1]).await;
    let sibling = files[1].iter().find(|file| **file != last).unwrap().clone();
    forge(&lake, &sibling, |footer| footer.rows += 1).await;
    let verdict = lake.verify().await;
    assert_eq!(kinds(&verdict), [WrongRowCount], "{verdict}");
}

#[tokio::test]
async fn a_parquet_file_must_hold_what_its_footer_says() {
    // The same key and footer, one row less.
    let mut lake = Lake::parquet().await;
    let files = lake.three().await;
    let path = files[1][0].clone();
    let entry =
        inspect::Entry { path: path.clone(), size: lake.store.size(&path).await.unwrap().unwrap() };
    let mut footer = inspect::read_footer(&lake.store, PIPELINE, &entry).await.unwrap().unwrap();
    footer.rows = 199;
    let bytes = lake.store.get(&path).await.unwrap().unwrap();
    let forged = replace(&bytes, b"\"rows\":200,\"set\"", b"\"rows\":199,\"set\"");
    lake.store.put(&path, forged.into()).await.unwrap();
    let verdict = lake.verify().await;
    assert!(kinds(&verdict).contains(&WrongRowCount), "{verdict}");
    assert!(verdict.problems[0].text.contains("says that it has 199 rows"), "{verdict}");
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
