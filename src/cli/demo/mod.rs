//! `tidelock demo`: everything at once, with nothing but this binary.
//!
//! This process holds a broker and a producer. The pipeline is a child process,
//! the same binary with a pipeline file that stays in the folder. It is killed
//! while events flow and files are half written, and started again; then the
//! files are counted, and proved.

mod broker;
mod folder;
mod worker;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use serde::Serialize;
use tidelock_connector::{Coverage, Error, ErrorKind, Result};
use tidelock_store::{Store, StoreConfig};

use super::screen::SCREEN;
use super::{Exit, Failure, verify, words};
use crate::checkpoint::record::Record;
use crate::checkpoint::store::{RecordStore, StoredRecord};
use crate::config::Config;
use broker::{Broker, Paced, Producing};
use folder::{Folder, PIPELINE, TOPIC};
use worker::Worker;

/// How long any part may take before something must be wrong.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Show it all in 20 seconds: a broker inside, a crash, a recovery, a proof.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the files go; the folder of an earlier demo is emptied.
    #[arg(long, default_value = "tidelock-demo")]
    dir: PathBuf,
    /// How many events.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=2_000_000))]
    records: u64,
    /// Print the outcome as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// What a demo ends with.
#[derive(Debug, Serialize)]
struct Outcome {
    ok: bool,
    records_in: u64,
    rows_out: u64,
    files: u64,
    checkpoints: u64,
    kills: u64,
    duplicates: u64,
    missing: u64,
    verified: bool,
    folder: PathBuf,
    #[serde(serialize_with = "seconds")]
    took: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(duration.as_secs_f64())
}

pub(super) async fn demo(args: Args) -> Result<Exit, Failure> {
    let folder = Folder::prepare(&args.dir)?;
    tokio::select! {
        outcome = play(&folder, args.records) => {
            let outcome = outcome?;
            SCREEN.clear();
            tell(&outcome, &folder, args.json);
            Ok(if outcome.ok { Exit::Done } else { Exit::No })
        }
        // Dropping what goes on kills the worker.
        signal = interrupted() => {
            Err(Error::new(ErrorKind::Other, format!("stopped by {signal}")).into())
        }
    }
}

async fn interrupted() -> &'static str {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return "SIGTERM",
                _ = tokio::signal::ctrl_c() => return "ctrl-c",
            }
        }
    }
    // Without signals there is nothing to wait for.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    "ctrl-c"
}

async fn play(folder: &Folder, events: u64) -> Result<Outcome> {
    let began = Instant::now();
    let broker = Broker::start(TOPIC, events)?;
    folder.write_pipeline(&broker.address())?;
    let config = Config::load(&folder.pipeline)?;
    let look = Look::new(&config, events)?;
    step(&format!(
        "a broker in this process, topic {TOPIC} with {} partitions; {} events are on their way",
        broker.partitions,
        words::count(events)
    ));
    // A tenth at once, then a flow that lasts longer than all that precedes
    // the kill.
    let paced = Paced { at_once: events / 10, per_second: events / 16, limit: events * 4 / 5 };
    let producing = broker.produce(TOPIC, events, paced)?;
    let worker = Worker::start(&folder.pipeline, &folder.log, false)?;
    step("a worker process reads them into Parquet files, with a checkpoint every second");

    let (committed, sent) = until_half_done(&look, worker, &producing).await?;
    step(&format!(
        "kill -9 of the worker: {} events are committed, {} were sent",
        words::count(committed),
        words::count(sent)
    ));

    producing.hurry();
    look.until("the rest was sent", || Ok(producing.is_finished())).await?;
    producing.finish()?;
    step("another worker takes over and reads on from the last checkpoint, up to the end");
    let mut worker = Worker::start(&folder.pipeline, &folder.log, true)?;
    until_the_end(&look, &mut worker).await?;

    step("reading every file back");
    let counted = count(&config).await?;
    let verdict = verify::verdict_on(&config, true, false).await?;
    let distinct = counted.coverage.len();
    let outcome = Outcome {
        ok: false,
        records_in: events,
        rows_out: counted.rows,
        files: counted.files,
        checkpoints: verdict.totals.sets,
        kills: 1,
        duplicates: counted.rows.saturating_sub(distinct),
        missing: events.saturating_sub(distinct),
        verified: verdict.ok,
        folder: folder.root.clone(),
        took: began.elapsed(),
    };
    let ok = outcome.duplicates == 0 && outcome.missing == 0 && outcome.verified;
    Ok(Outcome { ok: ok && outcome.rows_out == events, ..outcome })
}

/// Waits until some checkpoints are committed and events flow, then kills.
async fn until_half_done(
    look: &Look,
    mut worker: Worker,
    producing: &Producing,
) -> Result<(u64, u64)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        worker.still_runs()?;
        let seen = look.show(Some(producing.sent())).await?;
        // More than what was there at once: the flow is being read.
        if seen.committed > look.events * 2 / 5 {
            break;
        }
        look.wait(deadline, "events are committed").await?;
    }
    // Into the middle of the next checkpoint.
    for _ in 0..6 {
        tokio::time::sleep(LOOK).await;
        look.show(Some(producing.sent())).await?;
    }
    worker.kill().await?;
    let seen = look.show(Some(producing.sent())).await?;
    Ok((seen.committed, producing.sent()))
}

