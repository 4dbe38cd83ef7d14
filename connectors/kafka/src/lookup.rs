//! What the cluster knows of newly assigned partitions: their first and last
//! offsets, what the group has committed, and where `start` would begin.
//!
//! The calls block, for seconds when a broker is away, so they run on a thread
//! of their own and the partitions that are kept go on being read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataBroker;
use rdkafka::{Offset, TopicPartitionList};
use tidelock_connector::{
    AssignedPartition, CommittedOffset, Error, ErrorKind, Result, TopicPartition,
};

use crate::config::StartAt;
use crate::context::Consumer;
use crate::errors;
use crate::ffi;
use crate::outbox::Outbox;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the question for topic ids may take, which can do without an answer.
const ID_TIMEOUT: Duration = Duration::from_secs(3);

/// The pause before a question is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// How long it is not believed that a partition is gone, or ends before its
/// committed offset: whoever has just become the leader may not know better yet.
const DISBELIEF: Duration = Duration::from_secs(60);

/// What `start = "committed"` gives where nothing is committed: no offset.
/// Whoever has no record of the partition either must not begin.
pub const NO_START: i64 = -1;

/// The error for a partition that has nowhere to begin.
pub(crate) fn nothing_committed(partition: &TopicPartition) -> Error {
    Error::config(
        "nothing is committed for the partition and `start` is \"committed\"; \
         commit offsets first, or choose another `start`",
    )
    .at(partition)
}

/// A look-up under way.
pub(crate) struct Lookup {
    answer: Receiver<Vec<AssignedPartition>>,
    cancelled: Arc<AtomicBool>,
}

impl Lookup {
    /// Asks until there is an answer; failures are passed on meanwhile.
    pub(crate) fn start(
        consumer: &Arc<Consumer>,
        outbox: &Outbox,
        start: &StartAt,
        partitions: Vec<TopicPartition>,
    ) -> Result<Self> {
        let (sender, answer) = mpsc::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let asker = Asker {
            consumer: Arc::clone(consumer),
            outbox: outbox.clone(),
            start: start.clone(),
            cancelled: Arc::clone(&cancelled),
        };
        let poller = thread::current();
        thread::Builder::new()
            .name("tidelock-lookup".into())
            .spawn(move || {
                if let Some(found) = asker.ask(&partitions) {
                    let _gone = sender.send(found);
                    // The consumer goes before the thread that closes it wakes.
                    drop(asker);
                    poller.unpark();
                }
            })
            .map_err(|error| Error::new(ErrorKind::Other, "cannot start a thread").source(error))?;
        Ok(Self { answer, cancelled })
    }

