//! A crowd: many members in few processes that write one record on a store far
//! away, while one of the processes leaves and comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_services::{Direction, Toxic};

use crate::crew::Crew;
use crate::judge::{Judgement, judge};
use crate::metrics::{Buckets, label};
use crate::producer::Producer;
use crate::rig::{Plan, Rig};
use crate::worker::Worker;

const PROCESSES: usize = 3;
const WORKERS: u32 = 8;
/// One for each worker.
const PARTITIONS: i32 = 24;
/// How much later every request reaches the store.
const DELAY: Duration = Duration::from_millis(50);

/// How often the members are asked what they have read.
const LOOK: Duration = Duration::from_millis(250);
/// Members tell once a second what they have read: a partition of which nothing
/// was heard for longer is not being read.
const SILENCE: Duration = Duration::from_secs(3);
/// A rebalance is over when nothing has moved or been silent for so long.
const SETTLED: Duration = Duration::from_secs(4);
/// How long a rebalance is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

impl Plan {
    /// 24 members in 3 processes.
    pub fn crowd(seed: u64) -> Self {
        Self {
            workers: WORKERS,
            partitions: PARTITIONS,
            session_timeout: Duration::from_secs(10),
            memory: "256MiB",
            ..Self::new(seed)
        }
    }
}

/// What made the group share out anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Everybody started.
    Started,
    /// A process was asked to stop.
    Left,
    /// A process was started.
    Joined,
}

/// One rebalance.
#[derive(Debug, Clone, Serialize)]
pub struct Rebalance {
    /// Why.
    pub cause: Cause,
    /// From the process' start, or its being asked to stop, until every
    /// partition is read by whom it belongs to, in seconds. Seen about a second
    /// late.
    pub took_s: f64,
}

/// How long changes waited until they were in the record, over all processes.
#[derive(Debug, Clone, Serialize)]
pub struct Swaps {
    /// How many there were.
    pub changes: u64,
    /// Half of them took at most so many seconds.
    pub p50_s: f64,
    /// All but one in a hundred.
    pub p99_s: f64,
    /// Writes that came too late, because another process was faster.
    pub conflicts: u64,
}

/// What a crowd was like, and what came of it.
#[derive(Debug, Serialize)]
pub struct Crowd {
    /// The seed.
    pub seed: u64,
    /// One after the other; the first is the start.
    pub rebalances: Vec<Rebalance>,
    /// The changes of the record.
    pub swaps: Swaps,
    /// Checkpoints refused, because somebody else had claimed.
    pub refused: u64,
    /// Lives that ended and began again in the same process.
    pub restarts: u64,
    /// How long everything took to be in files in the end, in seconds.
    pub calm_s: f64,
    /// The largest resident memory of a process.
    pub peak_mib: u64,
    /// Whether `verify` agreed in the end.
    pub verified: bool,
    /// What the files say.
    pub judgement: Judgement,
}

impl Crowd {
    /// The longest rebalance but the start, in seconds.
    pub fn longest_rebalance_s(&self) -> f64 {
        let moved = self.rebalances.iter().filter(|it| it.cause != Cause::Started);
        moved.map(|it| it.took_s).fold(0.0, f64::max)
    }

    /// Nothing lost, nothing twice, and `verify` agrees.
    pub fn is_clean(&self) -> bool {
        self.verified && self.judgement.is_clean()
    }
}

/// Lets 24 members work for about `length` while `rate` messages a second flow;
/// a process leaves and comes back meanwhile, as often as there is time. The rig
/// must be of [`Plan::crowd`] and have a Toxiproxy.
///
/// # Errors
/// When a worker ends by itself or partitions are not read again, or a service
/// fails.
pub fn crowd(rig: &Rig, length: Duration, rate: u32) -> Result<Crowd> {
    let Some(toxics) = &rig.toxics else {
        return Err(Error::new(ErrorKind::Config, "a crowd needs toxiproxy"));
    };
    let latency = Toxic::Latency { delay: DELAY, jitter: Duration::ZERO };
    let latency = toxics.add(Direction::Upstream, latency, 1.0)?;
    let producer = Producer::start(rig, rate)?;
    let mut scene = Scene { crew: Crew::new(rig, PROCESSES), watch: Watch::default() };
    let mut rebalances = vec![scene.start()?];
    let begun = Instant::now();
    let mut place = 0;
    loop {
        rebalances.push(scene.leave(place)?);
        rebalances.push(scene.join(place)?);
        place = (place + 1) % PROCESSES;
        if begun.elapsed() >= length {
            break;
        }
    }
    let produced = producer.stop()?;
    let Scene { mut crew, mut watch } = scene;
    watch.look(crew.members());
    let calm_s = crew.calm()?.as_secs_f64();
    latency.remove()?;
    let verified = rig.verify()?.status.success();
    let figures = crew.figures;
    Ok(Crowd {
        seed: rig.plan.seed,
        rebalances,
        swaps: watch.swaps(),
        refused: figures.refused,
        restarts: figures.restarts,
        calm_s,
        peak_mib: figures.peak_mib,
        verified,
        judgement: judge(rig, &produced)?,
    })
}

