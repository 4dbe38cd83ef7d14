//! `tidelock check`.

use std::time::Duration;

use arrow::datatypes::Schema;
use serde_json::{Value, json};
use tidelock_connector::{Error, ErrorKind};

use super::screen::SCREEN;
use super::{Exit, Failure, PipelineFile, words};
use crate::config::{Config, Promise};
use crate::pipeline::State;

/// Whoever asks wants to know today.
const PATIENCE: Duration = Duration::from_secs(28);

/// Explain every mistake in a pipeline file, try its connections, print the plan.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pipeline: PipelineFile,
    /// Print plan and answer as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn check(args: Args) -> Result<Exit, Failure> {
    let config = args.pipeline.load()?;
    let plan = plan(&config);
    if !args.json {
        words::print(&shown(&plan));
    }
    let pipeline = config.into_builder().build()?;
    let outcome = match tokio::time::timeout(PATIENCE, pipeline.check()).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let message = format!("no answer within {} s", PATIENCE.as_secs());
            Err(Error::new(ErrorKind::Unavailable, message))
        }
    };
    match outcome {
        Ok(lines) if args.json => {
            words::print_json(&json!({ "ok": true, "plan": document(&plan), "found": lines }));
        }
        Ok(lines) => {
            let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
            words::print(&format!("found\n{lines}it can run\n"));
        }
        Err(error) => {
            // Nobody has started anything: the answer is no.
            let exit = if error.kind() == ErrorKind::Config { Exit::Usage } else { Exit::No };
            let known = serde_json::Map::from_iter([("plan".to_owned(), document(&plan))]);
            return Err(Failure::Error(error, exit, known));
        }
    }
    Ok(Exit::Done)
}

/// Headings with what is planned under each.
type Plan = Vec<(String, Vec<(String, String)>)>;

fn plan(config: &Config) -> Plan {
    let owned = |rows: &[(&'static str, String)]| -> Vec<(String, String)> {
        rows.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    let row = |name: &str, value: String| (name.to_owned(), value);
    let promise = match config.guarantee {
        Promise::ExactlyOnce => "exactly once",
        Promise::AtLeastOnce => "at least once",
    };
    let runtime = &config.runtime;
    let mut plan = vec![(
        format!("pipeline {}", config.name),
        vec![
            row("guarantee", promise.to_owned()),
            row("workers", runtime.workers.to_string()),
            row("memory", words::bytes(runtime.memory as u64)),
        ],
    )];
    plan.push(("source".to_owned(), owned(&config.source.summary)));
    // The streams of one source have one schema as long as nothing else is said.
    if let Some(stream) = config.source.streams.first() {
        plan.push(("columns".to_owned(), columns(&stream.schema)));
    }
    for sink in &config.sinks {
        let mut rows = owned(&sink.summary);
        if let Some(topics) = &sink.topics {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            rows.push(row("topics", topics.join(", ")));
        }
        plan.push((format!("sink {}", sink.name), rows));
    }
    let record = match config.state() {
        State::None => "none".to_owned(),
        State::Store(store) => format!("{}/_tidelock/{}", store.url, config.name),
        State::WithSink => {
            let home = config.sinks.first().and_then(|sink| sink.sink.home());
            let url = home.map_or_else(String::new, |home| home.url);
            format!("{}/_tidelock/{}", url.trim_end_matches('/'), config.name)
        }
    };
    let checkpoint = &config.checkpoint;
    plan.push((
        "checkpoint".to_owned(),
        vec![
            row("every", humantime::format_duration(checkpoint.interval).to_string()),
            row("or every", format!("{} of rows", words::bytes(checkpoint.bytes as u64))),
            row("record", record),
        ],
    ));
    plan
}

fn columns(schema: &Schema) -> Vec<(String, String)> {
    let fields = schema.fields().iter();
    fields
        .map(|field| {
            let null = if field.is_nullable() { "" } else { ", never null" };
            (field.name().clone(), format!("{}{null}", words::type_name(field.data_type())))
        })
        .collect()
}

fn shown(plan: &Plan) -> String {
    let (bold, off) = SCREEN.colours("1");
    plan.iter()
        .map(|(heading, rows)| format!("{bold}{heading}{off}\n{}", words::table(rows)))
        .collect()
}

fn document(plan: &Plan) -> Value {
    let parts = plan.iter().map(|(heading, rows)| {
        let rows = rows.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        (heading.clone(), Value::Object(rows.collect()))
    });
    Value::Object(parts.collect())
}
