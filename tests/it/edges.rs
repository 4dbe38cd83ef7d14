//! Where records could be lost at the edges: what is done out of order, holes
//! in the log, logs that do not begin at 0.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use tidelock::checkpoint::coordinator::{Coordinator, SinkRoute};
use tidelock::checkpoint::record::{Cursor, PartitionState};
use tidelock::connector::{Coverage, ErrorKind, Incarnation, TopicPartition};
use tidelock_services::Message;

use crate::support::{Job, Target, events, pipeline, read_parquet};

/// Offsets 100, 101 and 102, in a checkpoint each: 102 is done while 101 is in
/// flight.
#[test]
fn what_is_done_behind_something_in_flight_is_not_committed() {
    let (partition, sink) = (TopicPartition::new("orders", 0), Arc::<str>::from("lake"));
    let life = Incarnation::new();
    let route = SinkRoute { name: Arc::clone(&sink), topics: None, exactly_once: true };
    let mut checkpoints = Coordinator::new(life, vec![route]);
    let state = PartitionState {
        epoch: 1,
        owner: life,
        origin: 100,
        cursors: [(sink.to_string(), Cursor::start(100))].into(),
        rewinds: Vec::new(),
    };
    assert_eq!(checkpoints.own(&partition, &state), Some(100));
    let read = |checkpoints: &mut Coordinator, offset| {
        checkpoints.covered(&Coverage::of(partition.clone(), offset, offset + 1)).unwrap();
        checkpoints.wrote(&sink, 1);
        checkpoints.barrier(false);
        checkpoints.next_checkpoint() - 1
    };
    let committed = |offsets: &BTreeMap<TopicPartition, i64>| offsets.get(&partition).copied();

    let first = read(&mut checkpoints, 100);
    checkpoints.prepared(first, &sink, Vec::new());
    assert_eq!(checkpoints.next_swap().unwrap().checkpoint, first);
    checkpoints.landed(first);
    assert_eq!(committed(&checkpoints.published(first).offsets), Some(101));

    let (second, third) = (read(&mut checkpoints, 101), read(&mut checkpoints, 102));
    // The sink has acknowledged 102 and not 101: nothing moves.
    checkpoints.prepared(third, &sink, Vec::new());
    assert!(checkpoints.next_swap().is_none());
    checkpoints.prepared(second, &sink, Vec::new());
    assert_eq!(checkpoints.next_swap().unwrap().checkpoint, second);
    assert!(checkpoints.next_swap().is_none(), "the outcome of 101 is not known");
    checkpoints.landed(second);
    assert_eq!(checkpoints.next_swap().unwrap().checkpoint, third);
    checkpoints.landed(third);
    // 102 is visible and 101 is not: still nothing.
    assert_eq!(committed(&checkpoints.published(third).offsets), None);
    assert_eq!(committed(&checkpoints.published(second).offsets), Some(103));

    // And nothing is left out in reading.
    let gap = Coverage::of(partition.clone(), 104, 105);
    assert_eq!(checkpoints.covered(&gap).unwrap_err().kind(), ErrorKind::Fenced);
}

/// Markers of transactions, aborted messages in the middle and at the end, and
/// a log whose beginning was deleted.
#[test]
fn offsets_advance_over_every_kind_of_hole() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = tidelock_services::unique("holes");
    kafka.client().create_topic(&topic, 2, &[]).unwrap();
    let producer = kafka.client().transactional(&topic).unwrap();
    let transaction = |seed, committed: bool| {
        producer.begin().unwrap();
        for (number, event) in events(seed, 20).enumerate() {
            producer.send(&topic, Message::new(event).partition(number as i32 % 2)).unwrap();
        }
        if committed { producer.commit().unwrap() } else { producer.abort().unwrap() }
    };
    [true, false, true, true, false]
        .into_iter()
        .zip(1..)
        .for_each(|(c, seed)| transaction(seed, c));
    delete_below(kafka.client().bootstrap(), &topic, 5);

    let folder = tempfile::tempdir().unwrap();
    let target = Target::Folder(folder.path().to_owned());
    let job = Job::new(&pipeline(kafka, &topic, &target, ""), None);
    job.ok("run", &["--until-end"]);
    let ends = kafka.client().end_offsets(&topic).unwrap();
    assert!(ends.values().all(|end| *end == 55), "10 messages and a marker each: {ends:?}");
    assert_eq!(kafka.client().committed_offsets(&topic, &topic).unwrap(), ends);
    // The first transaction is cut off in the middle, the second and the last
    // were aborted.
    let expected: BTreeMap<i64, u32> =
        (5..10).chain(22..32).chain(33..43).map(|offset| (offset, 1)).collect();
    assert_eq!(read_parquet(&target), [(0, expected.clone()), (1, expected)].into());
    job.ok("verify", &[]);
}

/// As retention does.
fn delete_below(brokers: &str, topic: &str, offset: i64) {
    let mut config = rdkafka::ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> =
        config.set("bootstrap.servers", brokers).create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..2 {
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    }
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let deleted = block_on(admin.delete_records(&list, &options)).unwrap();
    assert!(deleted.elements().iter().all(|element| element.error().is_ok()));
}