struct Scene<'a> {
    crew: Crew<'a>,
    watch: Watch,
}

impl Scene<'_> {
    fn start(&mut self) -> Result<Rebalance> {
        self.settle(Cause::Started, None)
    }

    /// A process is asked to stop.
    fn leave(&mut self, place: usize) -> Result<Rebalance> {
        let mut leaving = self.crew.release(place);
        leaving.iter_mut().for_each(Worker::ask_to_stop);
        self.settle(Cause::Left, leaving)
    }

    /// Another one comes in its place.
    fn join(&mut self, place: usize) -> Result<Rebalance> {
        self.crew.fill(place);
        self.settle(Cause::Joined, None)
    }

    /// Watches until every partition is read by whom it belongs to.
    fn settle(&mut self, cause: Cause, mut leaving: Option<Worker>) -> Result<Rebalance> {
        let begun = Instant::now();
        let mut over = begun;
        loop {
            self.crew.tend()?;
            let moved = self.watch.look(self.crew.members().chain(&mut leaving));
            over = moved.unwrap_or(over);
            if let Some(worker) = &mut leaving
                && let Some(status) = worker.ended()?
            {
                if !status.success() {
                    return Err(worker.unexpected(status));
                }
                leaving.take().into_iter().for_each(|worker| self.crew.note(worker));
            }
            let members: Vec<String> =
                self.crew.members().map(|worker| worker.name().to_owned()).collect();
            let read = leaving.is_none() && self.watch.all_read(&members);
            if read && over.elapsed() >= SETTLED {
                return Ok(Rebalance { cause, took_s: (over - begun).as_secs_f64() });
            }
            if begun.elapsed() > PATIENCE {
                let text = format!("{cause:?}, and not all is read after {PATIENCE:?}");
                let words = format!("{:?}\n{}", self.watch.places, self.crew.last_words());
                return Err(Error::new(ErrorKind::Other, text).source(words));
            }
            crate::pause(LOOK);
        }
    }
}

/// Who reads what, as far as the members tell.
#[derive(Debug, Default)]
struct Watch {
    /// How many records each life has read of each partition.
    served: BTreeMap<(String, i32), u64>,
    /// Per partition: by whom it was read last, and when.
    places: BTreeMap<i32, (String, Instant)>,
    /// Of each life, as of the last time that it told.
    swaps: BTreeMap<String, (Buckets, u64)>,
}

impl Watch {
    /// Asks everybody. Returns when something was last read after a silence, or
    /// by another one than before.
    fn look<'w>(&mut self, members: impl Iterator<Item = &'w mut Worker>) -> Option<Instant> {
        let mut moved = None;
        for worker in members {
            let metrics = worker.metrics();
            let now = Instant::now();
            let name = worker.name();
            for (labels, records) in metrics.samples("tidelock_source_records_total") {
                let Some(Ok(partition)) = label(labels, "partition").map(str::parse) else {
                    continue;
                };
                let before = self.served.entry((name.to_owned(), partition)).or_default();
                if *before < records as u64 {
                    *before = records as u64;
                    moved = self.read(partition, name, now).or(moved);
                }
            }
            let swaps = metrics.histogram("tidelock_swap_seconds");
            if swaps.count() > 0 {
                let conflicts = metrics.samples("tidelock_swap_conflicts_total");
                let conflicts = conflicts.map(|(_, count)| count as u64).sum();
                self.swaps.insert(name.to_owned(), (swaps, conflicts));
            }
        }
        moved
    }

    /// A partition was read: now, if that is news.
    fn read(&mut self, partition: i32, by: &str, now: Instant) -> Option<Instant> {
        let before = self.places.insert(partition, (by.to_owned(), now));
        let known = before.is_some_and(|(name, last)| name == by && now - last <= SILENCE);
        (!known).then_some(now)
    }

    /// Whether every partition is being read, by one of the members, and each
    /// member has its share.
    fn all_read(&self, members: &[String]) -> bool {
        let read =
            |(name, last): &(String, Instant)| last.elapsed() <= SILENCE && members.contains(name);
        let share = PARTITIONS as usize / PROCESSES;
        self.places.len() == PARTITIONS as usize
            && self.places.values().all(read)
            && members.iter().all(|member| {
                self.places.values().filter(|(name, _)| name == member).count() >= share
            })
    }

    fn swaps(&self) -> Swaps {
        let mut all = Buckets::default();
        self.swaps.values().for_each(|(swaps, _)| all.add(swaps));
        Swaps {
            changes: all.count(),
            p50_s: all.quantile(0.5),
            p99_s: all.quantile(0.99),
            conflicts: self.swaps.values().map(|(_, conflicts)| conflicts).sum(),
        }
    }
}
