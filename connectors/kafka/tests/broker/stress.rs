//! Members come and go under load; every record must be read exactly once and
//! no partition may be forgotten.
//!
//! Each member is a reader with a driver that does what the runtime does, with
//! a board in memory for the record: it answers an assignment with the
//! positions on the board, moves them with every event, and lets go of what is
//! revoked. Whatever comes twice or not at all shows there at once.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidelock_connector::{
    CommittedOffset, CommittedOffsets, Coverage, Event, OpenSource, Source, SourceContext, Start,
    TopicPartition,
};
use tidelock_kafka::{Format, KafkaSource};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Partitions of the topic: so many that the busiest are fetched apart.
pub(crate) const TOPIC_PARTITIONS: usize = 24;
const MEMBERS: usize = 4;
/// Longer than any rebalance takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// A burst of this many messages for each partition, every 10 ms or so.
const BURST: usize = 16;
/// The same for each partition that is busy just now, and their size.
const BUSY_BURST: usize = 64;
const BUSY_SIZE: usize = 2048;
/// How many partitions are busy, and for how long.
const BUSY: usize = 3;
const BUSY_TIME: Duration = Duration::from_secs(7);

/// What came out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Times that a member came or went.
    pub(crate) rounds: usize,
    /// Assignments and revocations that members heard of.
    pub(crate) rebalances: u64,
    /// Records read.
    pub(crate) records: u64,
    /// Times that a partition moved from one client of a reader to the other.
    pub(crate) moves: u64,
    /// Records that were passed over.
    pub(crate) lost: u64,
    /// Records that were read twice.
    pub(crate) doubled: u64,
    /// The longest that an owned partition with data was not served.
    pub(crate) stall: Duration,
    /// The longest that a partition with data was not served, rebalances and
    /// all.
    pub(crate) gap: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, rebalances, records, moves, lost, doubled, stall, gap } = self;
        write!(
            f,
            "{rounds} rounds, {rebalances} assignments and revocations, {records} records, \
             {moves} moves, {lost} lost, {doubled} doubled, longest stall {stall:.1?} owned, {gap:.1?} in all"
        )
    }
}

/// One partition on the board.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    /// Behind the last acknowledged message.
    end: i64,
    /// Behind the last message read.
    position: i64,
    /// Which member reads it, and since when.
    owner: Option<(usize, Instant)>,
    /// When something of it was last read.
    served: Option<Instant>,
    /// Since when something is there to be read.
    waiting: Option<Instant>,
}

#[derive(Debug, Default)]
struct Board {
    cells: [Cell; TOPIC_PARTITIONS],
    outcome: Outcome,
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Board>>);

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are no holes in the log, so what is covered was a row each.
    fn read(&self, coverage: &Coverage, rows: usize) {
        let board = &mut *self.board();
        let covered: u64 = coverage.iter().map(|(_, set)| set.len()).sum();
        board.outcome.lost += covered.saturating_sub(rows as u64);
        for (partition, set) in coverage.iter() {
            let cell = &mut board.cells[partition.partition as usize];
            for range in set.ranges() {
                let behind = cell.position.min(range.to) - range.from;
                board.outcome.doubled += behind.max(0) as u64;
                board.outcome.lost += (range.from - cell.position).max(0) as u64;
                board.outcome.records += range.len();
                cell.position = cell.position.max(range.to);
                cell.served = Some(Instant::now());
            }
        }
    }

    /// Looks whether somebody waits.
    fn look(&self) {
        let Board { cells, outcome } = &mut *self.board();
        let now = Instant::now();
        for (number, cell) in cells.iter_mut().enumerate() {
            if cell.end <= cell.position {
                cell.waiting = None;
                continue;
            }
            let since = cell.served.max(Some(*cell.waiting.get_or_insert(now))).unwrap_or(now);
            outcome.gap = outcome.gap.max(now - since);
            if let Some((owner, owned)) = cell.owner {
                let stall = now - since.max(owned);
                if stall > outcome.stall && stall > Duration::from_secs(1) {
                    tracing::warn!(owner, ?stall, number, "not served");
                }
                outcome.stall = outcome.stall.max(now - since.max(owned));
            }
        }
    }

    /// Whether everything that was there at `ends` was read.
    fn has_reached(&self, ends: &[i64; TOPIC_PARTITIONS]) -> bool {
        self.board().cells.iter().zip(ends).all(|(cell, end)| cell.position >= *end)
    }

    /// Whether every partition is read, and every member reads something.
    fn is_settled(&self, members: &[Running]) -> bool {
        let owners = self.board().cells.map(|cell| cell.owner.map(|(owner, _)| owner));
        let works = |member: &Running| owners.contains(&Some(member.number));
        owners.iter().all(Option::is_some) && members.iter().all(works)
    }

    fn ends(&self) -> [i64; TOPIC_PARTITIONS] {
        self.board().cells.map(|cell| cell.end)
    }
}

