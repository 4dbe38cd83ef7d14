//! One run: processes, blows of fate, quiet, and the verdict.

use std::sync::Arc;
use std::time::Duration;

use tidelock::checkpoint::mutation::{self, Mutation};
use tidelock::checkpoint::record::PartitionState;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::invariants::Invariant;
use crate::log::tp;
use crate::plan::{Plan, Weather};
use crate::process::{Running, STOP_WITHIN};
use crate::stats::Stats;
use crate::watcher::Violation;
use crate::world::{Pid, State, World};

/// How long, in virtual time, it may take until everything has arrived after
/// the last fault (L1).
const QUIET_WITHIN: Duration = Duration::from_secs(180);
/// How often the end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What became of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What was run.
    pub plan: Plan,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// A hash of every step.
    pub hash: u64,
    /// What happened how often.
    pub stats: Stats,
    /// The steps, if they were asked for.
    pub trace: Vec<String>,
}

/// Runs a plan; `bug` is planted in the protocol's code meanwhile.
///
/// # Panics
/// When no runtime can be made.
pub fn run(plan: Plan, bug: Option<Mutation>, keep_trace: bool) -> Outcome {
    mutation::plant(bug);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing that could be missing");
    let world = runtime.block_on(async {
        let world = World::new(plan, keep_trace);
        let result = simulate(&world).await;
        if let Err(violation) = result {
            world.lock().violated(violation);
        }
        world
    });
    // Whatever still runs ends before the figures are taken.
    drop(runtime);
    mutation::plant(None);
    let mut state = world.lock();
    let mut stats = std::mem::take(&mut state.stats);
    stats.steps = state.trace.steps();
    Outcome {
        seed: state.plan.seed,
        plan: state.plan.clone(),
        violation: state.watcher.violation.take(),
        hash: state.trace.hash(),
        stats,
        trace: state.trace.lines(),
    }
}

type Checked = Result<(), Violation>;

async fn simulate(world: &Arc<World>) -> Checked {
    let slots: Vec<Slot> = (0..world.lock().plan.processes).map(Slot::new).collect();
    let mut supervisors = JoinSet::new();
    for slot in &slots {
        let slot = slot.clone();
        supervisors.spawn(slot.supervise(Arc::clone(world)));
    }
    let faults_for = world.lock().plan.faults_for;
    let until = Instant::now() + faults_for;
    while Instant::now() < until {
        let wait = {
            let mut state = world.lock();
            let (from, to) = state.plan.blow_every;
            state.dice.millis(from..=to)
        };
        sleep(wait).await;
        none_violated(world)?;
        world.change(State::write_rows);
        if !world.lock().plan.scripted {
            blow(world, &slots);
        }
    }
    world.change(|state| {
        state.weather = Weather::default();
        state.step("-", format_args!("faults stop"));
        state.write_rows();
    });
    everything_arrives(world).await?;
    world.lock().ending = true;
    for slot in &slots {
        slot.ask();
    }
    let all = async { while supervisors.join_next().await.is_some() {} };
    if timeout(STOP_WITHIN, all).await.is_err() {
        return Err(Violation::new(Invariant::L1, "a process does not stop"));
    }
    none_violated(world)?;
    world.lock().judge()
}

fn none_violated(world: &World) -> Checked {
    match &world.lock().watcher.violation {
        Some(violation) => Err(violation.clone()),
        None => Ok(()),
    }
}

