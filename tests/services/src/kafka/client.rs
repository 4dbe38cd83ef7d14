//! What tests do with a broker beside the code under test: topics, messages,
//! offsets.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tidelock_connector::{Error, ErrorKind, Result};

use crate::watch::pause;

/// How long one request may take. A test that takes longer has failed anyway.
const LIMIT: Duration = Duration::from_secs(60);

/// Talks to a broker through its plain listener; cheap to clone, and as good
/// as before after the broker was restarted.
#[derive(Debug, Clone)]
pub struct KafkaClient {
    bootstrap: String,
}

/// A message to produce. Strings and bytes turn into one with just a value.
#[derive(Debug, Clone, Default)]
pub struct Message {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    partition: Option<i32>,
    timestamp: Option<i64>,
}

impl Message {
    /// A message with a value.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A message without a value.
    pub fn tombstone() -> Self {
        Self::default()
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the partition; otherwise the key's hash decides, or chance.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }
}

impl From<Vec<u8>> for Message {
    fn from(value: Vec<u8>) -> Self {
        Self::new(value)
    }
}

impl From<String> for Message {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Message {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl KafkaClient {
    pub(crate) fn new(bootstrap: String) -> Self {
        Self { bootstrap }
    }

    /// `host:port` of the plain listener, for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The start of a client's configuration.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Makes a topic; `config` holds topic settings such as `cleanup.policy`.
    ///
    /// # Errors
    /// When it exists already, or the broker refuses or does not answer.
    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = config.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let made = block_on(self.admin()?.create_topics(&[topic], &admin_options()));
        one(made).map_err(|e| e.with("topic", name))?;
        // The broker acknowledges before every listener's metadata shows it.
        let end = Instant::now() + LIMIT;
        while self.partitions(name)? < partitions {
            if Instant::now() > end {
                return Err(refused("the new topic does not appear").with("topic", name));
            }
            pause(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// When it does not exist, or the broker refuses or does not answer.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let gone = block_on(self.admin()?.delete_topics(&[name], &admin_options()));
        one(gone).map_err(|e| e.with("topic", name))
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.config().create().map_err(client_error)
    }

    /// Produces messages, idempotently and in order, and waits until every one
    /// is acknowledged. Returns how many there were.
    ///
    /// # Errors
    /// When a message could not be delivered; those before it may have been.
    pub fn produce<M: Into<Message>>(
        &self,
        topic: &str,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<u64> {
        let producer = self.producer(&[("enable.idempotence", "true")])?;
        let mut count = 0;
        for message in messages {
            send(&producer, topic, &message.into())?;
            count += 1;
        }
        producer.flush(LIMIT).map_err(client_error)?;
        producer.context().check()?;
        Ok(count)
    }

    /// A transactional producer, with its id registered.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn transactional(&self, id: &str) -> Result<TransactionalProducer> {
        let producer = self.producer(&[("transactional.id", id)])?;
        producer.init_transactions(LIMIT).map_err(client_error)?;
        Ok(TransactionalProducer(producer))
    }

    fn producer(&self, extra: &[(&str, &str)]) -> Result<ThreadedProducer<Deliveries>> {
        let mut config = self.config();
        config.set("compression.type", "lz4").set("linger.ms", "5");
        config.set("message.timeout.ms", LIMIT.as_millis().to_string());
        extra.iter().for_each(|(key, value)| {
            config.set(*key, *value);
        });
        let deliveries = Deliveries::default();
        ThreadedProducer::from_config_and_context(&config, deliveries).map_err(client_error)
    }

    /// What a group has committed for a topic: the next offset to read of each
    /// partition that has one.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn committed_offsets(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let committed = self.committed(group, topic)?;
        Ok(committed.into_iter().map(|(partition, (offset, _))| (partition, offset)).collect())
    }

    /// What a group has committed for a topic, each offset with its metadata.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, (i64, String)>> {
        let mut config = self.config();
        let consumer: BaseConsumer =
            config.set("group.id", group).create().map_err(client_error)?;
        let mut wanted = TopicPartitionList::new();
        for partition in 0..self.partitions(topic)? {
            wanted.add_partition(topic, partition);
        }
        let found = consumer.committed_offsets(wanted, LIMIT).map_err(client_error)?;
        let offset = |offset| match offset {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        Ok(found
            .elements()
            .iter()
            .filter_map(|e| Some((e.partition(), (offset(e.offset())?, e.metadata().to_owned()))))
            .collect())
    }

