//! Partitions that become busy and quiet again are fetched by one client and by
//! the other; nobody downstream may notice.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidelock_connector::{Batch, Event, OpenSource, Source, SourceContext, Start};
use tidelock_kafka::{Format, KafkaSource};

/// More than there are seats in the second client.
const PARTITIONS: usize = 20;
/// So many of them are busy first, and the others then.
const FIRST: usize = 15;
/// Messages of one burst for each busy partition, and their size: it takes two
/// bursts in a second to be busy.
const BURST: usize = 10;
const SIZE: usize = 32 << 10;
const PAUSE: Duration = Duration::from_millis(40);
/// The same for a quiet one.
const QUIET_SIZE: usize = 64;
/// Until all that were busy have moved. Moves are 5 s apart.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who is busy: the first ones, the others, or the producer has nothing to do.
const PHASE_FIRST: usize = 0;
const PHASE_OTHERS: usize = 1;
const PHASE_OVER: usize = 2;

#[derive(Clone, Default)]
struct Producing {
    phase: Arc<AtomicUsize>,
    /// How many messages each partition got.
    sent: Arc<Mutex<[u64; PARTITIONS]>>,
}

/// Ends the producer, after a panic too: the runtime would wait for it.
impl Drop for Producing {
    fn drop(&mut self) {
        self.phase.store(PHASE_OVER, Relaxed);
    }
}

impl Producing {
    fn sent(&self) -> [u64; PARTITIONS] {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends messages that begin with their number in the partition.
    fn run(&self, config: &ClientConfig, topic: &str) {
        // Padding costs the broker nothing that way.
        let mut config = config.clone();
        config.set("compression.type", "lz4");
        let producer: BaseProducer = config.create().expect("a producer");
        loop {
            let (began, phase) = (Instant::now(), self.phase.load(Relaxed));
            if phase == PHASE_OVER {
                return;
            }
            let mut sent = self.sent();
            for (partition, sent) in sent.iter_mut().enumerate() {
                let busy = (partition < FIRST) == (phase == PHASE_FIRST);
                let (burst, size) = if busy { (BURST, SIZE) } else { (1, QUIET_SIZE) };
                for _ in 0..burst {
                    let payload = format!("{sent:>size$}");
                    let record = BaseRecord::<(), str>::to(topic).partition(partition as i32);
                    let queued = producer.send(record.payload(&payload));
                    queued.map_err(|(error, _)| error).expect("room in the producer");
                    *sent += 1;
                }
            }
            producer.flush(PATIENCE).expect("the broker acknowledges");
            *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = sent;
            std::thread::sleep(PAUSE.saturating_sub(began.elapsed()));
        }
    }
}

/// A reader, and how many messages of each partition it has delivered.
struct Reading {
    open: OpenSource,
    read: [u64; PARTITIONS],
}

impl Reading {
    async fn next(&mut self) {
        let next = tokio::time::timeout(PATIENCE, self.open.reader.next());
        match next.await.expect("something happens in time").expect("no error") {
            Event::Batch(batch) => self.check(&batch),
            Event::Assigned(assignment) => {
                let start = |partition| Start { partition, offset: 0, end: None };
                let starts = assignment.partitions.into_iter().map(|one| start(one.partition));
                assignment.reply.send(starts.collect()).expect("the reader waits for the answer");
            }
            Event::Revoking(_) => panic!("nobody else is there"),
            Event::Covered(_) | Event::Idle | Event::End => {}
        }
    }

    /// Every message comes once, and in order.
    fn check(&mut self, batch: &Batch) {
        let values = batch.records.column_by_name("value").expect("it is raw").as_binary::<i32>();
        let mut values = values.iter().map(|value| value.expect("a value"));
        for run in &batch.runs {
            let read = &mut self.read[run.partition.partition as usize];
            for value in values.by_ref().take(run.count as usize) {
                let text = std::str::from_utf8(value).expect("text");
                let number: u64 = text.trim().parse().expect("a number");
                assert_eq!(number, *read, "of {}", run.partition);
                *read += 1;
            }
        }
        assert_eq!(values.next(), None, "runs say where rows came from");
    }
}

/// Times that each partition has moved.
fn moves(source: &KafkaSource) -> [u64; PARTITIONS] {
    let mut moves = [0; PARTITIONS];
    for one in source.fairness().report().partitions {
        moves[one.partition as usize] = one.moves;
    }
    moves
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn partitions_that_change_clients_are_read_once_and_in_order() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let topic = tidelock_services::unique("moves");
    kafka.client().create_topic(&topic, PARTITIONS as i32, &[]).expect("a topic");
    let producing = Producing::default();
    let producer = {
        let (producing, config, topic) =
            (producing.clone(), kafka.client().config(), topic.clone());
        tokio::task::spawn_blocking(move || producing.run(&config, &topic))
    };
    let source = KafkaSource::builder(kafka.client().bootstrap(), &topic)
        .topics([&topic])
        .format(Format::Raw)
        .coordinates([])
        .build()
        .expect("a valid source");
    let context = SourceContext::new("moves", 0, 64 << 20);
    let open = source.open(context).await.expect("the broker answers");
    let mut reading = Reading { open, read: [0; PARTITIONS] };

    for (phase, busy) in [(PHASE_FIRST, 0..FIRST), (PHASE_OTHERS, FIRST..PARTITIONS)] {
        producing.phase.store(phase, Relaxed);
        let began = Instant::now();
        while !moves(&source)[busy.clone()].iter().all(|moves| *moves > 0) {
            assert!(began.elapsed() < PATIENCE, "{busy:?} is busy: {:?}", moves(&source));
            reading.next().await;
        }
    }
    // There is one seat for the other five, and four are taken from the first.
    let moves = moves(&source);
    assert!(moves[..FIRST].iter().filter(|moves| **moves == 2).count() >= 4, "{moves:?}");

    producing.phase.store(PHASE_OVER, Relaxed);
    producer.await.expect("the producer does not panic");
    while reading.read != producing.sent() {
        reading.next().await;
    }
    let members = kafka.client().group_members(&topic).expect("the broker answers");
    assert_eq!(members, 1, "the second client is no member of the group");
}
