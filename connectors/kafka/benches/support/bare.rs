//! A bare loop over librdkafka: what was fetched first is taken first.
#![expect(
    unsafe_code,
    reason = "rust-rdkafka has no batch call; the blocks say why they are sound"
)]

use std::ptr;
use std::slice;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};
use tidelock_json::{JsonDecoder, JsonOptions, sample};

use crate::load;

/// As many as the reader takes in a turn.
const BATCH: usize = 500;
/// As many rows as the reader puts into a batch at most.
const ROWS: usize = 16 * 1024;

/// The queue of a consumer with all partitions of the topics.
struct Bare {
    queue: *mut sys::rd_kafka_queue_t,
    consumer: BaseConsumer,
    room: Vec<*mut sys::rd_kafka_message_t>,
}

impl Bare {
    /// The reader's settings where they matter for the cost.
    fn open(brokers: &str, topics: &[(&str, Offset)]) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("group.id", "bare")
            .set("enable.auto.commit", "false")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", "1048576")
            .set("queued.min.messages", "100000");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        for (topic, offset) in topics {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20));
            let metadata = metadata.expect("the broker answers");
            for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
                list.add_partition_offset(topic, partition.id(), *offset).expect("an offset");
            }
        }
        consumer.assign(&list).expect("assigned");
        // SAFETY: the client is alive as long as this struct.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Self { queue, consumer, room: vec![ptr::null_mut(); BATCH] }
    }

    /// Hands on what is there, or waits for it; how many it were.
    fn take(&mut self, mut each: impl FnMut(&sys::rd_kafka_message_t, &[u8])) -> usize {
        // SAFETY: `room` has room for `BATCH` pointers.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue, 100, self.room.as_mut_ptr(), BATCH)
        };
        let taken = usize::try_from(taken).unwrap_or(0);
        for message in &self.room[..taken] {
            // SAFETY: librdkafka says that the message is whole, and it is
            // given back once, behind its last use.
            unsafe {
                let one = &**message;
                if one.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    each(one, slice::from_raw_parts(one.payload.cast(), one.len));
                }
                sys::rd_kafka_message_destroy(*message);
            }
        }
        taken
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // SAFETY: our reference, and the client is still alive.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
        let _closed = self.consumer.unassign();
    }
}

fn decoder() -> JsonDecoder {
    JsonDecoder::new(sample::schema(), JsonOptions::default()).expect("a valid schema")
}

/// Takes a topic from the first messages to the last.
pub(crate) fn drain(brokers: &str, topic: &str, decode: bool) -> (u64, Duration) {
    let mut bare = Bare::open(brokers, &[(topic, Offset::Beginning)]);
    let (mut decoder, mut rows, mut messages) = (decoder(), 0, 0);
    while bare.take(|_, _| {}) == 0 {}
    let (before, mut last) = (load::cpu(), Instant::now());
    while last.elapsed() < Duration::from_secs(1) {
        let mut some = 0;
        bare.take(|_, value| {
            some += 1;
            if decode {
                decoder.decode(value).expect("an event");
            }
        });
        rows += some;
        messages += some as u64;
        if rows >= ROWS {
            decoder.finish().expect("whole columns");
            rows = 0;
        }
        if some > 0 {
            last = Instant::now();
        }
    }
    (messages, load::cpu() - before)
}

/// How long messages of the quiet topic take, beside the backlog of the other.
pub(crate) fn waits(brokers: &str, busy: &str, quiet: &str) {
    let mut bare = Bare::open(brokers, &[(busy, Offset::Beginning), (quiet, Offset::End)]);
    let (mut decoder, mut rows, mut messages) = (decoder(), 0, 0);
    while bare.take(|_, _| {}) == 0 {}
    let sent = load::Quiet::start(brokers, quiet);
    let quiet = std::ffi::CString::new(quiet).expect("a name");
    let (mut waits, mut last, sink) = (Vec::new(), Instant::now(), load::Sink::new());
    while last.elapsed() < Duration::from_secs(1) && waits.len() < load::QUIET_MESSAGES {
        let (mut some, mut of_quiet) = (0, 0);
        bare.take(|message, value| {
            some += 1;
            decoder.decode(value).expect("an event");
            // SAFETY: the message is alive, and so is the name of its topic.
            let name = unsafe { std::ffi::CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt)) };
            of_quiet += u64::from(*name == *quiet);
        });
        sent.received(of_quiet, &mut waits);
        rows += some;
        messages += some as u64 - of_quiet;
        if rows >= ROWS {
            decoder.finish().expect("whole columns");
            rows = 0;
        }
        std::thread::sleep(sink.ahead(messages));
        if some > 0 {
            last = Instant::now();
        }
    }
    load::table("arrival", waits, messages);
}
