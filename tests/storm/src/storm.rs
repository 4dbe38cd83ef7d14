//! The kill storm: workers are killed, stopped and made to rebalance while data
//! flows, each kill aimed at the phase that was hit least.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tidelock_connector::{Error, ErrorKind, Result};

use crate::crew::Crew;
use crate::judge::{Judgement, judge};
use crate::producer::Producer;
use crate::proxy::{Fault, FaultProxy, Rates};
use crate::rig::{Rig, SESSION_TIMEOUT};
use crate::verify::{self, Verdicts};
use crate::worker::Phase;

/// Members that are always wanted.
const MEMBERS: usize = 3;
/// After so long a blow falls whether or not anything was published.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a phase is waited for.
const AIM: Duration = Duration::from_secs(4);

/// How long and how hard.
#[derive(Debug, Clone)]
pub struct Weather {
    /// How many processes are killed.
    pub kills: u32,
    /// At most so long, whatever was killed by then.
    pub limit: Duration,
    /// Messages a second.
    pub rate: u32,
}

/// What a storm did, and what came of it.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Processes killed, by the phase that the kill hit.
    pub kills: BTreeMap<Phase, u32>,
    /// Processes stopped for longer than the session time-out.
    pub stops: u32,
    /// Extra members that came and went.
    pub rebalances: u32,
    /// Checkpoints refused, because somebody else had claimed.
    pub refused: u64,
    /// Lives of workers that ended and began again in the same process.
    pub restarts: u64,
    /// Faults between worker and store.
    pub faults: BTreeMap<String, u64>,
    /// What `verify` said beside it.
    pub verdicts: Verdicts,
    /// How long the storm took, in seconds.
    pub storm_s: f64,
    /// How long everything took to be in files after it, in seconds.
    pub calm_s: f64,
    /// The largest resident memory of a worker.
    pub peak_mib: u64,
    /// What the files say.
    pub judgement: Judgement,
}

impl Report {
    /// How many processes were killed.
    pub fn killed(&self) -> u32 {
        self.kills.values().sum()
    }

    /// The share of the phase that was hit least.
    pub fn smallest_share(&self) -> f64 {
        let least = Phase::ALL.map(|phase| self.kills.get(&phase).copied().unwrap_or(0));
        f64::from(least.into_iter().min().unwrap_or(0)) / f64::from(self.killed().max(1))
    }

    /// Nothing lost, nothing twice, and `verify` never said otherwise.
    pub fn is_clean(&self) -> bool {
        self.judgement.is_clean() && self.verdicts.no.is_empty() && self.verdicts.yes > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, {:.0} s of storm, {:.0} s of calm",
            self.seed, self.storm_s, self.calm_s
        )?;
        write!(f, "{} kills:", self.killed())?;
        for phase in Phase::ALL {
            let kills = self.kills.get(&phase).copied().unwrap_or(0);
            let share = 100.0 * f64::from(kills) / f64::from(self.killed().max(1));
            write!(f, "  {phase:?} {kills} ({share:.0} %)")?;
        }
        writeln!(f)?;
        let Self { stops, rebalances, refused, restarts, peak_mib, .. } = self;
        writeln!(
            f,
            "{stops} stops, {rebalances} extra members, {refused} checkpoints refused, {restarts} \
             lives started over, peak {peak_mib} MiB"
        )?;
        if !self.faults.is_empty() {
            writeln!(f, "requests: {:?}", self.faults)?;
        }
        let v = &self.verdicts;
        writeln!(
            f,
            "verify: {} yes, {} no, {} undecided, longest {:.1} s",
            v.yes,
            v.no.len(),
            v.undecided,
            v.longest_s
        )?;
        for said in v.no.iter().take(2) {
            writeln!(f, "{said}")?;
        }
        let j = &self.judgement;
        writeln!(
            f,
            "{} messages, {} aborted, {} rows in {} files: {} lost, {} duplicates, {} foreign, {} \
             contradictions",
            j.messages,
            j.aborted,
            j.rows,
            j.files,
            j.lost,
            j.duplicates,
            j.foreign,
            j.contradictions
        )?;
        j.examples.iter().take(10).try_for_each(|example| writeln!(f, "  {example}"))
    }
}

/// Lets a storm rage, waits for the calm, and judges.
///
/// # Errors
/// When a worker ends by itself or does not come to rest, or a service fails.
/// Fencing switched off makes workers fail: then they are only started again.
pub fn storm(rig: &Rig, weather: &Weather) -> Result<Report> {
    let producer = Producer::start(rig, weather.rate)?;
    let mut storm = Storm::new(rig);
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let verdicts = std::thread::scope(|scope| {
        let watcher = (!rig.plan.unfenced).then(|| {
            let stop = Arc::clone(&stop);
            scope.spawn(move || {
                crate::pause(Duration::from_secs(5));
                verify::watch(rig, &stop)
            })
        });
        let raged = storm.rage(weather);
        stop.store(true, Ordering::Relaxed);
        let verdicts = match watcher.map(std::thread::ScopedJoinHandle::join) {
            None => Ok(Verdicts::default()),
            Some(Ok(verdicts)) => verdicts,
            Some(Err(_)) => Err(Error::new(ErrorKind::Panic, "the verifying thread panicked")),
        };
        raged.and(verdicts)
    })?;
    storm.report.verdicts = verdicts;
    storm.report.storm_s = begun.elapsed().as_secs_f64();
    let produced = producer.stop()?;
    storm.calm()?;
    if !rig.plan.unfenced {
        let output = rig.verify()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => storm.report.verdicts.yes += 1,
            _ => storm.report.verdicts.no.push(said),
        }
    }
    storm.report.faults = counts(rig);
    storm.report.judgement = judge(rig, &produced)?;
    Ok(storm.report)
}

