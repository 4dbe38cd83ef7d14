//! `tidelock run`.

use std::net::SocketAddr;

use serde::Serialize;
use tidelock_connector::Error;

use super::confirm::confirmed;
use super::fair::Watch;
use super::live::Live;
use super::screen::SCREEN;
use super::{Exit, Failure, PipelineFile, figures, words};
use crate::checkpoint::lost::OnLost;
use crate::pipeline::shutdown_on_ctrl_c;
use crate::progress::Report;

/// Run a pipeline until it is stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineFile,
    /// Stop at the offsets that are the ends when the run begins.
    #[arg(long)]
    until_end: bool,
    /// Print the closing report as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Serve metrics to Prometheus, for example at 127.0.0.1:9464.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// What to do when files of a committed checkpoint are lost before they are
    /// visible; replay shows what that repeats, and asks.
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    on_lost: LostPolicy,
    /// Agree to what a replay repeats without being asked.
    #[arg(long, short)]
    yes: bool,
    /// End at once when stdin is closed: the process that holds it is gone.
    #[arg(long, hide = true)]
    tied_to_stdin: bool,
}

/// What to do about lost files.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum LostPolicy {
    /// Stop, and name them.
    #[default]
    Stop,
    /// Read their offsets again.
    Replay,
}

impl LostPolicy {
    fn on_lost(self, yes: bool) -> OnLost {
        match self {
            Self::Stop => OnLost::Stop,
            Self::Replay => OnLost::replay_if(move |loss| {
                SCREEN.say(&loss.render());
                yes || confirmed("replay it?")
            }),
        }
    }
}

/// The closing report.
#[derive(Serialize)]
struct Closing<'a> {
    pipeline: &'a str,
    ok: bool,
    #[serde(flatten)]
    report: &'a Report,
    records_per_second: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fairness: Option<serde_json::Value>,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    if args.tied_to_stdin {
        end_with_stdin();
    }
    let config = args.pipeline.load()?;
    figures::install(args.metrics.or(config.runtime.metrics))?;
    let on_lost = args.on_lost.on_lost(args.yes);
    let fair = Watch::of(&config.source);
    let pipeline = config.into_builder().until_end(args.until_end).on_lost(on_lost).build()?;
    let (name, progress) = (pipeline.name().to_owned(), pipeline.progress());
    let live = Live::start(&name, pipeline.progress(), fair.clone(), args.until_end);
    let outcome = pipeline.run(shutdown_on_ctrl_c()).await;
    drop(live);
    match outcome {
        Ok(report) => {
            tell(&name, &report, &fair, args.json);
            Ok(Exit::Done)
        }
        Err(error) => Err(failed(&name, &progress.report(), &fair, error, args.json)),
    }
}

/// What was done until then is told with the error.
fn failed(name: &str, report: &Report, fair: &Watch, error: Error, json: bool) -> Failure {
    let exit = Exit::of(&error);
    if !json && report.records > 0 {
        tell(name, report, fair, false);
    }
    let closing = closing(name, report, fair, false);
    let known = match serde_json::to_value(closing) {
        Ok(serde_json::Value::Object(known)) => known,
        _ => serde_json::Map::new(),
    };
    Failure::Error(error, exit, known)
}

fn closing<'a>(name: &'a str, report: &'a Report, fair: &Watch, ok: bool) -> Closing<'a> {
    let records_per_second = words::rate(report.records, report.elapsed);
    Closing { pipeline: name, ok, report, records_per_second, fairness: fair.json() }
}

fn tell(name: &str, report: &Report, fair: &Watch, json: bool) {
    if json {
        words::print_json(&closing(name, report, fair, true));
        return;
    }
    let row = |name: &str, value: String| (name.to_owned(), value);
    let mut rows = vec![row("records in", words::count(report.records))];
    for (sink, done) in &report.sinks {
        let (rows_out, files) = (words::count(done.rows), words::counted(done.files, "file"));
        let bytes = words::bytes(done.bytes);
        rows.push((format!("rows out, {sink}"), format!("{rows_out} in {files}, {bytes}")));
    }
    if report.rejected > 0 {
        rows.push(row("skipped", format!("{} that did not decode", words::count(report.rejected))));
    }
    rows.push(row("checkpoints", words::count(report.checkpoints)));
    rows.push(row("restarts", words::count(report.restarts)));
    rows.push(row("took", words::duration(report.elapsed)));
    let rate = words::rate(report.records, report.elapsed);
    rows.push(row("rate", format!("{} records/s", words::count(rate))));
    rows.extend(fair.rows());
    words::print(&format!("{name}\n{}", words::table(&rows)));
}

/// A thread, because a read of stdin cannot be cancelled.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(Exit::Fatal as i32);
    });
}
