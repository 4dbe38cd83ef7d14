//! Single misfortunes, many times over: revocations while uploads crawl, and
//! members that sleep longer than the group waits.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_services::{Direction, Toxic};

use crate::crew::Crew;
use crate::judge::{Judgement, judge};
use crate::producer::Producer;
use crate::rig::{Rig, SESSION_TIMEOUT};

/// How long until something is published again.
const RECOVERY: Duration = Duration::from_secs(60);

/// Which misfortune.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Misfortune {
    /// Partitions are revoked while an upload takes longer than
    /// `max_poll_interval`.
    SlowRevoke,
    /// A member is stopped for longer than the session time-out.
    LongStop,
}

/// How it went.
#[derive(Debug, Serialize)]
pub struct Fate {
    /// What happened.
    pub misfortune: Misfortune,
    /// How often.
    pub rounds: u32,
    /// Rounds after which nothing was published for a minute: the client
    /// library stalled.
    pub stalls: u32,
    /// Last checkpoints that were given up at the deadline.
    pub abandoned: u64,
    /// Checkpoints refused, because somebody else had claimed.
    pub refused: u64,
    /// Lives that ended and began again in the same process.
    pub restarts: u64,
    /// The longest wait for something to be published again, in seconds.
    pub longest_s: f64,
    /// Whether `verify` agreed in the end.
    pub verified: bool,
    /// What the files say.
    pub judgement: Judgement,
}

/// Lets it happen `rounds` times while data flows.
///
/// # Errors
/// When a worker ends by itself or does not come to rest, or a service fails.
pub fn suffer(rig: &Rig, misfortune: Misfortune, rounds: u32, rate: u32) -> Result<Fate> {
    let producer = Producer::start(rig, rate)?;
    let mut crew = Crew::new(rig, 2);
    let mut random = StdRng::seed_from_u64(rig.plan.seed ^ 0x5ce0);
    let (mut stalls, mut longest) = (0, Duration::ZERO);
    progress(&mut crew)?;
    for _ in 0..rounds {
        match misfortune {
            Misfortune::SlowRevoke => slow_revoke(rig, &mut crew)?,
            Misfortune::LongStop => long_stop(&mut crew, &mut random)?,
        }
        match progress(&mut crew)? {
            Some(took) => longest = longest.max(took),
            None => stalls += 1,
        }
    }
    let produced = producer.stop()?;
    crew.calm()?;
    let verified = rig.verify()?.status.success();
    let figures = crew.figures;
    Ok(Fate {
        misfortune,
        rounds,
        stalls,
        abandoned: figures.abandoned,
        refused: figures.refused,
        restarts: figures.restarts,
        longest_s: longest.as_secs_f64(),
        verified,
        judgement: judge(rig, &produced)?,
    })
}

/// Uploads crawl; another member joins, and partitions are revoked.
fn slow_revoke(rig: &Rig, crew: &mut Crew<'_>) -> Result<()> {
    let Some(toxics) = &rig.toxics else {
        return Err(Error::new(ErrorKind::Config, "a slow revoke needs toxiproxy"));
    };
    let crawl = Toxic::Bandwidth { kilobytes_per_second: 1 };
    let crawl = toxics.add(Direction::Upstream, crawl, 1.0)?;
    // A checkpoint is on its way when the other one comes.
    wait(crew, Duration::from_millis(1_500))?;
    crew.invite()?;
    wait(crew, rig.plan.max_poll_interval + Duration::from_secs(3))?;
    crawl.remove()?;
    // Its partitions come back, and that takes a last checkpoint of its own.
    progress(crew)?;
    crew.dismiss(true)
}

/// A member sleeps, and others take over.
fn long_stop(crew: &mut Crew<'_>, random: &mut StdRng) -> Result<()> {
    let time = SESSION_TIMEOUT + Duration::from_millis(random.random_range(500..3_000));
    let place = random.random_range(0..crew.len());
    if let Some(worker) = crew.member(place) {
        worker.stop_for(time);
    }
    wait(crew, time + Duration::from_millis(100))
}

fn wait(crew: &mut Crew<'_>, time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        crew.tend()?;
        crate::pause(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits until something is published; `None` when nothing is.
fn progress(crew: &mut Crew<'_>) -> Result<Option<Duration>> {
    let begun = Instant::now();
    let before = crew.published();
    while begun.elapsed() < RECOVERY {
        crew.tend()?;
        if crew.published() > before {
            return Ok(Some(begun.elapsed()));
        }
        crate::pause(Duration::from_millis(50));
    }
    Ok(None)
}
