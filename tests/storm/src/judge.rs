//! Reads the files and the log with nothing of Tidelock's, and holds them
//! against each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;
use tidelock_connector::arrow::array::AsArray;
use tidelock_connector::arrow::datatypes::{Int32Type, Int64Type};
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_services::S3;

use crate::producer::{Outcome, Produced};
use crate::rig::Rig;

/// How long the broker may be silent before reading the log gives up.
const LOG_LIMIT: Duration = Duration::from_secs(60);
/// How many examples of something wrong are named.
const EXAMPLES: usize = 5;

/// A message's place: partition and offset.
type Place = (i32, i64);

/// What the files hold against what the producer committed.
#[derive(Debug, Default, Serialize)]
pub struct Judgement {
    /// Messages that a reader of committed transactions sees in the log.
    pub messages: u64,
    /// Messages whose transaction was aborted.
    pub aborted: u64,
    /// Data files.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Messages of the log that are in no file.
    pub lost: u64,
    /// Rows beyond the first of the same message.
    pub duplicates: u64,
    /// Rows of messages that nobody may see.
    pub foreign: u64,
    /// What the producer was told against what the log says; nothing of ours.
    pub contradictions: u64,
    /// Some of what is wrong.
    pub examples: Vec<String>,
}

impl Judgement {
    /// Everything exactly once.
    pub fn is_clean(&self) -> bool {
        self.messages > 0
            && self.lost == 0
            && self.duplicates == 0
            && self.foreign == 0
            && self.contradictions == 0
    }

    fn wrong(&mut self, text: String) {
        if self.examples.len() < EXAMPLES * 4 {
            self.examples.push(text);
        }
    }
}

/// Reads everything and judges.
///
/// # Errors
/// When the broker or the store does not answer, or a file is not Parquet.
pub fn judge(rig: &Rig, produced: &Produced) -> Result<Judgement> {
    let log = read_log(rig)?;
    let (files, rows) = read_files(rig)?;
    let mut judgement = Judgement { files, messages: log.len() as u64, ..Judgement::default() };
    judgement.aborted = produced.count(Outcome::Aborted);
    compare(&mut judgement, &log, &rows);
    cross_check(&mut judgement, &log, produced);
    Ok(judgement)
}

/// Every row against every message. `rows` holds the numbers found at a place.
fn compare(judgement: &mut Judgement, log: &HashMap<Place, u64>, rows: &HashMap<Place, Vec<u64>>) {
    for (place, number) in log {
        if !rows.contains_key(place) {
            judgement.lost += 1;
            judgement.wrong(format!("{place:?} with number {number} is in no file"));
        }
    }
    let mut seen = HashSet::with_capacity(log.len());
    for (place, numbers) in rows {
        judgement.rows += numbers.len() as u64;
        match log.get(place) {
            None => {
                judgement.foreign += numbers.len() as u64;
                judgement.wrong(format!("{place:?} with number {numbers:?} is not to be seen"));
                continue;
            }
            Some(number) if numbers.iter().any(|n| n != number) => {
                judgement.foreign += 1;
                judgement.wrong(format!("{place:?} has {numbers:?} and should have {number}"));
            }
            Some(_) => {}
        }
        let again = numbers.len() as u64 - 1 + u64::from(!seen.insert(numbers[0]));
        if again > 0 {
            judgement.duplicates += again;
            judgement.wrong(format!("{place:?} is there {} times", numbers.len()));
        }
    }
}

/// What the producer was told against what the log says.
fn cross_check(judgement: &mut Judgement, log: &HashMap<Place, u64>, produced: &Produced) {
    let visible: HashSet<u64> = log.values().copied().collect();
    for (numbers, outcome) in &produced.0 {
        let there = numbers.clone().filter(|number| visible.contains(number)).count() as u64;
        let all = numbers.end - numbers.start;
        let agrees = match outcome {
            Outcome::Committed => there == all,
            Outcome::Aborted => there == 0,
            Outcome::Unknown => there == 0 || there == all,
        };
        if !agrees {
            judgement.contradictions += 1;
            judgement.wrong(format!("{numbers:?} was {outcome:?}, and {there} of it are there"));
        }
    }
}

/// Where reading committed messages ends: everything before is decided.
pub(crate) fn ends(rig: &Rig) -> Result<BTreeMap<i32, i64>> {
    rig.kafka.end_offsets(&rig.topic)
}

/// Every message that a reader of committed transactions sees.
fn read_log(rig: &Rig) -> Result<HashMap<Place, u64>> {
    let failed = |e| Error::new(ErrorKind::Unavailable, "cannot read the log").source(e);
    let consumer: BaseConsumer = rig
        .kafka
        .config()
        .set("group.id", format!("{}-judge", rig.topic))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .map_err(failed)?;
    let mut all = TopicPartitionList::new();
    for partition in 0..rig.plan.partitions {
        all.add_partition_offset(&rig.topic, partition, Offset::Beginning).map_err(failed)?;
    }
    consumer.assign(&all).map_err(failed)?;
    let mut log = HashMap::new();
    let mut ended = HashSet::new();
    let mut last = Instant::now();
    while ended.len() < rig.plan.partitions as usize {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let number = number(message.payload().unwrap_or_default());
                let number = number.ok_or_else(|| {
                    Error::new(ErrorKind::Other, "a message that the producer did not write")
                })?;
                log.insert((message.partition(), message.offset()), number);
                last = Instant::now();
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => return Err(failed(error)),
            None if last.elapsed() > LOG_LIMIT => {
                return Err(Error::new(ErrorKind::Unavailable, "the log does not end"));
            }
            None => {}
        }
    }
    Ok(log)
}

