//! The one file that talks to librdkafka without rust-rdkafka in between.
//!
//! Four things are missing there: a queue per partition that is drained many
//! messages at a time (its `PartitionQueue` hands out one by one, at a
//! third more CPU), the watermarks that fetching has seen anyway, the ids
//! of topics, and the members of groups of both protocols.
//!
//! # What librdkafka 2.12 does
//! * A partition's queue is *detached* by forwarding it to nowhere. That marks
//!   the queue, and starting to fetch no longer forwards it to the consumer's
//!   main queue (`rd_kafka_toppar_op_fetch_start`). The mark stays as long as
//!   the partition's object lives, which is why a partition is detached again
//!   before each assignment, and never polled in any other way (rust-rdkafka
//!   #535 is what happens otherwise).
//! * Draining counts as polling for `max.poll.interval.ms`, hands out
//!   `PARTITION_EOF` and errors in their place in the order, and drops what was
//!   fetched before a seek, a pause or a new assignment.
//! * Draining sets the position that a later pause goes back to, to the offset
//!   behind the last element *even where that is an end-of-partition mark*, so
//!   one too far. librdkafka pauses everything during a rebalance; whoever
//!   drains must seek to the right position (see `sync`).
#![expect(unsafe_code, reason = "calls into librdkafka; each block says why it is sound")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::types::RDKafkaErrorCode;

/// A queue of librdkafka.
pub(crate) struct Queue<C: ConsumerContext> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// A queue must not outlive its client.
    _consumer: Arc<BaseConsumer<C>>,
}

impl<C: ConsumerContext> Queue<C> {
    /// The consumer's main queue, which `poll` serves.
    pub(crate) fn main(consumer: &Arc<BaseConsumer<C>>) -> Option<Self> {
        // SAFETY: the client is alive; the reference is ours to destroy.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Some(Self { queue: NonNull::new(queue)?, _consumer: Arc::clone(consumer) })
    }

    /// The queue of one partition, detached from the main queue; to be called
    /// before the partition is assigned.
    pub(crate) fn detach(
        consumer: &Arc<BaseConsumer<C>>,
        topic: &str,
        partition: i32,
    ) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        let client = consumer.client().native_ptr();
        // SAFETY: the client is alive, and the name is a C string that is only
        // read during the call. The queue that comes back is ours to destroy.
        let queue = unsafe { sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition) };
        let queue = NonNull::new(queue)?;
        // SAFETY: the queue was just handed to us; no destination detaches it.
        unsafe { sys::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut()) };
        Some(Self { queue, _consumer: Arc::clone(consumer) })
    }

    /// How many messages, marks and events are waiting.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: the queue lives as long as `self`.
        unsafe { sys::rd_kafka_queue_length(self.queue.as_ptr()) }
    }

    /// Takes up to `max` messages without waiting. `room` is reused, so that
    /// draining allocates nothing.
    pub(crate) fn drain<'a>(&'a self, room: &'a mut Room, max: usize) -> Drained<'a> {
        let Room(slots) = room;
        slots.clear();
        slots.resize(max, ptr::null_mut());
        // SAFETY: the queue lives as long as `self`, and `slots` has room for
        // `max` pointers. Those that come back are ours to destroy.
        let taken = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, slots.as_mut_ptr(), max)
        };
        slots.truncate(usize::try_from(taken).unwrap_or(0));
        Drained { messages: slots }
    }

    /// Drops what was fetched of a partition that is not assigned any more.
    /// librdkafka would keep it until somebody drains the queue, which is as
    /// long as the client lives if the partition does not come back.
    pub(crate) fn discard(&self, room: &mut Room) {
        drop(self.drain(room, 1));
    }
}

impl<C: ConsumerContext> Drop for Queue<C> {
    fn drop(&mut self) {
        // SAFETY: this gives up our reference; the client is still alive.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// Room for the messages of one turn.
#[derive(Default)]
pub(crate) struct Room(Vec<*mut sys::rd_kafka_message_t>);

/// Messages taken from a queue; they are given back when this is dropped.
pub(crate) struct Drained<'a> {
    messages: &'a mut Vec<*mut sys::rd_kafka_message_t>,
}

impl Drained<'_> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The messages and marks, in the order of the log.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        // SAFETY: librdkafka filled in valid messages, which nobody else
        // touches and which live until this is dropped.
        self.messages.iter().map(|message| Message(unsafe { &**message }))
    }
}

impl Drop for Drained<'_> {
    fn drop(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: each message is destroyed exactly once; no `Message` can
            // be around any more since it borrows from `self`.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }
}

/// A message, or a mark that stands for the end of the partition or an error.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a>(&'a sys::rd_kafka_message_t);

impl<'a> Message<'a> {
    pub(crate) fn offset(self) -> i64 {
        self.0.offset
    }

    /// What this is instead of a message.
    pub(crate) fn error(self) -> Option<RDKafkaErrorCode> {
        match self.0.err {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => None,
            error => Some(error.into()),
        }
    }