    /// The answer, once it is there.
    pub(crate) fn poll(&self) -> Option<Vec<AssignedPartition>> {
        self.answer.try_recv().ok()
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

struct Asker {
    consumer: Arc<Consumer>,
    outbox: Outbox,
    start: StartAt,
    cancelled: Arc<AtomicBool>,
}

impl Asker {
    fn ask(&self, partitions: &[TopicPartition]) -> Option<Vec<AssignedPartition>> {
        let believed = Instant::now() + DISBELIEF;
        while !self.cancelled.load(Ordering::Acquire) {
            match look_up(&self.consumer, &self.start, partitions) {
                Ok(found) if found.iter().any(ends_early) && Instant::now() < believed => {
                    tracing::warn!("a partition ends before its committed offset, asking again");
                    thread::park_timeout(PAUSE);
                }
                Ok(found) => return Some(found),
                Err(error) => {
                    let gone = error.kind() == ErrorKind::NotFound && Instant::now() >= believed;
                    let retry = error.is_retryable() && !gone;
                    self.outbox.error(error.retryable(retry));
                    if !retry {
                        return None;
                    }
                    thread::park_timeout(PAUSE);
                }
            }
        }
        None
    }
}

fn ends_early(assigned: &AssignedPartition) -> bool {
    assigned.committed.as_ref().is_some_and(|committed| committed.offset > assigned.end)
}

/// Asks once about all partitions, which the group or the metadata has named:
/// that one is not there may be tried again, for as long as the caller likes.
pub(crate) fn look_up(
    consumer: &Consumer,
    start: &StartAt,
    partitions: &[TopicPartition],
) -> Result<Vec<AssignedPartition>> {
    let low = at_times(consumer, partitions, Offset::Beginning)?;
    // Under read_committed this is the last stable offset.
    let end = at_times(consumer, partitions, Offset::End)?;
    let committed = committed(consumer, partitions)?;
    let by_time = match start {
        StartAt::Timestamp(time) => {
            Some(at_times(consumer, partitions, Offset::Offset(time.timestamp_millis().max(0)))?)
        }
        _ => None,
    };
    let ids = topic_ids(consumer, partitions);
    let found = partitions.iter().zip(low.into_iter().zip(end)).zip(committed).enumerate();
    Ok(found
        .map(|(index, ((partition, (low, end)), committed))| {
            // A partition without messages has no first one.
            let low = low.unwrap_or(0);
            let end = end.unwrap_or(low);
            let start = match start {
                StartAt::Earliest => low,
                StartAt::Latest => end,
                StartAt::Committed => NO_START,
                StartAt::Timestamp(_) => {
                    by_time.as_ref().and_then(|offsets| offsets[index]).unwrap_or(end)
                }
                StartAt::Offsets(offsets) => offsets
                    .get(&*partition.topic)
                    .and_then(|topic| topic.get(&partition.partition))
                    .copied()
                    .unwrap_or(low),
            };
            let topic_id = ids.get(&*partition.topic).cloned().flatten();
            AssignedPartition { partition: partition.clone(), topic_id, committed, start, low, end }
        })
        .collect())
}

/// Whoever has restarted, or has just become the leader, may not have heard of a
/// partition that is there.
fn failed(doing: &str, error: KafkaError) -> Error {
    let error = errors::failed(doing, error);
    let retry = error.is_retryable() || error.kind() == ErrorKind::NotFound;
    error.retryable(retry)
}

fn list_of(partitions: &[TopicPartition], offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, offset)
            .map_err(|error| errors::failed("asking for offsets", error))?;
    }
    Ok(list)
}

/// The offsets at a time, where the beginning and the end count as times; in
/// the order of `partitions`.
fn at_times(
    consumer: &Consumer,
    partitions: &[TopicPartition],
    time: Offset,
) -> Result<Vec<Option<i64>>> {
    let doing = "asking for the offsets of the partitions";
    let answer = consumer
        .offsets_for_times(list_of(partitions, time)?, TIMEOUT)
        .map_err(|error| failed(doing, error))?;
    partitions
        .iter()
        .map(|partition| {
            let element = answer
                .find_partition(&partition.topic, partition.partition)
                .ok_or_else(|| Error::new(ErrorKind::Unavailable, doing).at(partition))?;
            element.error().map_err(|error| failed(doing, error).at(partition))?;
            match element.offset() {
                Offset::Offset(offset) => Ok(Some(offset)),
                // Nothing of that time or later.
                _ => Ok(None),
            }
        })
        .collect()
}

/// What the group has committed; in the order of `partitions`.
fn committed(
    consumer: &Consumer,
    partitions: &[TopicPartition],
) -> Result<Vec<Option<CommittedOffset>>> {
    let doing = "asking for the committed offsets";
    let answer = consumer
        .committed_offsets(list_of(partitions, Offset::Invalid)?, TIMEOUT)
        .map_err(|error| failed(doing, error))?;
    let mut all = BTreeMap::new();
    for (element, hint) in answer.elements().iter().zip(ffi::commit_metadata(&answer)) {
        element.error().map_err(|error| failed(doing, error))?;
        if let Offset::Offset(offset) = element.offset() {
            let partition = TopicPartition::new(element.topic(), element.partition());
            all.insert(partition, CommittedOffset { offset, hint });
        }
    }
    Ok(partitions.iter().map(|partition| all.remove(partition)).collect())
}

/// The ids of the topics, as far as the broker says.
fn topic_ids(
    consumer: &Consumer,
    partitions: &[TopicPartition],
) -> BTreeMap<String, Option<String>> {
    let mut topics: Vec<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    let broker = consumer
        .fetch_metadata(topics.first().copied(), ID_TIMEOUT)
        .ok()
        .and_then(|metadata| metadata.brokers().first().map(MetadataBroker::id));
    broker
        .and_then(|broker| ffi::topic_ids(consumer, broker, &topics, ID_TIMEOUT))
        .unwrap_or_default()
        .into_iter()
        .collect()
}
