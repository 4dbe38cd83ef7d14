//! `tidelock verify`.

use std::sync::Arc;

use tidelock_connector::{AssignedPartition, Error, ErrorKind};
use tidelock_store::{Store, StoreConfig};

use super::{Exit, Failure, PipelineFile, words};
use crate::checkpoint::store::{MemoryRecord, RecordStore, StoredRecord};
use crate::config::Config;
use crate::offsets::Position;
use crate::pipeline::State;
use crate::verify::{AllWatermarks, Verdict, VerifyOptions, Watermarks};

/// Prove from the files that every offset is there exactly once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineFile,
    /// Read the rows, too, and count them.
    #[arg(long)]
    deep: bool,
    /// Ask the broker for the ends of the partitions, too: shows the lag, and
    /// which gaps the topic still has the messages for.
    #[arg(long)]
    broker: bool,
    /// Print the verdict as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn verify(args: Args) -> Result<Exit, Failure> {
    let config = args.pipeline.load()?;
    let verdict = verdict_on(&config, args.deep, args.broker).await?;
    if verdict.record.is_none() && verdict.totals.files == 0 {
        // Whoever asks in the wrong place must not be told that all is well.
        let message = "there is neither a record nor a file of this pipeline: \
                       has it run, and do `url` and `state` say where?";
        let error = Error::new(ErrorKind::NotFound, message).with("pipeline", &config.name);
        return Err(Failure::Error(error, Exit::No, serde_json::Map::new()));
    }
    if args.json {
        words::print_json(&verdict);
    } else {
        words::print(&format!("{}\n", verdict.to_string().trim_end()));
    }
    Ok(if verdict.ok { Exit::Done } else { Exit::No })
}

/// Looks at all files of a pipeline.
pub(super) async fn verdict_on(
    config: &Config,
    deep: bool,
    broker: bool,
) -> Result<Verdict, Error> {
    let mut options = VerifyOptions::new(config.name.as_str(), record(config)?).deep(deep);
    if broker {
        options = options.watermarks(watermarks(config).await?);
    }
    let mut files = false;
    for sink in &config.sinks {
        if let Some(file) = &sink.file {
            options = options.sink(sink.name.as_str(), file.store().clone(), sink.topics.clone());
            files = true;
        }
    }
    if !files {
        return Err(Error::config(
            "the pipeline has no sink that writes files: nothing can be proved",
        ));
    }
    crate::verify::verify(&options).await
}

async fn watermarks(config: &Config) -> Result<AllWatermarks, Error> {
    let Some(group) = &config.source.group else {
        return Err(Error::config("the source has no broker that could be asked"));
    };
    let partitions = group.partitions(Position::Earliest).await?;
    let watermarks = |it: AssignedPartition| Watermarks { low: it.low, end: it.end };
    Ok(partitions.into_iter().map(|it| (it.partition.clone(), watermarks(it))).collect())
}

fn record(config: &Config) -> Result<Arc<dyn RecordStore>, Error> {
    let store = match config.state() {
        // Without a record only gaps between files can be seen.
        State::None => return Ok(Arc::new(MemoryRecord::default())),
        State::Store(config) => Store::open(&config)?,
        State::WithSink => match config.sinks.iter().find_map(|sink| sink.file.as_ref()) {
            Some(file) => file.store().clone(),
            None => Store::open(&StoreConfig::new(""))?,
        },
    };
    Ok(Arc::new(StoredRecord::new(store, &config.name)))
}