/// Ends the producer, after a panic too: the runtime would wait for it.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A member of the group, at work.
struct Running {
    number: usize,
    task: JoinHandle<()>,
}

/// A member of the group.
struct Member {
    number: usize,
    open: OpenSource,
    owned: Vec<TopicPartition>,
    shared: Shared,
}

impl Member {
    async fn start(source: &KafkaSource, shared: &Shared, number: usize) -> Running {
        let context = SourceContext::new("stress", 0, 32 << 20);
        let open = source.open(context).await.expect("the broker answers");
        let mut member = Self { number, open, owned: Vec::new(), shared: shared.clone() };
        let task = tokio::spawn(async move {
            loop {
                member.serve().await;
            }
        });
        Running { number, task }
    }

    async fn serve(&mut self) {
        match self.open.reader.next().await {
            Ok(Event::Batch(batch)) => self.shared.read(&batch.coverage, batch.num_rows()),
            Ok(Event::Covered(coverage)) => self.shared.read(&coverage, 0),
            Ok(Event::Assigned(assignment)) => {
                let mut board = self.shared.board();
                board.outcome.rebalances += 1;
                let mut starts = Vec::new();
                for one in assignment.partitions {
                    let cell = &mut board.cells[one.partition.partition as usize];
                    cell.owner = Some((self.number, Instant::now()));
                    self.owned.push(one.partition.clone());
                    let (partition, offset) = (one.partition, cell.position);
                    starts.push(Start { partition, offset, end: None });
                }
                drop(board);
                let _taken_away_meanwhile = assignment.reply.send(starts);
            }
            Ok(Event::Revoking(revocation)) => {
                self.shared.board().outcome.rebalances += 1;
                let (committer, offsets) = (self.open.committer.clone(), self.offsets());
                if let Err(error) = committer.commit(&offsets).await {
                    // A mirror only.
                    tracing::debug!(%error, "not committed");
                }
                self.let_go(&revocation.partitions);
                let _late = revocation.done.send(());
            }
            Ok(Event::Idle | Event::End) => {}
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }

    /// What the runtime commits before it gives something up.
    fn offsets(&self) -> CommittedOffsets {
        let board = self.shared.board();
        let committed = |one: &TopicPartition| {
            let offset = board.cells[one.partition as usize].position;
            (one.clone(), CommittedOffset { offset, hint: String::new() })
        };
        self.owned.iter().map(committed).collect()
    }

    fn let_go(&mut self, partitions: &[TopicPartition]) {
        let mut board = self.shared.board();
        for partition in partitions {
            let cell = &mut board.cells[partition.partition as usize];
            // Another may have got it already, where it was lost.
            cell.owner = cell.owner.filter(|(owner, _)| *owner != self.number);
        }
        self.owned.retain(|one| !partitions.contains(one));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let owned = std::mem::take(&mut self.owned);
        self.let_go(&owned);
    }
}

/// Lets members come and go `rounds` times on a topic of its own.
///
/// # Panics
/// When a partition is not read again within a minute.
pub(crate) async fn rebalances(
    config: &ClientConfig,
    topic: &str,
    rounds: usize,
    seed: u64,
) -> Outcome {
    let _set_before = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_thread_names(true)
        .with_writer(std::io::stderr)
        .try_init();
    let shared = Shared::default();
    let stop = Stop::default();
    let producer = produce(config, topic, shared.clone(), Arc::clone(&stop.0));
    let watch = {
        let shared = shared.clone();
        tokio::spawn(async move {
            loop {
                shared.look();
                sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let source = KafkaSource::builder(config.get("bootstrap.servers").unwrap_or_default(), topic)
        .topics([topic])
        .format(Format::Raw)
        .coordinates([])
        .session_timeout(Duration::from_secs(6))
        .build()
        .expect("a valid source");
    let mut random = StdRng::seed_from_u64(seed);
    let mut members = vec![Member::start(&source, &shared, 0).await];
    settle(&shared, &members).await;
    for round in 0..rounds {
        let comes = members.len() == 1 || members.len() < MEMBERS && random.random_bool(0.5);
        if comes {
            members.push(Member::start(&source, &shared, round + 1).await);
        } else {
            let member = members.swap_remove(random.random_range(0..members.len()));
            member.task.abort();
            // Leaving the group takes a moment; what ends it is an abortion.
            let _aborted = member.task.await;
        }
        assert!(members.iter().all(|member| !member.task.is_finished()), "a member has failed");
        if random.random_bool(0.25) {
            // The next change comes while this one is under way.
            sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        } else {
            settle(&shared, &members).await;
            catch_up(&shared).await;
        }
        shared.board().outcome.rounds = round + 1;
        shared.board().outcome.moves =
            source.fairness().report().partitions.iter().map(|one| one.moves).sum();
        if (round + 1) % 20 == 0 {
            eprintln!("{}", shared.board().outcome);
        }
    }
    drop(stop);
    producer.await.expect("the producer does not panic");
    settle(&shared, &members).await;
    catch_up(&shared).await;
    watch.abort();
    members.iter().for_each(|member| member.task.abort());
    shared.board().outcome.clone()
}

/// Waits until the group has shared out everything.
async fn settle(shared: &Shared, members: &[Running]) {
    let began = Instant::now();
    while !shared.is_settled(members) {
        let cells = shared.board().cells;
        assert!(began.elapsed() < PATIENCE, "the group does not settle: {cells:#?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until what is there now was read.
async fn catch_up(shared: &Shared) {
    let (ends, began) = (shared.ends(), Instant::now());
    while !shared.has_reached(&ends) {
        let cells = shared.board().cells;
        assert!(began.elapsed() < PATIENCE, "nobody reads up to {ends:?}: {cells:#?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn produce(
    config: &ClientConfig,
    topic: &str,
    shared: Shared,
    stop: Arc<AtomicBool>,
) -> JoinHandle<()> {
    let producer: BaseProducer = config.create().expect("a producer");
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || {
        let (start, large) = (Instant::now(), "x".repeat(BUSY_SIZE));
        while !stop.load(Relaxed) {
            let began = Instant::now();
            let first = (start.elapsed().as_secs() / BUSY_TIME.as_secs()) as usize * BUSY;
            let mut bursts = [(BURST, "one of many"); TOPIC_PARTITIONS];
            for busy in first..first + BUSY {
                bursts[busy % TOPIC_PARTITIONS] = (BUSY_BURST, large.as_str());
            }
            for (partition, (burst, payload)) in bursts.iter().enumerate() {
                for _ in 0..*burst {
                    let record = BaseRecord::<(), str>::to(&topic).partition(partition as i32);
                    let sent = producer.send(record.payload(payload));
                    sent.map_err(|(error, _)| error).expect("room in the producer");
                }
            }
            producer.flush(PATIENCE).expect("the broker acknowledges");
            for (cell, (burst, _)) in shared.board().cells.iter_mut().zip(bursts) {
                cell.end += burst as i64;
            }
            std::thread::sleep(Duration::from_millis(10).saturating_sub(began.elapsed()));
        }
    })
}