fn number(message: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(message).ok()?;
    value["number"].as_u64()
}

/// How many files there are, and which numbers stand at which place in them.
fn read_files(rig: &Rig) -> Result<(u64, HashMap<Place, Vec<u64>>)> {
    let failed = |e| Error::new(ErrorKind::Unavailable, "cannot read the files").source(e);
    let store: Arc<dyn ObjectStore> = Arc::new(
        AmazonS3Builder::new()
            .with_endpoint(&rig.endpoint)
            .with_allow_http(true)
            .with_bucket_name(&rig.bucket)
            .with_access_key_id(S3::ACCESS_KEY)
            .with_secret_access_key(S3::SECRET_KEY)
            .with_region(S3::REGION)
            .build()
            .map_err(failed)?,
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(ErrorKind::Other, "no runtime to read the files with").source(e))?;
    runtime.block_on(async {
        let listed: Vec<_> =
            store.list(Some(&Path::from("events"))).try_collect().await.map_err(failed)?;
        let paths = listed
            .into_iter()
            .map(|meta| meta.location)
            .filter(|path| path.extension() == Some("parquet"));
        let mut files = futures::stream::iter(paths)
            .map(|path| {
                let store = Arc::clone(&store);
                async move { store.get(&path).await?.bytes().await.map(|bytes| (path, bytes)) }
            })
            .buffer_unordered(16);
        let (mut count, mut rows) = (0, HashMap::new());
        while let Some((path, bytes)) = files.try_next().await.map_err(failed)? {
            count += 1;
            read_file(bytes, &mut rows).map_err(|e| e.object(path))?;
        }
        Ok((count, rows))
    })
}

fn read_file(bytes: Bytes, rows: &mut HashMap<Place, Vec<u64>>) -> Result<()> {
    let broken = |e| Error::new(ErrorKind::Other, "not a parquet file").source(e);
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(broken)?;
    let mask =
        ProjectionMask::columns(builder.parquet_schema(), ["number", "_partition", "_offset"]);
    for batch in builder.with_projection(mask).build().map_err(broken)? {
        let batch = batch?;
        let column = |name| {
            batch.column_by_name(name).ok_or_else(|| {
                Error::new(ErrorKind::Other, "a file without one of our columns")
                    .with("column", name)
            })
        };
        let numbers = column("number")?.as_primitive::<Int64Type>();
        let partitions = column("_partition")?.as_primitive::<Int32Type>();
        let offsets = column("_offset")?.as_primitive::<Int64Type>();
        for ((number, partition), offset) in
            numbers.values().iter().zip(partitions.values()).zip(offsets.values())
        {
            rows.entry((*partition, *offset)).or_default().push(*number as u64);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        rows: &[(Place, &[u64])],
        produced: Vec<(std::ops::Range<u64>, Outcome)>,
    ) -> Judgement {
        let log = HashMap::from([((0, 0), 1), ((0, 1), 2), ((1, 0), 3)]);
        let rows = rows.iter().map(|(place, numbers)| (*place, numbers.to_vec())).collect();
        let mut judgement = Judgement { messages: 3, ..Judgement::default() };
        compare(&mut judgement, &log, &rows);
        cross_check(&mut judgement, &log, &Produced(produced));
        judgement
    }

    #[test]
    fn says_no_to_everything_that_is_wrong() {
        let all: [(Place, &[u64]); 3] = [((0, 0), &[1]), ((0, 1), &[2]), ((1, 0), &[3])];
        assert!(
            judged(&all, vec![(1..4, Outcome::Committed), (4..6, Outcome::Aborted)]).is_clean()
        );
        assert_eq!(judged(&all[..2], vec![]).lost, 1);
        let twice = judged(&[all[0], all[1], ((1, 0), &[3, 3])], vec![]);
        assert_eq!((twice.duplicates, twice.lost), (1, 0));
        let aborted = judged(&[all[0], all[1], all[2], ((1, 1), &[4])], vec![]);
        assert_eq!(aborted.foreign, 1);
        let mixed = judged(&[all[0], all[1], ((1, 0), &[2])], vec![]);
        assert!(mixed.foreign == 1 && mixed.duplicates == 1, "{mixed:?}");
        assert_eq!(judged(&all, vec![(3..5, Outcome::Unknown)]).contradictions, 1);
        assert_eq!(judged(&all, vec![(1..4, Outcome::Aborted)]).contradictions, 1);
        assert!(!Judgement::default().is_clean(), "nothing read proves nothing");
    }
}