/// L1.
async fn everything_arrives(world: &World) -> Checked {
    let until = Instant::now() + QUIET_WITHIN;
    loop {
        none_violated(world)?;
        let missing = world.lock().missing();
        match missing {
            None => return Ok(()),
            Some(what) if Instant::now() >= until => {
                return Err(Violation::new(Invariant::L1, what));
            }
            Some(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// One blow of fate.
fn blow(world: &Arc<World>, slots: &[Slot]) {
    let mut state = world.lock();
    let slot = state.dice.pick(slots).clone();
    let kind = state.dice.range(0..=99);
    let session = state.plan.session_timeout.as_millis() as u64;
    let short = state.dice.millis(20..=session);
    let long = state.dice.millis(session..=session * 3);
    drop(state);
    let Some(pid) = slot.pid() else { return };
    match kind {
        0..15 => world.kill(pid, "from outside"),
        15..25 => world.stop(pid, short),
        25..40 => world.stop(pid, long),
        40..60 => world.change(|state| {
            state.stats.rebalances += 1;
            state.step("-", format_args!("rebalance"));
            state.group.rebalance(&mut state.dice);
        }),
        60..80 => world.change(State::steal),
        80..87 => {
            world.change(|state| state.stats.graceful += 1);
            slot.ask();
        }
        _ => {}
    }
}

impl State {
    /// Producers go on, a few rows at a time, with holes between them.
    fn write_rows(&mut self) {
        if self.plan.scripted {
            self.log.append(0, 3, true);
            return;
        }
        for partition in self.log.numbers() {
            if self.dice.chance(600) {
                let rows = self.dice.range(1..=6);
                self.log.append(partition, rows, true);
            }
            if self.dice.chance(100) {
                let holes = self.dice.range(1..=3);
                self.log.append(partition, holes, false);
            }
        }
    }

    /// Gives a partition away over its owner's head.
    fn steal(&mut self) {
        let partitions: Vec<i32> = self.log.numbers().collect();
        let partition = *self.dice.pick(&partitions);
        let inside: Vec<_> = self.group.members.keys().copied().collect();
        let inside: Vec<_> = inside.into_iter().filter(|id| self.group.is_in(*id)).collect();
        if inside.is_empty() {
            return;
        }
        let to = *self.dice.pick(&inside);
        let told_at_once = self.dice.chance(300);
        let wait = if told_at_once { Duration::ZERO } else { self.dice.millis(50..=3_000) };
        if self.group.steal(partition, to, wait) {
            self.stats.stolen += 1;
            self.step("-", format_args!("{partition} is given to {to}"));
        }
    }

    /// What has not arrived yet.
    fn missing(&self) -> Option<String> {
        let record = &self.watcher.record;
        for partition in self.log.numbers() {
            let end = self.log.end(partition);
            let next = record.partition(&tp(partition)).and_then(PartitionState::next);
            if next != Some(end) {
                return Some(format!("partition {partition} stands at {next:?} of {end}"));
            }
        }
        let pending = record.pending.len();
        (pending > 0).then(|| format!("{pending} sets are still pending"))
    }
}

/// The process on a machine, and how to ask it to stop.
type Occupant = Option<(Pid, Option<oneshot::Sender<()>>)>;

/// A machine: one process after another runs on it.
#[derive(Debug, Clone)]
struct Slot {
    number: u32,
    now: Arc<std::sync::Mutex<Occupant>>,
}

impl Slot {
    fn new(number: usize) -> Self {
        Self { number: number as u32, now: Arc::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Occupant> {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn pid(&self) -> Option<Pid> {
        self.lock().as_ref().map(|(pid, _)| *pid)
    }

    /// Asks the process to stop.
    fn ask(&self) {
        if let Some((_, stop)) = self.lock().as_mut()
            && let Some(stop) = stop.take()
        {
            let _ = stop.send(());
        }
    }

    fn was_asked(&self) -> bool {
        self.lock().as_ref().is_none_or(|(_, stop)| stop.is_none())
    }

    /// Starts a process whenever there is none, until the end.
    async fn supervise(self, world: Arc<World>) {
        let mut lives = 0;
        while !world.lock().ending {
            // The pid tells the machine and how often it was started.
            let pid = Pid(lives * 10 + self.number);
            lives += 1;
            let Running { pid, stop, task } = match world.start(pid) {
                Ok(running) => running,
                Err(error) => {
                    let what = format!("{pid} does not start: {error}");
                    world.lock().violated(Violation::new(Invariant::E1, what));
                    return;
                }
            };
            *self.lock() = Some((pid, Some(stop)));
            let result = task.await;
            world.ended(pid, self.was_asked(), result);
            *self.lock() = None;
            let wait = world.lock().dice.millis(20..=1_000);
            sleep(wait).await;
        }
    }
}
