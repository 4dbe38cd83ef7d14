//! The storm as a command; see the library for what it does.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_services::{Kafka, S3, S3Kind, Toxiproxy};
use tidelock_storm::{Plan, Program, Rig, Weather, faults, storm};

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
    let kafka = Kafka::start_private()?;
    let s3 = S3::start_private(args.store.into())?;
    let toxiproxy = if args.proxy { Some(Toxiproxy::start_private()?) } else { None };
    let mut plan = Plan::new(seed);
    plan.faults = args.proxy.then(faults);
    plan.unfenced = args.no_fencing;
    if args.consumer_protocol {
        plan.librdkafka.insert("group.protocol".to_owned(), "consumer".to_owned());
    }
    let rig = Rig::new(program, kafka.client(), &s3, toxiproxy.as_ref(), plan)?;
    let weather = Weather {
        kills: args.kills,
        limit: Duration::from_secs(60 * args.minutes),
        rate: args.rate,
    };
    let outcome = storm(&rig, &weather);
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            eprintln!("the logs are in {}", rig.keep().display());
            return Err(error);
        }
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        println!("{report}");
    }
    let good = if args.no_fencing { report.judgement.duplicates > 0 } else { report.is_clean() };
    if !good || args.keep {
        eprintln!("the logs are in {}", rig.keep().display());
    }
    Ok(good)
}

fn program(args: &Args) -> Result<Program> {
    if let Some(binary) = &args.binary {
        return Ok(Program::new(binary));
    }
    let path = std::env::current_exe()
        .map_err(|e| Error::new(ErrorKind::Other, "where is this executable?").source(e))?;
    Ok(Program::new(path).env(WORKER, "1"))
}
