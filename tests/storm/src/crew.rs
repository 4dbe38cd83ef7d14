//! The members of a group: kept running, watched, and brought to rest.

use std::fmt::Write;
use std::time::{Duration, Instant};

use tidelock_connector::{Error, ErrorKind, Result};

use crate::judge;
use crate::proxy::Rates;
use crate::rig::Rig;
use crate::worker::{Phase, Worker};

/// How long after a storm everything may take to be in files (L1).
const CALM: Duration = Duration::from_secs(300);
/// How long the control gets, which may never come to rest.
const UNFENCED: Duration = Duration::from_secs(30);
/// How long a member may take to stop when asked to.
const STOP: Duration = Duration::from_secs(120);
/// Longer than anything here lasts.
const FOREVER: Duration = Duration::from_secs(86_400);

/// What all members together had to say for themselves.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    /// Checkpoints refused, because somebody else had claimed.
    pub(crate) refused: u64,
    /// Lives that ended and began again in the same process.
    pub(crate) restarts: u64,
    /// Last checkpoints that were not done in time when partitions were revoked.
    pub(crate) abandoned: u64,
    /// Waits and retries that were told of.
    pub(crate) waits: u64,
    /// The largest resident memory.
    pub(crate) peak_mib: u64,
}

#[derive(Debug)]
struct Place {
    worker: Option<Worker>,
    /// When somebody is started here.
    start_at: Instant,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Crew<'a> {
    rig: &'a Rig,
    places: Vec<Place>,
    extra: Option<Worker>,
    lives: u32,
    /// Of those that are gone.
    pub(crate) figures: Figures,
}

impl<'a> Crew<'a> {
    /// So many places; [`tend`](Self::tend) fills them.
    pub(crate) fn new(rig: &'a Rig, members: usize) -> Self {
        let place = || Place { worker: None, start_at: Instant::now() };
        Self {
            rig,
            places: (0..members).map(|_| place()).collect(),
            extra: None,
            lives: 0,
            figures: Figures::default(),
        }
    }

    /// How many places there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Who is in a place.
    pub(crate) fn member(&mut self, place: usize) -> Option<&mut Worker> {
        self.places.get_mut(place)?.worker.as_mut()
    }

    /// Everybody, the extra member too.
    pub(crate) fn members(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.places.iter_mut().filter_map(|place| place.worker.as_mut()).chain(&mut self.extra)
    }

    /// How many sets were published by those who are here.
    pub(crate) fn published(&mut self) -> u32 {
        self.members().map(Worker::published).sum()
    }

    /// Starts who is due, wakes who has slept, and lets nobody end unnoticed.
    ///
    /// # Errors
    /// When a member has ended by itself, unless fencing is switched off: then
    /// it makes room for another one.
    pub(crate) fn tend(&mut self) -> Result<()> {
        let now = Instant::now();
        let unfenced = self.rig.plan.unfenced;
        for place in 0..self.places.len() {
            let Some(worker) = &mut self.places[place].worker else {
                if self.places[place].start_at <= now {
                    let worker = self.start(&format!("worker-{place}"))?;
                    self.places[place].worker = Some(worker);
                }
                continue;
            };
            if worker.stopped_until.is_some_and(|until| until <= now) {
                worker.resume();
            }
            match worker.ended()? {
                Some(status) if !unfenced => return Err(worker.unexpected(status)),
                Some(_) => self.bury(place, Duration::from_millis(200)),
                None => {}
            }
        }
        match &mut self.extra {
            Some(worker) if !unfenced => match worker.ended()? {
                Some(status) => Err(worker.unexpected(status)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn start(&mut self, name: &str) -> Result<Worker> {
        self.lives += 1;
        Worker::start(self.rig, &format!("{name}-{}", self.lives))
    }

    /// Takes a dead member away; another one comes after a while.
    pub(crate) fn bury(&mut self, place: usize, after: Duration) {
        if let Some(worker) = self.places[place].worker.take() {
            self.note(worker);
        }
        self.places[place].start_at = Instant::now() + after;
    }

    /// Hands a member over to somebody who sees to its end; the place stays empty
    /// until it is [filled](Self::fill) again.
    pub(crate) fn release(&mut self, place: usize) -> Option<Worker> {
        self.places[place].start_at = Instant::now() + FOREVER;
        self.places[place].worker.take()
    }

    /// An empty place is taken by the next [`tend`](Self::tend).
    pub(crate) fn fill(&mut self, place: usize) {
        self.places[place].start_at = Instant::now();
    }

    /// Another member joins, if there is none yet. Returns whether it did.
    pub(crate) fn invite(&mut self) -> Result<bool> {
        if self.extra.is_some() {
            return Ok(false);
        }
        self.extra = Some(self.start("extra")?);
        Ok(true)
    }

    /// The extra member leaves, well or badly.
    pub(crate) fn dismiss(&mut self, well: bool) -> Result<()> {
        let Some(mut worker) = self.extra.take() else { return Ok(()) };
        if well && !self.rig.plan.unfenced {
            worker.finish(STOP)?;
        } else {
            worker.kill_in(Phase::Read, Duration::ZERO, Duration::ZERO)?;
        }
        self.note(worker);
        Ok(())
    }

    /// Takes down what a member that is gone had to say.
    pub(crate) fn note(&mut self, mut worker: Worker) {
        let figures = &mut self.figures;
        figures.peak_mib = figures.peak_mib.max(worker.peak_mib());
        figures.refused += worker.said(&["the checkpoint was refused"]);
        figures.restarts += worker.said(&["starting over from the last checkpoint"]);
        figures.abandoned += worker.said(&["before a revocation took too long"]);
        figures.waits += worker.said(&["trying again", "could not be committed", "not reachable"]);
    }

    /// After the storm everything that was produced is in files (L1), and
    /// everybody stops when asked to. Returns how long the first took.
    ///
    /// # Errors
    /// When either takes too long.
    pub(crate) fn calm(&mut self) -> Result<Duration> {
        if let Some(faults) = &self.rig.faults {
            faults.set_rates(Rates::none());
        }
        let begun = Instant::now();
        let ends = judge::ends(self.rig)?;
        for place in &mut self.places {
            place.start_at = begun;
        }
        let committed = || self.rig.kafka.committed_offsets(&self.rig.topic, &self.rig.topic);
        let mut seen = committed()?;
        while seen != ends && !(self.rig.plan.unfenced && begun.elapsed() > UNFENCED) {
            self.tend()?;
            if begun.elapsed() > CALM {
                let text = format!("after {CALM:?} of calm {seen:?} of {ends:?} is committed");
                return Err(Error::new(ErrorKind::Other, text).source(self.last_words()));
            }
            crate::pause(Duration::from_millis(200));
            seen = committed()?;
        }
        let took = begun.elapsed();
        self.dismiss(true)?;
        for place in 0..self.places.len() {
            let Some(mut worker) = self.places[place].worker.take() else { continue };
            worker.resume();
            if self.rig.plan.unfenced {
                worker.kill_in(Phase::Read, Duration::ZERO, Duration::ZERO)?;
            } else {
                worker.finish(STOP)?;
            }
            self.note(worker);
        }
        Ok(took)
    }

    /// The last things that everybody said.
    pub(crate) fn last_words(&mut self) -> String {
        self.members().fold(String::new(), |mut text, worker| {
            let _ = write!(text, "\n{}", worker.last_words());
            text
        })
    }
}
