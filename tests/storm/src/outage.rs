//! The store, the broker, or both go away for a while and come back.

use std::time::{Duration, Instant};

use serde::Serialize;
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_services::{Kafka, S3};

use crate::crew::Crew;
use crate::judge::{Judgement, judge};
use crate::producer::Producer;
use crate::rig::Rig;
use crate::worker::Worker;

/// How long until everything flows again.
const RECOVERY: Duration = Duration::from_secs(180);
/// Counters of which at least one has to grow while something is away.
const TROUBLE: [&str; 3] = [
    "tidelock_retries_total",
    "tidelock_source_errors_total",
    "tidelock_offset_commit_failures_total",
];

/// What goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Victim {
    /// The S3 server.
    Store,
    /// The broker.
    Broker,
    /// Both.
    Both,
}

impl Victim {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Store, Self::Broker, Self::Both];
}

/// What one outage was like.
#[derive(Debug, Serialize)]
pub struct Outage {
    /// What was away.
    pub victim: Victim,
    /// For how long, in seconds.
    pub away_s: f64,
    /// How long until something was published again, in seconds.
    pub recovery_s: f64,
    /// How often the metrics counted trouble meanwhile.
    pub metered: f64,
    /// How many lines of the logs told of it.
    pub logged: u64,
}

/// What a row of outages was like, and what came of it.
#[derive(Debug, Serialize)]
pub struct Outages {
    /// One after the other.
    pub outages: Vec<Outage>,
    /// How long everything took to be in files in the end, in seconds.
    pub calm_s: f64,
    /// The largest resident memory of a worker.
    pub peak_mib: u64,
    /// Whether `verify` agreed in the end.
    pub verified: bool,
    /// What the files say.
    pub judgement: Judgement,
}

/// Takes each victim away for `length` while `rate` messages a second flow.
///
/// # Errors
/// When a worker ends by itself, nothing flows again, or an outage was passed
/// over in silence.
pub fn outages(
    rig: &Rig,
    kafka: &mut Kafka,
    s3: &mut S3,
    victims: &[Victim],
    length: Duration,
    rate: u32,
) -> Result<Outages> {
    let producer = Producer::start(rig, rate)?;
    let mut crew = Crew::new(rig, 2);
    flow(&mut crew)?;
    let mut outages = Vec::new();
    for victim in victims {
        outages.push(outage(&mut crew, kafka, s3, *victim, length)?);
    }
    let produced = producer.stop()?;
    let calm_s = crew.calm()?.as_secs_f64();
    let verified = rig.verify()?.status.success();
    let peak_mib = crew.figures.peak_mib;
    Ok(Outages { outages, calm_s, peak_mib, verified, judgement: judge(rig, &produced)? })
}

fn outage(
    crew: &mut Crew<'_>,
    kafka: &mut Kafka,
    s3: &mut S3,
    victim: Victim,
    length: Duration,
) -> Result<Outage> {
    let (metered, logged) = trouble(crew);
    if victim != Victim::Broker {
        s3.kill()?;
    }
    if victim != Victim::Store {
        kafka.kill()?;
    }
    let begun = Instant::now();
    while begun.elapsed() < length {
        crew.tend()?;
        crate::pause(Duration::from_millis(200));
    }
    let (metered_now, logged_now) = trouble(crew);
    if victim != Victim::Broker {
        s3.restart()?;
    }
    if victim != Victim::Store {
        kafka.restart()?;
    }
    let away_s = begun.elapsed().as_secs_f64();
    let recovery_s = flow(crew)?.as_secs_f64();
    let outage = Outage {
        victim,
        away_s,
        recovery_s,
        metered: metered_now - metered,
        logged: logged_now - logged,
    };
    if outage.metered <= 0.0 || outage.logged == 0 {
        let text = format!("an outage was passed over in silence: {outage:?}");
        return Err(Error::new(ErrorKind::Other, text));
    }
    Ok(outage)
}

/// Waits until every member publishes; returns how long that took.
fn flow(crew: &mut Crew<'_>) -> Result<Duration> {
    let begun = Instant::now();
    crew.tend()?;
    let before: Vec<u32> = crew.members().map(Worker::published).collect();
    loop {
        crew.tend()?;
        let now: Vec<u32> = crew.members().map(Worker::published).collect();
        if before.len() == now.len() && before.iter().zip(&now).all(|(before, now)| before < now) {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > RECOVERY {
            let words: String = crew.members().map(|worker| worker.last_words()).collect();
            let text = format!("nothing flows after {RECOVERY:?}");
            return Err(Error::new(ErrorKind::Other, text).source(words));
        }
        crate::pause(Duration::from_millis(100));
    }
}

/// What metrics and logs say of trouble so far.
fn trouble(crew: &mut Crew<'_>) -> (f64, u64) {
    crew.members().fold((0.0, 0), |(metered, logged), worker| {
        let counted: f64 = TROUBLE.iter().map(|name| worker.metric(name)).sum();
        (metered + counted, logged + worker.said(&["\"WARN\"", "\"ERROR\""]))
    })
}