fn counts(rig: &Rig) -> BTreeMap<String, u64> {
    let counts = rig.faults.as_ref().map(FaultProxy::counts).unwrap_or_default();
    counts.into_iter().map(|(fault, count)| (format!("{fault:?}"), count)).collect()
}

struct Storm<'a> {
    crew: Crew<'a>,
    random: StdRng,
    unfenced: bool,
    /// When the extra member leaves.
    leaves_at: Instant,
    report: Report,
}

impl<'a> Storm<'a> {
    fn new(rig: &'a Rig) -> Self {
        Self {
            crew: Crew::new(rig, MEMBERS),
            random: StdRng::seed_from_u64(rig.plan.seed ^ 0x5707),
            unfenced: rig.plan.unfenced,
            leaves_at: Instant::now(),
            report: Report { seed: rig.plan.seed, ..Report::default() },
        }
    }

    fn rage(&mut self, weather: &Weather) -> Result<()> {
        let end = Instant::now() + weather.limit;
        let mut next = Instant::now() + Duration::from_secs(3);
        let mut seen = 0;
        while self.report.killed() < weather.kills && Instant::now() < end {
            self.crew.tend()?;
            if Instant::now() >= self.leaves_at {
                let well = self.random.random_bool(0.7);
                self.crew.dismiss(well)?;
            }
            // A blow at a group that has not got up proves nothing: something
            // has to be published between two of them.
            let published = self.crew.published();
            let flows = published > seen;
            if Instant::now() >= next && flows || Instant::now() >= next + PATIENCE {
                self.strike()?;
                next = Instant::now() + self.millis(200..1_200);
                seen = self.crew.published();
            }
            crate::pause(Duration::from_millis(20));
        }
        Ok(())
    }

    /// One blow: mostly a kill, sometimes a stop or another member.
    fn strike(&mut self) -> Result<()> {
        // Zombies are what fencing is for: the control has more of them.
        let stops = if self.unfenced { 0.5 } else { 0.2 };
        if self.random.random_bool(stops) {
            self.stop()?;
        } else if self.random.random_bool(0.15) {
            if self.crew.invite()? {
                self.report.rebalances += 1;
                self.leaves_at = Instant::now() + self.millis(3_000..8_000);
            }
        } else {
            self.kill()?;
        }
        Ok(())
    }

    /// Stops a random worker for longer than the group waits; half of the time
    /// with files in its hands that others will write, too. The control has no
    /// other zombies: they are what it is for.
    fn stop(&mut self) -> Result<()> {
        let time = SESSION_TIMEOUT + self.millis(300..2_500);
        let place = self.random.random_range(0..MEMBERS);
        let laden = self.random.random_bool(0.5) || self.unfenced;
        if let Some(worker) = self.crew.member(place)
            && worker.stopped_until.is_none()
        {
            match laden {
                true => worker.stop_in(Phase::Prepare, AIM, time)?,
                false => worker.stop_for(time),
            }
            self.report.stops += 1;
        }
        Ok(())
    }

    /// Kills a random worker that is in business, in the phase that was hit
    /// least so far.
    fn kill(&mut self) -> Result<()> {
        let kills = &self.report.kills;
        let wanted = Phase::ALL
            .into_iter()
            .min_by_key(|phase| kills.get(phase).copied().unwrap_or(0))
            .unwrap_or(Phase::Read);
        let first = self.random.random_range(0..MEMBERS);
        let after = Duration::from_micros(self.random.random_range(0..3_000));
        for place in (0..MEMBERS).map(|step| (first + step) % MEMBERS) {
            if let Some(worker) = self.crew.member(place)
                && worker.stopped_until.is_none()
                && worker.published() > 0
            {
                let phase = worker.kill_in(wanted, AIM, after)?;
                *self.report.kills.entry(phase).or_default() += 1;
                let after = self.millis(0..1_000);
                self.crew.bury(place, after);
                return Ok(());
            }
        }
        Ok(())
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    /// Brings everybody to rest.
    fn calm(&mut self) -> Result<()> {
        self.report.calm_s = self.crew.calm()?.as_secs_f64();
        let figures = &self.crew.figures;
        self.report.refused = figures.refused;
        self.report.restarts = figures.restarts;
        self.report.peak_mib = figures.peak_mib;
        Ok(())
    }
}

/// Faults of every kind, so often that about every twelfth request has one.
pub fn faults() -> Rates {
    let mut rates = Rates::each(12);
    rates.0.insert(Fault::Delay, 25);
    rates
}
