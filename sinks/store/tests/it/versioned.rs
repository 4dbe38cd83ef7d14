use std::collections::BTreeMap;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tidelock_connector::ErrorKind;
use tidelock_store::Versioned;

use crate::{bytes, subjects};

const HEAD: &str = "_tidelock/p/head.json";

#[tokio::test]
async fn only_the_newest_version_is_replaced() {
    for subject in subjects("versions") {
        let head = subject.store.versioned(HEAD);
        assert!(head.read().await.unwrap().is_none());
        let first = head.write(bytes("1"), None).await.unwrap();
        let fenced = |result: tidelock_connector::Result<_>| {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Fenced);
        };
        fenced(head.write(bytes("x"), None).await);
        let mut newest = head.write(bytes("2"), Some(&first)).await.unwrap();
        fenced(head.write(bytes("x"), Some(&first)).await);
        fenced(head.write(bytes("x"), None).await);
        assert_ne!(first, newest);
        for n in 3..40 {
            let text = n.to_string();
            newest = head.write(bytes(&text), Some(&newest)).await.unwrap();
            let (content, version) = head.read().await.unwrap().unwrap();
            assert_eq!((content, &version), (bytes(&text), &newest));
        }
        // Its number is free again in a local folder, but it is long overtaken.
        fenced(head.write(bytes("x"), Some(&first)).await);
        fenced(head.write(bytes("x"), None).await);
        assert_eq!(head.read().await.unwrap().unwrap().0, bytes("39"));
        let kept: Vec<_> = subject.store.list("").try_collect().await.unwrap();
        assert!(kept.len() <= 9, "old versions are removed: {kept:?}");
    }
}

/// Exactly one of twenty writers wins each round, and what is read is its.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_twenty_wins() {
    for subject in subjects("race") {
        let head = subject.store.versioned(HEAD);
        let mut expected = None;
        for round in 0..25 {
            let racers: Vec<_> = (0..20)
                .map(|n| {
                    let (head, expected) = (head.clone(), expected.clone());
                    let content = format!("{round}/{n}");
                    tokio::spawn(async move {
                        head.write(bytes(&content), expected.as_ref()).await.map(|v| (content, v))
                    })
                })
                .collect();
            let mut winners = Vec::new();
            for racer in racers {
                match racer.await.unwrap() {
                    Ok(won) => winners.push(won),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Fenced, "{e}"),
                }
            }
            assert_eq!(winners.len(), 1, "round {round}");
            let (content, version) = head.read().await.unwrap().unwrap();
            assert_eq!((content, version.clone()), (bytes(&winners[0].0), winners[0].1.clone()));
            expected = Some(version);
        }
    }
}

/// Writers that always build upon what they read, and look for their own number
/// after an error, lose nothing and do nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn increments_are_neither_lost_nor_repeated() {
    for subject in subjects("count") {
        let head = subject.store.versioned(HEAD);
        let writers = (0..8).map(|writer| tokio::spawn(increment(head.clone(), writer, 15)));
        for writer in futures::future::join_all(writers).await {
            writer.unwrap();
        }
        let (content, _) = head.read().await.unwrap().unwrap();
        let counter: Counter = serde_json::from_slice(&content).unwrap();
        assert_eq!(counter.total, 8 * 15);
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    total: u64,
    /// The number of the last write of each writer.
    landed: BTreeMap<u64, u64>,
}

async fn increment(head: Versioned, writer: u64, times: u64) {
    for number in 1..=times {
        loop {
            let read = head.read().await.unwrap();
            let (mut counter, version) = match &read {
                None => (Counter::default(), None),
                Some((content, version)) => {
                    (serde_json::from_slice(content).unwrap(), Some(version))
                }
            };
            if counter.landed.get(&writer) == Some(&number) {
                break;
            }
            counter.total += 1;
            counter.landed.insert(writer, number);
            let content = serde_json::to_vec(&counter).unwrap();
            if head.write(content.into(), version).await.is_ok() {
                break;
            }
        }
    }
}

#[tokio::test]
async fn stores_with_conditional_writes_pass_the_probe() {
    for subject in subjects("probe") {
        assert!(subject.store.probe_conditional_writes("_tidelock/p").await.unwrap());
        let left: Vec<_> = subject.store.list("").try_collect().await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}