    /// The high watermark of each partition of a topic.
    ///
    /// # Errors
    /// When the topic does not exist or the broker does not answer.
    pub fn end_offsets(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let consumer = self.consumer()?;
        (0..self.partitions(topic)?)
            .map(|partition| {
                let (_, high) = consumer
                    .fetch_watermarks(topic, partition, LIMIT)
                    .map_err(|e| client_error(e).with("topic", topic))?;
                Ok((partition, high))
            })
            .collect()
    }

    /// How many members a consumer group has.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn group_members(&self, group: &str) -> Result<usize> {
        let groups = self.consumer()?.fetch_group_list(Some(group), LIMIT).map_err(client_error)?;
        Ok(groups.groups().iter().map(|group| group.members().len()).sum())
    }

    /// How many partitions a topic has; 0 where it does not exist.
    fn partitions(&self, topic: &str) -> Result<i32> {
        let metadata = self.consumer()?.fetch_metadata(Some(topic), LIMIT).map_err(client_error)?;
        Ok(metadata.topics().iter().map(|topic| topic.partitions().len() as i32).sum())
    }

    fn consumer(&self) -> Result<BaseConsumer> {
        self.config().create().map_err(client_error)
    }

    /// Whether the broker answers a metadata request.
    pub(crate) fn is_ready(&self) -> bool {
        let listens = self.bootstrap.parse().is_ok_and(|at| {
            std::net::TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok()
        });
        // A client that finds nobody waits longer and longer before it tries
        // again, so each attempt has one of its own.
        listens
            && self.consumer().is_ok_and(|consumer| {
                let metadata = consumer.fetch_metadata(None, Duration::from_secs(5));
                metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
            })
    }
}

/// Writes messages that become visible, or never do, together.
pub struct TransactionalProducer(ThreadedProducer<Deliveries>);

impl TransactionalProducer {
    /// Begins a transaction.
    ///
    /// # Errors
    /// When one is under way already.
    pub fn begin(&self) -> Result<()> {
        self.0.begin_transaction().map_err(client_error)
    }

    /// Adds a message to the transaction.
    ///
    /// # Errors
    /// When an earlier message could not be delivered.
    pub fn send(&self, topic: &str, message: impl Into<Message>) -> Result<()> {
        send(&self.0, topic, &message.into())
    }

    /// Makes the messages of the transaction visible.
    ///
    /// # Errors
    /// When that did not happen, or is not known to have happened.
    pub fn commit(&self) -> Result<()> {
        self.0.commit_transaction(LIMIT).map_err(client_error)
    }

    /// Drops the transaction. Its messages are in the log all the same, for
    /// readers to pass over.
    ///
    /// # Errors
    /// When that is not known to have happened.
    pub fn abort(&self) -> Result<()> {
        // Aborting throws away what has not been sent: send it first.
        self.0.flush(LIMIT).map_err(client_error)?;
        self.0.abort_transaction(LIMIT).map_err(client_error)
    }
}

impl std::fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TransactionalProducer")
    }
}

/// Remembers the first message that could not be delivered.
#[derive(Default)]
struct Deliveries(Mutex<Option<String>>);

impl Deliveries {
    fn check(&self) -> Result<()> {
        match self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            None => Ok(()),
            Some(why) => Err(refused(format!("a message was not delivered: {why}"))),
        }
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        if let Err((error, _)) = result {
            let mut first = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            first.get_or_insert_with(|| error.to_string());
        }
    }
}

fn send(producer: &ThreadedProducer<Deliveries>, topic: &str, message: &Message) -> Result<()> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic);
    record.key = message.key.as_deref();
    record.payload = message.value.as_deref();
    record.partition = message.partition;
    record.timestamp = message.timestamp;
    if !message.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(message.headers.len());
        record.headers = Some(message.headers.iter().fold(headers, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        }));
    }
    loop {
        producer.context().check()?;
        record = match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => record,
            Err((error, _)) => return Err(client_error(error).with("topic", topic)),
        };
        pause(Duration::from_millis(1));
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT))
}

/// The outcome of an administrative request about one thing.
fn one(outcome: KafkaResult<Vec<TopicResult>>) -> Result<()> {
    match outcome.map_err(client_error)?.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(refused(format!("the broker refused: {code}"))),
        None => Err(refused("the broker answered nothing")),
    }
}

fn client_error(error: KafkaError) -> Error {
    refused("a request to the test broker failed").source(error)
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}
