//! The source itself: a configuration that readers are opened from.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use rdkafka::consumer::Consumer as _;
use tidelock_connector::{
    Error, ErrorKind, Identity, Offsets, OpenSource, Result, Source, SourceContext, Stream,
    async_trait,
};
use tokio::sync::mpsc::unbounded_channel;

use crate::admin::GroupAdmin;
use crate::builder::KafkaSourceBuilder;
use crate::client::{self, Shares};
use crate::commit::KafkaCommitter;
use crate::config::{KafkaConfig, StartAt};
use crate::context::{Consumer, Notes};
use crate::errors;
use crate::fairness::Fairness;
use crate::inbox::Inbox;
use crate::outbox::{Outbox, Shared};
use crate::poller::Poller;
use crate::probe::Probe;
use crate::reader::KafkaReader;
use crate::settings::Settings;

/// Topics of a Kafka cluster, read by a consumer group.
///
/// Each worker is a member of the group with a thread of its own. There is one
/// stream per topic, called like it, and all have the same schema: the columns
/// of the format, then the coordinates that were asked for.
#[derive(Debug, Clone)]
pub struct KafkaSource {
    settings: Arc<Settings>,
}

impl KafkaSource {
    /// A source as configured, whose group is called like the pipeline unless
    /// the configuration says otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] names the key that makes no sense.
    pub fn new(config: KafkaConfig, pipeline: &str) -> Result<Self> {
        Ok(Self { settings: Settings::new(config, pipeline, None)? })
    }

    /// Begins a source with its brokers (`host:port`, with commas in between)
    /// and its consumer group.
    pub fn builder(brokers: &str, group_id: &str) -> KafkaSourceBuilder {
        KafkaSourceBuilder::new(brokers, group_id)
    }

    /// What operators ask of the group, beside its members.
    pub fn admin(&self) -> GroupAdmin {
        GroupAdmin::new(Arc::clone(&self.settings))
    }

    /// How fairly the partitions are served, by all readers of this source and
    /// its clones together.
    pub fn fairness(&self) -> Fairness {
        self.settings.fairness.clone()
    }

    pub(crate) fn from_settings(settings: Arc<Settings>) -> Self {
        Self { settings }
    }

    /// The consumer group.
    pub fn group_id(&self) -> &str {
        &self.settings.group
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn open(&self, ctx: SourceContext) -> Result<OpenSource> {
        let settings = Arc::clone(&self.settings);
        blocking(move || open(&settings, &ctx)).await
    }

    async fn check(&self) -> Result<Vec<String>> {
        let settings = Arc::clone(&self.settings);
        blocking(move || check(&settings)).await
    }

    async fn ends(&self) -> Result<Offsets> {
        let partitions = self.admin().partitions(StartAt::Latest).await?;
        Ok(partitions.into_iter().map(|one| (one.partition, one.end)).collect())
    }

    fn streams(&self) -> Vec<Arc<Stream>> {
        // What a regular expression will match is not known yet, but the
        // schema is.
        let Settings { config, schema, .. } = &*self.settings;
        config.topics.iter().map(|topic| Stream::new(&**topic, Arc::clone(schema))).collect()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(ErrorKind::Panic, "opening the Kafka source").source(error))?
}

fn check(settings: &Settings) -> Result<Vec<String>> {
    let probe = Probe::new(&settings.config, &settings.group)?;
    let topics = probe.topics()?;
    let mut lines: Vec<String> = topics
        .iter()
        .map(|topic| format!("{}: {} partitions", topic.name, topic.partitions))
        .collect();
    if topics.is_empty() {
        lines.push(format!("{}: matches no topic yet", settings.config.topics.join(", ")));
    }
    let all: usize = topics.iter().map(|topic| topic.partitions).sum();
    if let Some(committed) = probe.committed(&topics)? {
        let group = &settings.group;
        lines.push(format!("group {group}: offsets committed for {committed} of {all} partitions"));
    }
    Ok(lines)
}

fn open(settings: &Arc<Settings>, ctx: &SourceContext) -> Result<OpenSource> {
    let Settings { config, group, .. } = &**settings;
    let probe = Probe::new(config, group)?;
    let topics = probe.topics()?;
    let identity = Identity { cluster: probe.cluster(), group: Some(group.clone()) };
    drop(probe);

    let partitions = topics.iter().map(|topic| topic.partitions).sum();
    let shares = Shares::new(ctx.memory, partitions, config);
    tracing::debug!(?shares, partitions, memory = ctx.memory, "limits");
    let consumer: Consumer = client::member(config, group, ctx.worker, shares.member)
        .create_with_context(Notes::default())
        .map_err(|error| errors::failed("setting up the Kafka consumer", error))?;
    let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
    consumer
        .subscribe(&topics)
        .map_err(|error| errors::failed("subscribing to the topics", error))?;
    let consumer = Arc::new(consumer);

    let committer = Arc::new(KafkaCommitter { consumer: Arc::downgrade(&consumer) });
    let shared = Arc::new(Shared::default());
    let (sender, events) = unbounded_channel();
    let (commands, obeyed) = mpsc::channel();
    let (alive, ended) = mpsc::channel();
    let outbox = Outbox::new(sender, Arc::clone(&shared));
    let ctx = ctx.clone();
    let settings = Arc::clone(settings);
    let thread = thread::Builder::new()
        .name(format!("tidelock-kafka-{}", next_number()))
        .spawn(move || {
            // Dropped last, after the group was left.
            let _alive: mpsc::Sender<()> = alive;
            Poller::new(consumer, settings, identity, outbox, obeyed, shares, &ctx).run();
        })
        .map_err(|error| Error::new(ErrorKind::Other, "cannot start a thread").source(error))?;
    let reader = KafkaReader {
        events,
        inbox: Inbox::default(),
        shared,
        commands,
        thread: Some(thread),
        ended,
    };
    Ok(OpenSource { reader: Box::new(reader), committer })
}

/// Threads of one process, told apart.
fn next_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