    /// What librdkafka says about the error.
    pub(crate) fn error_text(self) -> String {
        // SAFETY: the message is alive; the text is null or lives as long.
        unsafe { owned(sys::rd_kafka_message_errstr(self.0)) }.unwrap_or_default()
    }

    pub(crate) fn key(self) -> Option<&'a [u8]> {
        // SAFETY: librdkafka says that so many bytes of key are there.
        unsafe { bytes(self.0.key, self.0.key_len) }
    }

    pub(crate) fn value(self) -> Option<&'a [u8]> {
        // SAFETY: librdkafka says that so many bytes of payload are there.
        unsafe { bytes(self.0.payload, self.0.len) }
    }

    /// Bytes of key and value.
    pub(crate) fn size(self) -> usize {
        self.0.len + self.0.key_len
    }

    /// Milliseconds since 1970, if the message has a time.
    pub(crate) fn timestamp(self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive and `kind` is ours.
        let time = unsafe { sys::rd_kafka_message_timestamp(self.0, &raw mut kind) };
        (time >= 0).then_some(time)
    }

    /// The headers, in order; one key may occur several times.
    pub(crate) fn headers(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; the headers that come back belong to
        // it. Parsing them changes only librdkafka's cache within the message,
        // which this thread alone uses.
        let error = unsafe { sys::rd_kafka_message_headers(self.0, &raw mut headers) };
        let some = error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        (0..).map_while(move |index| {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `headers` is valid where there are some, and librdkafka
            // checks the index. Name and value live as long as the message.
            unsafe {
                let error = some.then(|| {
                    sys::rd_kafka_header_get_all(
                        headers,
                        index,
                        &raw mut name,
                        &raw mut value,
                        &raw mut size,
                    )
                })?;
                (error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR)
                    .then(|| (CStr::from_ptr(name).to_bytes(), bytes(value, size)))
            }
        })
    }
}

/// # Safety
/// `start` is null, or `len` bytes are there for as long as `'a`.
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: that is what the caller promises.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast(), len) })
}

/// # Safety
/// `text` is null or a C string.
unsafe fn owned(text: *const c_char) -> Option<String> {
    // SAFETY: that is what the caller promises.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// The low and high watermark that the last fetch of a partition brought;
/// nothing is asked of the broker.
pub(crate) fn cached_watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &CStr,
    partition: i32,
) -> Option<(i64, i64)> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive, the name is a C string, the numbers are ours.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    let known = error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    (known && high >= 0).then_some((low, high))
}

/// Owns something of librdkafka until it is dropped.
struct Owned<'a, T>(NonNull<T>, unsafe extern "C" fn(*mut T), PhantomData<&'a ()>);

impl<'a, T> Owned<'a, T> {
    /// # Safety
    /// `pointer` is null, or ours to destroy with `destroy` within `'a`.
    unsafe fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        Some(Self(NonNull::new(pointer)?, destroy, PhantomData))
    }

    fn get(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Owned<'_, T> {
    fn drop(&mut self) {
        // SAFETY: `new` was promised that this is how to give it back.
        unsafe { (self.1)(self.0.as_ptr()) };
    }
}

/// How an admin request is made: how long it may take, and whom it goes to
/// unless librdkafka is to find that out.
///
/// # Safety
/// The client is alive for `'a`.
unsafe fn admin_options<'a>(
    client: *mut sys::rd_kafka_t,
    operation: sys::rd_kafka_admin_op_t,
    timeout_ms: i32,
    broker: Option<i32>,
) -> Option<Owned<'a, sys::rd_kafka_AdminOptions_t>> {
    let mut text: [c_char; 256] = [0; 256];
    let (text, room) = (text.as_mut_ptr(), text.len());
    // SAFETY: the client is alive; the options are owned with their destructor,
    // and `text` is only written to during the calls.
    unsafe {
        let options = Owned::new(
            sys::rd_kafka_AdminOptions_new(client, operation),
            sys::rd_kafka_AdminOptions_destroy,
        )?;
        sys::rd_kafka_AdminOptions_set_request_timeout(options.get(), timeout_ms, text, room);
        if let Some(broker) = broker {
            sys::rd_kafka_AdminOptions_set_broker(options.get(), broker, text, room);
        }
        Some(options)
    }
}

/// The ids of topics, by name; none for a topic that has none, and nothing at
/// all where the broker does not answer in time.
pub(crate) fn topic_ids<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    broker: i32,
    topics: &[&str],
    timeout: Duration,
) -> Option<Vec<(String, Option<String>)>> {
    let names: Vec<CString> = topics.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let client = consumer.client().native_ptr();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive throughout. What librdkafka creates is owned
    // by an `Owned` with the matching destructor; result, descriptions and ids
    // belong to the event, which outlives their use.
    unsafe {
        let queue = Owned::new(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy)?;
        let collection = Owned::new(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            sys::rd_kafka_TopicCollection_destroy,
        )?;
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        // Any broker can tell; otherwise librdkafka looks for the controller,
        // which a consumer often does not know.
        let options = admin_options(client, operation, timeout_ms, Some(broker))?;
        sys::rd_kafka_DescribeTopics(client, collection.get(), options.get(), queue.get());
        let event = Owned::new(
            sys::rd_kafka_queue_poll(queue.get(), timeout_ms),
            sys::rd_kafka_event_destroy,
        )?;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.get());
        if result.is_null()
            || sys::rd_kafka_event_error(event.get())
                != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return None;
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let topics = if count == 0 { &[] } else { slice::from_raw_parts(topics, count) };
        Some(topics.iter().filter_map(|topic| topic_id(*topic)).collect())
    }
}

