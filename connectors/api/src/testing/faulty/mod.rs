//! Seeded wrappers that make the calls of a source or a sink fail.
//!
//! A call ends in one of four ways: it happened or not, and it reports success
//! or an error. *It happened, but the caller saw an error* is the one that
//! finds bugs in commit code. *It did not happen, but reports success* breaks
//! nearly every contract and is injected only into deletions, and only after
//! [`Faults::forget_deletes`].
//!
//! For [`SourceReader::next`](crate::SourceReader::next), which loses no event,
//! "happened" means that the event is delivered by the call after the error.
//!
//! All errors are retryable and carry the seed. Every kind of call has its own
//! stream of random numbers, so what one call meets does not depend on how
//! tasks interleave, and a seed that fails can be run again.

mod sink;
mod source;

pub use sink::{FaultyCommitter, FaultySink};
pub use source::{FaultyOffsetCommitter, FaultySource};

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::{Error, ErrorKind, Result};

/// The variable that sets the seed of [`Faults::from_env`].
pub const SEED_VARIABLE: &str = "TIDELOCK_SEED";

/// A seed, and how often calls fail. Clones share everything.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    seed: u64,
    rate: f64,
    max_delay: Duration,
    forget_deletes: bool,
    stopped: bool,
    injected: u64,
    streams: BTreeMap<&'static str, StdRng>,
}

/// How one call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It happens and says so.
    Fine,
    /// It does not happen, and reports an error.
    Before,
    /// It happens, and reports an error.
    After,
    /// It does not happen, and reports success.
    Forgotten,
}

impl Faults {
    /// One call in five fails. Prints the seed, so that a failing test shows
    /// it.
    pub fn seeded(seed: u64) -> Self {
        eprintln!("faults: seed {seed} (again with {SEED_VARIABLE}={seed})");
        Self(Arc::new(Mutex::new(State {
            seed,
            rate: 0.2,
            max_delay: Duration::ZERO,
            forget_deletes: false,
            stopped: false,
            injected: 0,
            streams: BTreeMap::new(),
        })))
    }

    /// Takes the seed from the environment, else a new one at random.
    pub fn from_env() -> Self {
        let given = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
        Self::seeded(given.unwrap_or_else(rand::random))
    }

    fn set(self, set: impl FnOnce(&mut State)) -> Self {
        set(&mut super::lock(&self.0));
        self
    }

    /// Sets which part of the calls fails, from 0 to 1.
    #[must_use]
    pub fn rate(self, rate: f64) -> Self {
        self.set(|state| state.rate = rate.clamp(0.0, 1.0))
    }

    /// Every call is late by up to this time.
    #[must_use]
    pub fn delays(self, up_to: Duration) -> Self {
        self.set(|state| state.max_delay = up_to)
    }

    /// Lets deletions claim success without having happened.
    #[must_use]
    pub fn forget_deletes(self) -> Self {
        self.set(|state| state.forget_deletes = true)
    }

    /// From now on every call happens and says so.
    pub fn stop(&self) {
        super::lock(&self.0).stopped = true;
    }

    /// Faults come again after [`stop`](Self::stop).
    pub fn resume(&self) {
        super::lock(&self.0).stopped = false;
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        super::lock(&self.0).seed
    }

    /// How many faults there were.
    pub fn injected(&self) -> u64 {
        super::lock(&self.0).injected
    }

    /// Decides over the next call of this kind, and how late it is.
    fn draw(&self, call: &'static str, deletion: bool) -> (Fate, Duration) {
        let mut state = super::lock(&self.0);
        if state.stopped {
            return (Fate::Fine, Duration::ZERO);
        }
        let (seed, rate) = (state.seed, state.rate);
        let (max_delay, forget) = (state.max_delay, deletion && state.forget_deletes);
        let rng = state.streams.entry(call).or_insert_with(|| {
            let mut hasher = DefaultHasher::new();
            (seed, call).hash(&mut hasher);
            StdRng::seed_from_u64(hasher.finish())
        });
        // The same number of draws every time keeps the streams aligned when a
        // test changes the rate in mid-run.
        let (hit, which) = (rng.random_bool(rate), rng.random_range(0..6_u8));
        let delay = max_delay.mul_f64(rng.random::<f64>());
        if !hit {
            return (Fate::Fine, delay);
        }
        state.injected += 1;
        let fate = match which {
            0 | 1 if forget => Fate::Forgotten,
            0 | 2 | 4 => Fate::Before,
            _ => Fate::After,
        };
        (fate, delay)
    }

    fn error(&self, call: &'static str, happened: bool) -> Error {
        Error::new(ErrorKind::Unavailable, "injected fault")
            .with("call", call)
            .with("happened", happened)
            .with("seed", self.seed())
    }

    /// Runs `doing` as fate has it.
    async fn around<T>(
        &self,
        call: &'static str,
        doing: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (fate, delay) = self.draw(call, false);
        self.act(call, fate, delay, doing).await
    }

    /// The same for a deletion.
    async fn around_delete(
        &self,
        call: &'static str,
        doing: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        match self.draw(call, true) {
            (Fate::Forgotten, _) => Ok(()),
            (fate, delay) => self.act(call, fate, delay, doing).await,
        }
    }

    async fn act<T>(
        &self,
        call: &'static str,
        fate: Fate,
        delay: Duration,
        doing: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if fate == Fate::Before {
            return Err(self.error(call, false));
        }
        let done = doing.await?;
        if fate == Fate::After {
            return Err(self.error(call, true));
        }
        Ok(done)
    }
}
