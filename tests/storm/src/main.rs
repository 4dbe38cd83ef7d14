//! The storm as a command; see the library for what it does.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Serialize;
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_services::{Kafka, S3, S3Kind, Toxiproxy};
use tidelock_storm::{
    Misfortune, Plan, Program, Rates, Rig, Victim, Weather, crowd, faults, outages, storm, suffer,
};

/// The allocator of `tidelock`, which this is too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// With this in the environment the executable is `tidelock`.
const WORKER: &str = "TIDELOCK_STORM_WORKER";

/// Kill, stop and cut off workers on a real Kafka and a real S3 server, and
/// count what came of it.
#[derive(Debug, Parser)]
struct Args {
    /// How many processes to kill.
    #[arg(long, default_value_t = 60)]
    kills: u32,
    /// Whose S3 server.
    #[arg(long, value_enum, default_value_t)]
    store: Store,
    /// Where chance comes from; a random one otherwise.
    #[arg(long)]
    seed: Option<u64>,
    /// Faults between the workers and the store.
    #[arg(long)]
    proxy: bool,
    /// Without fencing: the control, which has to show duplicates.
    #[arg(long)]
    no_fencing: bool,
    /// At most so many minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Messages a second.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Instead of a storm: the store, the broker and both are away for so many
    /// seconds each.
    #[arg(long, value_name = "SECONDS")]
    outage: Option<u64>,
    /// Instead of a storm: so many revocations while uploads crawl.
    #[arg(long, value_name = "TIMES")]
    slow_revokes: Option<u32>,
    /// Instead of a storm: so many members that sleep longer than the group
    /// waits.
    #[arg(long, value_name = "TIMES")]
    long_stops: Option<u32>,
    /// Instead of a storm: 24 members in 3 processes on a store 50 ms away, for
    /// so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    crowd: Option<u64>,
    /// The group's newer protocol, with its assignor on the broker.
    #[arg(long)]
    consumer_protocol: bool,
    /// Another `tidelock` than the one in here; with the feature `testing`.
    #[arg(long)]
    binary: Option<std::path::PathBuf>,
    /// Keep the workers' logs even if all is well.
    #[arg(long)]
    keep: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Store {
    #[default]
    Minio,
    Versitygw,
}

impl From<Store> for S3Kind {
    fn from(store: Store) -> Self {
        match store {
            Store::Minio => Self::Minio,
            Store::Versitygw => Self::Versitygw,
        }
    }
}

fn main() -> ExitCode {
    if std::env::var_os(WORKER).is_some() {
        return tidelock::cli::main();
    }
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}

/// Whether what was seen is what has to be seen.
fn run(args: &Args) -> Result<bool> {
    let seed = args.seed.unwrap_or_else(rand::random);
    eprintln!("seed {seed}");
    let program = program(args)?;
    let mut kafka = Kafka::start_private()?;
    let mut s3 = S3::start_private(args.store.into())?;
    let slow = args.slow_revokes.is_some() || args.crowd.is_some();
    let toxiproxy = if args.proxy || slow { Some(Toxiproxy::start_private()?) } else { None };
    let rig = Rig::new(program, kafka.client(), &s3, toxiproxy.as_ref(), plan(args, seed))?;
    let outcome = happen(args, &rig, &mut kafka, &mut s3);
    if args.keep || !matches!(outcome, Ok(true)) {
        eprintln!("the logs are in {}", rig.keep().display());
    }
    outcome
}

fn plan(args: &Args, seed: u64) -> Plan {
    let mut plan = if args.crowd.is_some() { Plan::crowd(seed) } else { Plan::new(seed) };
    if args.proxy {
        plan.faults = Some(faults());
    } else if args.slow_revokes.is_some() {
        plan.faults = Some(Rates::none());
        plan.max_poll_interval = Duration::from_secs(6);
    }
    plan.unfenced = args.no_fencing;
    if args.consumer_protocol {
        plan.librdkafka.insert("group.protocol".to_owned(), "consumer".to_owned());
    }
    plan
}

fn happen(args: &Args, rig: &Rig, kafka: &mut Kafka, s3: &mut S3) -> Result<bool> {
    if let Some(seconds) = args.outage {
        let length = Duration::from_secs(seconds);
        let seen = outages(rig, kafka, s3, &Victim::ALL, length, args.rate)?;
        tell(&seen)?;
        return Ok(seen.verified && seen.judgement.is_clean());
    }
    if let Some(seconds) = args.crowd {
        let seen = crowd(rig, Duration::from_secs(seconds), args.rate)?;
        tell(&seen)?;
        let quick = seen.swaps.p99_s < 5.0 && seen.longest_rebalance_s() < 10.0;
        return Ok(quick && seen.is_clean());
    }
    let misfortune = match (args.slow_revokes, args.long_stops) {
        (Some(times), _) => Some((Misfortune::SlowRevoke, times)),
        (None, Some(times)) => Some((Misfortune::LongStop, times)),
        (None, None) => None,
    };
    if let Some((misfortune, times)) = misfortune {
        let seen = suffer(rig, misfortune, times, args.rate)?;
        tell(&seen)?;
        return Ok(seen.verified && seen.judgement.is_clean());
    }
    let limit = Duration::from_secs(60 * args.minutes);
    let seen = storm(rig, &Weather { kills: args.kills, limit, rate: args.rate })?;
    if args.json {
        tell(&seen)?;
    } else {
        println!("{seen}");
    }
    Ok(if args.no_fencing { seen.judgement.duplicates > 0 } else { seen.is_clean() })
}

fn tell(seen: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(seen)
        .map_err(|e| Error::new(ErrorKind::Other, "cannot write the report").source(e))?;
    println!("{text}");
    Ok(())
}

fn program(args: &Args) -> Result<Program> {
    if let Some(binary) = &args.binary {
        return Ok(Program::new(binary));
    }
    let path = std::env::current_exe()
        .map_err(|e| Error::new(ErrorKind::Other, "where is this executable?").source(e))?;
    Ok(Program::new(path).env(WORKER, "1"))
}
