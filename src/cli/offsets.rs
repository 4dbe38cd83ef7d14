//! `tidelock offsets`.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tidelock_connector::{Error, Offsets, TopicPartition};

use super::confirm::{can_ask, confirmed};
use super::{Exit, Failure, PipelineFile, record, words};
use crate::config::Config;
use crate::offsets::{Applied, Group, Plan, Position, Target, apply, parse_target, plan, show};

/// Show the record beside the group's offsets, and move them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// The record and the group's committed offsets, side by side.
    Show(ShowArgs),
    /// Go on at given offsets.
    Set(SetArgs),
    /// Go on at the beginning, the end or a time.
    Reset(ResetArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    pipeline: PipelineFile,
    /// Print the overview as JSON.
    #[arg(long)]
    json: bool,
}

/// How a move is made.
#[derive(Debug, clap::Args)]
struct How {
    /// Do it without asking.
    #[arg(long, short)]
    yes: bool,
    /// Do it although the group has members, or the offsets are not in the log.
    #[arg(long)]
    force: bool,
    /// Print what is planned and done as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    #[command(flatten)]
    pipeline: PipelineFile,
    /// Where to go on, for example orders:0=1500; any number of them.
    #[arg(value_name = "TOPIC:PARTITION=OFFSET")]
    targets: Vec<String>,
    /// The topic of a single move.
    #[arg(long, requires = "partition", requires = "offset")]
    topic: Option<String>,
    /// Its partition.
    #[arg(long, requires = "topic")]
    partition: Option<i32>,
    /// Its offset: the next one to be read.
    #[arg(long, requires = "topic")]
    offset: Option<i64>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct ResetArgs {
    #[command(flatten)]
    pipeline: PipelineFile,
    #[command(flatten)]
    to: Place,
    /// Only these topics; all of the pipeline's if none is given.
    #[arg(long)]
    topic: Vec<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// To the first message that is still there.
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last message.
    #[arg(long)]
    to_latest: bool,
    /// To the first message of this time or later, as in 2026-11-21T09:00:00Z.
    #[arg(long, value_name = "RFC3339")]
    to_timestamp: Option<DateTime<Utc>>,
}

impl Place {
    fn position(&self) -> Position {
        match self.to_timestamp {
            Some(time) => Position::Time(time),
            None if self.to_latest => Position::Latest,
            None => Position::Earliest,
        }
    }
}

impl Args {
    pub(super) fn wants_json(&self) -> bool {
        match &self.verb {
            Verb::Show(args) => args.json,
            Verb::Set(args) => args.how.json,
            Verb::Reset(args) => args.how.json,
        }
    }
}

pub(super) async fn offsets(args: Args) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Show(args) => {
            let config = args.pipeline.load()?;
            let (record, group) = (record::of(&config).await?, config.source.group.as_deref());
            let overview = show(record.as_ref(), &config.name, group).await?;
            if args.json {
                words::print_json(&overview);
            } else {
                words::print(&overview.render());
            }
            Ok(Exit::Done)
        }
        Verb::Set(args) => {
            let target = Target::Offsets(targets(&args)?);
            go(&args.pipeline, &target, &args.how).await
        }
        Verb::Reset(args) => {
            let topics: BTreeSet<String> = args.topic.into_iter().collect();
            let target = Target::Position(args.to.position(), topics);
            go(&args.pipeline, &target, &args.how).await
        }
    }
}

fn targets(args: &SetArgs) -> Result<Offsets, Error> {
    let mut targets = Offsets::new();
    let single = args.topic.as_ref().zip(args.partition.zip(args.offset));
    let single = single.map(|(topic, (partition, offset))| {
        (TopicPartition::new(topic.as_str(), partition), offset)
    });
    let listed = args.targets.iter().map(|text| parse_target(text));
    for target in single.map(Ok).into_iter().chain(listed) {
        let (place, offset) = target?;
        if offset < 0 || place.partition < 0 {
            return Err(Error::config("offsets and partitions are not negative").at(&place));
        }
        if targets.insert(place.clone(), offset).is_some() {
            return Err(Error::config(format!("{place} is named twice")));
        }
    }
    if targets.is_empty() {
        return Err(Error::config(
            "say where to go on, for example orders:0=1500, or --topic orders --partition 0 \
             --offset 1500",
        ));
    }
    Ok(targets)
}

fn group_of(config: &Config) -> Result<Arc<dyn Group>, Error> {
    let none = || Error::config("the source has no consumer group whose offsets could be moved");
    config.source.group.clone().ok_or_else(none)
}

/// What was planned and what became of it.
#[derive(Serialize)]
struct Told<'a> {
    ok: bool,
    plan: &'a Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<&'a Applied>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_done: Option<&'a str>,
}

async fn go(pipeline: &PipelineFile, target: &Target, how: &How) -> Result<Exit, Failure> {
    let config = pipeline.load()?;
    let (record, group) = (record::of(&config).await?, group_of(&config)?);
    let planned = plan(record.as_ref(), group.as_ref(), target).await?;
    if !how.json {
        words::print(&planned.render());
    }
    if let Some(why) = not_done(&planned, how) {
        if how.json {
            let told = Told { ok: false, plan: &planned, applied: None, not_done: Some(why) };
            words::print_json(&told);
        } else {
            words::print(&format!("not done: {why}\n"));
        }
        return Ok(Exit::No);
    }
    let applied = if planned.is_empty() {
        None
    } else {
        Some(apply(&Arc::clone(&record), &config.name, group.as_ref(), &planned).await?)
    };
    if how.json {
        let told = Told { ok: true, plan: &planned, applied: applied.as_ref(), not_done: None };
        words::print_json(&told);
    } else if let Some(applied) = applied {
        words::print(&applied.render());
    }
    Ok(Exit::Done)
}

/// Why a plan is not carried out.
fn not_done(planned: &Plan, how: &How) -> Option<&'static str> {
    if planned.is_empty() {
        return None;
    }
    if !planned.objections.is_empty() && !how.force {
        return Some("there are objections; --force overrides them");
    }
    if how.yes {
        return None;
    }
    if how.json || !can_ask() {
        return Some("nobody can be asked; --yes agrees");
    }
    (!confirmed("do it?")).then_some("you said no")
}
