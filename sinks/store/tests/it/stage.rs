use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use tidelock_store::{Published, Store};

use crate::{bytes, subjects};

const STAGED: &str = "_tidelock/p/staging/i/1-0.staged";

/// Bytes that differ everywhere, in pieces that fit no part.
fn pieces(total: usize) -> Vec<Bytes> {
    let all: Bytes = (0..total).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut pieces = Vec::new();
    let mut rest = all;
    let mut size = 1;
    while !rest.is_empty() {
        pieces.push(rest.split_to(size.min(rest.len())));
        size = size * 7 % 3_000_017 + 1;
    }
    pieces
}

async fn found(store: &Store) -> Vec<String> {
    store.list("").map_ok(|entry| entry.path).try_collect().await.unwrap()
}

#[tokio::test]
async fn files_of_all_sizes_arrive_whole() {
    const PART: usize = 8 << 20;
    for subject in subjects("sizes") {
        for total in [0, 1, PART - 1, PART, PART + 1, 3 * PART, 5 * PART + 12_345] {
            let mut writer = subject.store.stage(STAGED).await.unwrap();
            let pieces = pieces(total);
            let mut most = 0;
            for piece in &pieces {
                writer.write(piece.clone()).await.unwrap();
                most = most.max(writer.held());
            }
            assert!(most <= 4 * PART + (3 << 20), "{most} bytes were held");
            assert_eq!(writer.size(), total as u64);
            assert_eq!(writer.finish().await.unwrap(), total as u64);
            let read = subject.store.get(STAGED).await.unwrap().unwrap();
            assert!(read == pieces.concat(), "{total} bytes did not come back");
        }
    }
}

#[tokio::test]
async fn settling_leaves_less_than_a_part_in_memory() {
    for subject in subjects("settle") {
        let mut writer = subject.store.stage(STAGED).await.unwrap();
        for piece in pieces(20 << 20) {
            writer.write(piece).await.unwrap();
        }
        writer.settle().await.unwrap();
        assert!(writer.held() < 8 << 20, "{}", writer.held());
        assert_eq!(writer.finish().await.unwrap(), 20 << 20);
    }
}

#[tokio::test]
async fn what_is_given_up_leaves_nothing() {
    for subject in subjects("abort") {
        let store = &subject.store;
        for total in [10, 20 << 20] {
            let mut aborted = store.stage(STAGED).await.unwrap();
            let mut dropped = store.stage("other").await.unwrap();
            for piece in pieces(total) {
                aborted.write(piece.clone()).await.unwrap();
                dropped.write(piece).await.unwrap();
            }
            aborted.abort().await.unwrap();
            drop(dropped);
            let mut tries = 0;
            while !found(store).await.is_empty() {
                tries += 1;
                assert!(tries < 100, "left behind: {:?}", found(store).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[tokio::test]
async fn large_files_are_published_whole() {
    for subject in subjects("large") {
        let store = subject.store;
        let mut writer = store.stage(STAGED).await.unwrap();
        for piece in pieces(17 << 20) {
            writer.write(piece).await.unwrap();
        }
        let size = writer.finish().await.unwrap();
        assert_eq!(store.publish(STAGED, "x.parquet", size).await.unwrap(), Published::Committed);
        assert_eq!(store.size("x.parquet").await.unwrap(), Some(size));
        store.put("y", bytes("y")).await.unwrap();
        assert!(found(&store).await.contains(&"x.parquet".to_owned()));
    }
}