/// How many members a group has, by whichever protocol; `None` where nobody
/// answers in time.
pub(crate) fn group_members<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &CStr,
    timeout: Duration,
) -> Option<Result<usize, RDKafkaErrorCode>> {
    let client = consumer.client().native_ptr();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut names = [group.as_ptr()];
    // SAFETY: as in `topic_ids`.
    unsafe {
        let queue = Owned::new(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy)?;
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        let options = admin_options(client, operation, timeout_ms, None)?;
        sys::rd_kafka_DescribeConsumerGroups(
            client,
            names.as_mut_ptr(),
            names.len(),
            options.get(),
            queue.get(),
        );
        let event = Owned::new(
            sys::rd_kafka_queue_poll(queue.get(), timeout_ms),
            sys::rd_kafka_event_destroy,
        )?;
        let error = sys::rd_kafka_event_error(event.get());
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Some(Err(error.into()));
        }
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event.get());
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if count == 0 {
            return Some(Ok(0));
        }
        let error = sys::rd_kafka_ConsumerGroupDescription_error(*groups);
        if !error.is_null() {
            let code = sys::rd_kafka_error_code(error);
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Some(Err(code.into()));
            }
        }
        Some(Ok(sys::rd_kafka_ConsumerGroupDescription_member_count(*groups)))
    }
}

/// # Safety
/// `topic` belongs to an event that is alive.
unsafe fn topic_id(
    topic: *const sys::rd_kafka_TopicDescription_t,
) -> Option<(String, Option<String>)> {
    // SAFETY: that is what the caller promises; the rest belongs to the topic.
    unsafe {
        let name = owned(sys::rd_kafka_TopicDescription_name(topic))?;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null()
            && sys::rd_kafka_error_code(error)
                != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return Some((name, None));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return Some((name, None));
        }
        let (most, least) = (
            sys::rd_kafka_Uuid_most_significant_bits(id),
            sys::rd_kafka_Uuid_least_significant_bits(id),
        );
        // A broker that knows no ids says zero.
        let text = ((most, least) != (0, 0)).then(|| owned(sys::rd_kafka_Uuid_base64str(id)));
        Some((name, text.flatten()))
    }
}

/// The metadata that was committed with each offset of a list, in its order.
/// Anybody may have committed anything, so it need not be UTF-8, which
/// rust-rdkafka insists on.
pub(crate) fn commit_metadata(list: &TopicPartitionList) -> Vec<String> {
    // SAFETY: the list is alive, and librdkafka says how many elements it has
    // and how many bytes of metadata each of them.
    unsafe {
        let list = &*list.ptr();
        let count = usize::try_from(list.cnt).unwrap_or(0);
        let elements = if count == 0 { &[] } else { slice::from_raw_parts(list.elems, count) };
        elements
            .iter()
            .map(|element| bytes(element.metadata, element.metadata_size).unwrap_or_default())
            .map(|metadata| String::from_utf8_lossy(metadata).into_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    use rdkafka::{ClientConfig, Offset};

    use super::*;
    use crate::context::Notes;

    #[test]
    fn nothing_is_kept_of_a_partition_that_was_given_up() {
        let mock = MockCluster::new(1).expect("a mock cluster");
        mock.create_topic("topic", 1, 1).expect("a topic");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers()).set("group.id", "group");
        let producer: BaseProducer = config.create().expect("a producer");
        for _ in 0..1_000 {
            let record = BaseRecord::<str, str>::to("topic").partition(0).payload("a message");
            producer.send(record).map_err(|(error, _)| error).expect("room in the producer");
        }
        producer.flush(Duration::from_secs(10)).expect("all messages sent");
        let consumer = config.create_with_context(Notes::default()).expect("a consumer");
        let consumer: Arc<BaseConsumer<Notes>> = Arc::new(consumer);
        let queue = Queue::detach(&consumer, "topic", 0).expect("a queue");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("topic", 0, Offset::Beginning).expect("a valid offset");
        consumer.incremental_assign(&list).expect("assigned");
        let begun = std::time::Instant::now();
        while queue.len() < 1_000 {
            assert!(begun.elapsed() < Duration::from_secs(10), "{} messages", queue.len());
            std::thread::park_timeout(Duration::from_millis(10));
        }
        consumer.incremental_unassign(&list).expect("unassigned");
        assert!(queue.len() >= 1_000, "librdkafka does that by itself now");
        queue.discard(&mut Room::default());
        assert_eq!(queue.len(), 0);
    }
}
