//! A producer that never stops, writes in transactions and aborts some.
//!
//! Every message has a number of its own, so that a row that was written twice
//! or should not be there is known by name.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_services::{KafkaClient, Message, TransactionalProducer};

use crate::rig::Rig;

/// Time between two transactions.
const PACE: Duration = Duration::from_millis(100);

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its messages are in the log, to be read.
    Committed,
    /// They are in the log, and nobody may read them.
    Aborted,
    /// The broker went away meanwhile; the log knows.
    Unknown,
}

/// What was produced: ranges of numbers, and what became of them.
#[derive(Debug, Default)]
pub struct Produced(pub Vec<(Range<u64>, Outcome)>);

impl Produced {
    /// How many messages had this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.0
            .iter()
            .filter(|(_, o)| *o == outcome)
            .map(|(numbers, _)| numbers.end - numbers.start)
            .sum()
    }
}

/// A running producer.
#[derive(Debug)]
pub struct Producer {
    stop: Arc<AtomicBool>,
    rate: Arc<AtomicU32>,
    committed: Arc<AtomicU64>,
    thread: Option<JoinHandle<Produced>>,
}

impl Producer {
    /// Produces about `rate` messages a second into the rig's topic until it is
    /// stopped; every fifth transaction is aborted.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(rig: &Rig, rate: u32) -> Result<Self> {
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let rate = Arc::new(AtomicU32::new(rate));
        let work = Work {
            kafka: rig.kafka.clone(),
            topic: rig.topic.clone(),
            partitions: rig.plan.partitions,
            rate: Arc::clone(&rate),
            random: StdRng::seed_from_u64(rig.plan.seed),
            stop: Arc::clone(&stop),
            committed: Arc::clone(&committed),
            produced: Produced::default(),
            next: 0,
        };
        let thread = std::thread::Builder::new()
            .name("producer".to_owned())
            .spawn(move || work.run())
            .map_err(|e| Error::new(ErrorKind::Other, "no thread for the producer").source(e))?;
        Ok(Self { stop, rate, committed, thread: Some(thread) })
    }

    /// How many messages were committed so far.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Changes the pace.
    pub fn set_rate(&self, rate: u32) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Ends after the transaction under way.
    ///
    /// # Errors
    /// When the producer's thread panicked.
    pub fn stop(mut self) -> Result<Produced> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(produced)) => Ok(produced),
            _ => Err(Error::new(ErrorKind::Panic, "the producer panicked")),
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it has to say is of no use any more.
            let _ = thread.join();
        }
    }
}

struct Work {
    kafka: KafkaClient,
    topic: String,
    partitions: i32,
    rate: Arc<AtomicU32>,
    random: StdRng,
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    produced: Produced,
    next: u64,
}

impl Work {
    fn run(mut self) -> Produced {
        while !self.stop.load(Ordering::Relaxed) {
            // A broker that is away comes back: the same id ends what was open.
            match self.kafka.transactional(&format!("{}-producer", self.topic)) {
                Ok(producer) => self.transactions(&producer),
                Err(_) => crate::pause(PACE),
            }
        }
        self.produced
    }

    /// Until something fails or the end.
    fn transactions(&mut self, producer: &TransactionalProducer) {
        while !self.stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let size = f64::from(self.rate.load(Ordering::Relaxed)) * PACE.as_secs_f64();
            let numbers = self.next..self.next + (size as u64).max(1);
            self.next = numbers.end;
            let abort = self.random.random_range(0..5) == 0;
            let done = self.transaction(producer, numbers.clone(), abort);
            let outcome = match (&done, abort) {
                (Err(_), _) => Outcome::Unknown,
                (Ok(()), true) => Outcome::Aborted,
                (Ok(()), false) => Outcome::Committed,
            };
            if outcome == Outcome::Committed {
                self.committed.fetch_add(numbers.end - numbers.start, Ordering::Relaxed);
            }
            self.produced.0.push((numbers, outcome));
            if done.is_err() {
                return;
            }
            crate::pause(PACE.saturating_sub(begun.elapsed()));
        }
    }

    fn transaction(
        &mut self,
        producer: &TransactionalProducer,
        numbers: Range<u64>,
        abort: bool,
    ) -> Result<()> {
        producer.begin()?;
        for number in numbers {
            let shade = ["red", "green", "blue"][self.random.random_range(0..3)];
            // Nothing that a codec could make small: uploads are to have a size.
            let body: [u64; 4] = self.random.random();
            let [a, b, c, d] = body;
            let value =
                format!(r#"{{"number":{number},"shade":"{shade}","body":"{a:x}{b:x}{c:x}{d:x}"}}"#);
            let partition = self.random.random_range(0..self.partitions);
            producer.send(&self.topic, Message::new(value).partition(partition))?;
        }
        if abort { producer.abort() } else { producer.commit() }
    }
}
