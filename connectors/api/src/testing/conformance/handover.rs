//! Partitions that move from one reader to another.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::reading::Reading;
use super::source::Log;
use crate::{AssignedPartition, Event, Source, Start, TopicPartition};

/// How long the last checkpoint of revoked partitions takes here.
const CHECKPOINT: Duration = Duration::from_millis(50);

/// Two readers of one source, and what both have delivered together.
struct Pair {
    readers: [Reading; 2],
    owner: BTreeMap<TopicPartition, usize>,
    next: BTreeMap<TopicPartition, i64>,
    leaving: Option<(Vec<TopicPartition>, oneshot::Sender<()>, Instant)>,
}

/// One reader has read a part when a second one is opened: whoever owns a
/// partition goes on where the other was, and every row comes once.
///
/// A source may give the second reader nothing, if it cannot share.
pub(super) async fn moves_lose_nothing(source: &dyn Source, patience: Duration, log: &Log) {
    let mut first = Reading::open(source, 0, patience).await;
    while first.rows.len() < log.rows.len() / 4 {
        match first.event().await {
            Event::Assigned(assignment) => first.answer(assignment, super::source::low),
            Event::End => panic!("end before everything was read"),
            _ => {}
        }
    }
    let second = Reading::open(source, 1, patience).await;
    let mut pair = Pair {
        next: log.bounds.iter().map(|(p, bounds)| (p.clone(), bounds.0)).collect(),
        owner: BTreeMap::new(),
        leaving: None,
        readers: [first, second],
    };
    for partition in pair.readers[0].at.keys() {
        pair.owner.insert(partition.clone(), 0);
    }
    let done = |pair: &Pair| log.bounds.iter().all(|(p, bounds)| pair.next[p] >= bounds.1);
    let until = Instant::now() + patience;
    while !done(&pair) {
        assert!(Instant::now() < until, "two readers get stuck at {:?}", pair.next);
        for which in [0, 1] {
            if !pair.readers[which].ended {
                pair.turn(which).await;
            }
        }
    }
    let mut rows: Vec<_> = pair.readers.iter().flat_map(|reading| reading.rows.clone()).collect();
    rows.sort();
    assert!(rows == log.rows, "two readers deliver a row twice, or not at all");
}

impl Pair {
    /// One event of one reader.
    async fn turn(&mut self, which: usize) {
        let over = self.leaving.as_ref().is_some_and(|(.., over)| Instant::now() >= *over);
        if over && let Some((partitions, done, _)) = self.leaving.take() {
            for partition in &partitions {
                self.owner.remove(partition);
            }
            let _ = done.send(());
        }
        let event = self.readers[which].event_within(Duration::from_millis(10)).await;
        for (partition, at) in &self.readers[which].at {
            self.next.insert(partition.clone(), at.next);
        }
        match event {
            Some(Event::Assigned(assignment)) => {
                for AssignedPartition { partition, .. } in &assignment.partitions {
                    let owner = self.owner.insert(partition.clone(), which);
                    assert!(
                        owner.is_none(),
                        "{partition} is assigned to reader {which} before reader {owner:?} \
                         was done with it"
                    );
                }
                let next = &self.next;
                self.readers[which].answer(assignment, |assigned| {
                    let partition = assigned.partition.clone();
                    let offset = next.get(&partition).copied().unwrap_or(assigned.low);
                    Some(Start { partition, offset, end: None })
                });
            }
            Some(Event::Revoking(revocation)) => {
                // From here on nothing of them may come.
                self.readers[which].forget(&revocation.partitions);
                let over = Instant::now() + CHECKPOINT;
                if revocation.lost {
                    for partition in &revocation.partitions {
                        if self.owner.get(partition) == Some(&which) {
                            self.owner.remove(partition);
                        }
                    }
                } else {
                    assert!(self.leaving.is_none(), "two revocations at once");
                    self.leaving = Some((revocation.partitions, revocation.done, over));
                }
            }
            _ => {}
        }
    }
}
