//! Keeps a real Kafka and a real S3 server running for people, and gets the
//! servers before the tests need them.

mod pipeline;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use futures::StreamExt;
use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_json::sample::EventGenerator;
use tidelock_services::{Installed, Kafka, Message, Part, S3, S3Kind, install};

/// The bucket that is there from the start.
const BUCKET: &str = "lake";

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts Kafka and S3, prints a pipeline.toml for them, and keeps them
    /// running until Ctrl-C.
    Up(Up),
    /// Downloads and builds the servers, so that later starts are quick.
    Install,
}

#[derive(Args)]
struct Up {
    /// Start only this one.
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Whose S3 server to start.
    #[arg(long, value_enum, default_value = "minio")]
    s3: Kind,
    /// The topic to create.
    #[arg(long, default_value = "orders")]
    topic: String,
    /// How many partitions the topic gets.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// How many sample events to put into the topic.
    #[arg(long, default_value_t = 10_000)]
    messages: u64,
    /// Print a pipeline that connects with TLS and SCRAM.
    #[arg(long)]
    sasl: bool,
    /// Write the pipeline to this file too.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Kafka,
    S3,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Minio,
    Versitygw,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(up) => run_up(&up),
        Command::Install => run_install(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_install() -> Result<()> {
    for part in Part::ALL {
        match install(part)? {
            Installed::Image(image) => println!("{:<10} image {image}", part.name()),
            Installed::Path(path) => println!("{:<10} {}", part.name(), path.display()),
        }
    }
    Ok(())
}

fn run_up(up: &Up) -> Result<()> {
    // From here on a signal ends the waiting below: nothing is left behind in
    // any case, but a clean end is worth a clean exit code.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| failed("cannot start a runtime", e))?;
    let signals = {
        let _guard = runtime.enter();
        stop_signals().map_err(|e| failed("cannot listen for signals", e))?
    };

    let kafka = match up.only {
        Some(Only::S3) => None,
        _ => Some(start_kafka(up)?),
    };
    let s3 = match up.only {
        Some(Only::Kafka) => None,
        _ => Some(start_s3(up)?),
    };
    let text = pipeline::describe(kafka.as_ref(), s3.as_ref(), &up.topic, BUCKET, up.sasl)?;
    if let Some(path) = &up.write {
        std::fs::write(path, &text).map_err(|e| failed("cannot write the pipeline", e))?;
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| failed("cannot print the pipeline", e))?;

    runtime.block_on(wait(signals, kafka.as_ref(), s3.as_ref()))
}

fn start_kafka(up: &Up) -> Result<Kafka> {
    let kafka = Kafka::start_near(9092)?;
    kafka.create_topic(&up.topic, up.partitions, &[])?;
    let mut events = EventGenerator::new(1);
    let events = (0..up.messages).map(|_| {
        let mut event = Vec::with_capacity(256);
        events.write_event(&mut event);
        Message::new(event)
    });
    kafka.produce(&up.topic, events)?;
    Ok(kafka)
}

fn start_s3(up: &Up) -> Result<S3> {
    let kind = match up.s3 {
        Kind::Minio => S3Kind::Minio,
        Kind::Versitygw => S3Kind::Versitygw,
    };
    let s3 = S3::start_near(kind, 9000)?;
    s3.create_bucket(BUCKET)?;
    Ok(s3)
}

/// Yields when SIGINT or SIGTERM arrives.
fn stop_signals() -> io::Result<impl futures::Stream<Item = ()> + Unpin> {
    use tokio::signal::unix::{SignalKind, signal};
    let stream = |kind| {
        let signal = signal(kind)?;
        io::Result::Ok(futures::stream::unfold(signal, |mut signal| async move {
            signal.recv().await.map(|()| ((), signal))
        }))
    };
    let interrupt = stream(SignalKind::interrupt())?;
    Ok(Box::pin(futures::stream::select(interrupt, stream(SignalKind::terminate())?)))
}

async fn wait(
    mut stop: impl futures::Stream<Item = ()> + Unpin,
    kafka: Option<&Kafka>,
    s3: Option<&S3>,
) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = stop.next() => return Ok(()),
            _ = tick.tick() => {}
        }
        let died = |what: &str| Err(Error::new(ErrorKind::Other, format!("{what} has died")));
        if kafka.is_some_and(Kafka::has_died) {
            return died("Kafka");
        }
        if s3.is_some_and(S3::has_died) {
            return died("the S3 server");
        }
    }
}

fn failed(message: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Other, message).source(error)
}