async fn until_the_end(look: &Look, worker: &mut Worker) -> Result<()> {
    let end = tokio::time::timeout(PATIENCE, worker.end());
    tokio::pin!(end);
    loop {
        tokio::select! {
            ended = &mut end => {
                let late = |_| Err(Error::new(ErrorKind::Other, "the worker does not come to an end"));
                return ended.unwrap_or_else(late);
            }
            () = tokio::time::sleep(LOOK) => { look.show(None).await?; }
        }
    }
}

/// Looks at what the worker does from outside, as anybody could: at the
/// pipeline's record and at the folder.
struct Look {
    store: Store,
    record: StoredRecord,
    events: u64,
}

struct Seen {
    committed: u64,
}

impl Look {
    fn new(config: &Config, events: u64) -> Result<Self> {
        let url = config.sinks.first().and_then(|sink| sink.sink.home()).map(|home| home.url);
        let store = Store::open(&StoreConfig::new(url.unwrap_or_default()))?;
        let record = StoredRecord::new(store.clone(), PIPELINE);
        Ok(Self { store, record, events })
    }

    async fn show(&self, sent: Option<u64>) -> Result<Seen> {
        let committed = match self.record.read().await? {
            None => 0,
            Some((bytes, _)) => {
                let record = Record::decode(&bytes)?;
                let partitions = record.topics.values().flat_map(|topic| topic.partitions.values());
                let cursors = partitions.flat_map(|partition| partition.cursors.values());
                cursors.map(|cursor| u64::try_from(cursor.next).unwrap_or(0)).sum()
            }
        };
        if SCREEN.is_terminal() {
            let files = tidelock_file::inspect::data_files(&self.store);
            let files = files.try_fold(0, async |files, _| Ok(files + 1)).await?;
            let sent = match sent {
                Some(sent) => format!("{} sent · ", words::count(sent)),
                None => String::new(),
            };
            let (bold, off) = SCREEN.colours("1");
            SCREEN.live(&format!(
                "    {sent}{bold}{}{off} of {} committed · {}",
                words::count(committed),
                words::count(self.events),
                words::counted(files, "file")
            ));
        }
        Ok(Seen { committed })
    }

    async fn wait(&self, deadline: Instant, what: &str) -> Result<()> {
        if Instant::now() > deadline {
            let message = format!("not within {} s: {what}", PATIENCE.as_secs());
            return Err(Error::new(ErrorKind::Other, message));
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    async fn until(&self, what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds()? {
            self.wait(deadline, what).await?;
        }
        Ok(())
    }
}

/// What is really in the files.
#[derive(Default)]
struct Counted {
    files: u64,
    rows: u64,
    coverage: Coverage,
}

/// Reads all rows, without asking the record or any footer.
async fn count(config: &Config) -> Result<Counted> {
    let mut counted = Counted::default();
    for file in config.sinks.iter().filter_map(|sink| sink.file.as_ref()) {
        let mut entries = tidelock_file::inspect::data_files(file.store());
        while let Some(entry) = entries.try_next().await? {
            let rows = tidelock_file::inspect::count(file.store(), &entry).await?;
            counted.files += 1;
            counted.rows += rows.rows;
            if let Some(offsets) = &rows.offsets {
                counted.coverage.union(offsets);
            }
        }
    }
    Ok(counted)
}

/// One line about what happens now.
fn step(text: &str) {
    let (blue, off) = SCREEN.colours("1;36");
    SCREEN.say(&format!("{blue}==>{off} {text}\n"));
}

fn tell(outcome: &Outcome, folder: &Folder, json: bool) {
    if json {
        words::print_json(outcome);
        return;
    }
    let row = |name: &str, value: String| (name.to_owned(), value);
    let verified = if outcome.verified { "yes: every offset is in exactly one file" } else { "NO" };
    let rows = [
        row("records in", words::count(outcome.records_in)),
        row("rows out", words::count(outcome.rows_out)),
        row("files", words::count(outcome.files)),
        row("checkpoints", words::count(outcome.checkpoints)),
        row("kill -9", words::count(outcome.kills)),
        row("duplicates", words::count(outcome.duplicates)),
        row("missing", words::count(outcome.missing)),
        row("verified", verified.to_owned()),
        row("took", words::duration(outcome.took)),
        row("files in", folder.data.display().to_string()),
        row("pipeline", folder.pipeline.display().to_string()),
    ];
    let (bold, off) = SCREEN.colours(if outcome.ok { "1;32" } else { "1;31" });
    let verdict = if outcome.ok {
        "exactly once: nothing lost, nothing twice"
    } else {
        "THIS WENT WRONG; please report it, with the folder"
    };
    let data = folder.data.display();
    words::print(&format!(
        "\n{bold}{verdict}{off}\n{}\nLook at the files with DuckDB:\n  duckdb -c \"SELECT country, \
         count(*) AS events, round(sum(amount), 2) AS amount FROM '{data}/**/*.parquet' GROUP BY ALL \
         ORDER BY events DESC LIMIT 5\"\n",
        words::table(&rows)
    ));
}
