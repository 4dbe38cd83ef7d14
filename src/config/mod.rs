//! The pipeline file.
//!
//! ```no_run
//! # async fn example() -> tidelock::connector::Result<()> {
//! let config = tidelock::config::Config::load("pipeline.toml")?;
//! let report = config.into_builder().run(tidelock::shutdown_on_ctrl_c()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Contract
//! * Every mistake that can be found without asking anybody is found at once
//!   and told with its line, the key and the likely right one.
//! * `${VAR}` and `${VAR:-default}` in values come from the environment; what
//!   they hold is never printed.
//! * Loading does no I/O but to read the file.

mod connectors;
mod de;
#[cfg(feature = "file")]
mod file;
#[cfg(feature = "kafka")]
mod kafka;
mod node;
mod problem;
mod sections;
#[cfg(test)]
mod tests;

use std::path::Path;

use tidelock_store::StoreConfig;
use toml::de::DeTable;

use crate::pipeline::{Pipeline, PipelineBuilder, State};
pub use connectors::{SinkConfig, SourceConfig};
use node::{Env, Node, Value};
pub use problem::{ConfigErrors, Mistake};
use problem::{Problems, hint};
use sections::Root;
pub use sections::{CheckpointConfig, Promise, RuntimeConfig};

/// A pipeline file that makes sense.
#[derive(Clone)]
pub struct Config {
    /// The pipeline's name.
    pub name: String,
    /// `[source]`.
    pub source: SourceConfig,
    /// Every `[[sink]]`.
    pub sinks: Vec<SinkConfig>,
    /// `[checkpoint]`.
    pub checkpoint: CheckpointConfig,
    /// `guarantee`.
    pub guarantee: Promise,
    /// `[runtime]`.
    pub runtime: RuntimeConfig,
}

impl Config {
    /// Reads and checks a pipeline file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigErrors::unreadable(path, &error))?;
        Self::parse(path, &text, &|name| std::env::var(name).ok())
    }

    /// Checks the text of a pipeline file; `env` looks up variables.
    ///
    /// # Errors
    /// Everything that is wrong with it, as if it stood in `path`.
    pub fn parse(
        path: &Path,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let mut problems = Problems::default();
        let config = parse(text, env, &mut problems);
        match config.filter(|_| problems.is_empty()) {
            Some(config) => Ok(config),
            None => Err(problems.into_errors(path, text)),
        }
    }

    /// Where the pipeline's record lives.
    pub fn state(&self) -> State {
        match (self.guarantee, &self.checkpoint.state) {
            (Promise::AtLeastOnce, _) => State::None,
            (Promise::ExactlyOnce, Some(url)) => State::Store(StoreConfig {
                url: url.clone(),
                storage: self.checkpoint.storage.clone().unwrap_or_default(),
            }),
            (Promise::ExactlyOnce, None) => State::WithSink,
        }
    }

    /// The pipeline that the file describes.
    pub fn into_builder(self) -> PipelineBuilder {
        let state = self.state();
        let mut builder = Pipeline::builder(self.name)
            .state(state)
            .checkpoint_every(self.checkpoint.interval)
            .checkpoint_bytes(self.checkpoint.bytes)
            .workers(self.runtime.workers.get())
            .memory(self.runtime.memory)
            .on_external_reset(self.runtime.on_external_reset);
        if let Some(limit) = self.runtime.retry_limit {
            builder = builder.retry_limit(limit);
        }
        for SinkConfig { name, topics, sink, .. } in self.sinks {
            builder = builder.add_sink(name.into(), topics, sink);
        }
        (self.source.attach)(builder)
    }
}

fn parse(text: &str, env: Env<'_>, problems: &mut Problems) -> Option<Config> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            problems.add(error.span().unwrap_or(0..0), error.message());
        }
        // What a parser makes of the rest would only add riddles.
        return None;
    }
    let root = node::tree(&document, env, problems);
    problems.note_secrets(&root);
    // Values without their variables would only be wrong a second time.
    if !problems.is_empty() {
        return None;
    }
    let general: Option<Root> = de::read(&root, &["source", "sink"], &[], problems);
    let name = root.get("name").and_then(Node::text);
    let source = match root.get("source") {
        Some(node) => connectors::source(node, name, problems),
        None => {
            problems.add(0..0, "the pipeline has no [source]");
            None
        }
    };
    let sinks = sinks(&root, problems);
    let (Root { name, guarantee, checkpoint, runtime }, source) = general.zip(source)?;
    let config = Config { name, source, sinks: sinks?, checkpoint, guarantee, runtime };
    cross_check(&config, &root, problems);
    Some(config)
}

fn sinks(root: &Node, problems: &mut Problems) -> Option<Vec<SinkConfig>> {
    let Some(node) = root.get("sink") else {
        problems.add(0..0, "the pipeline has no [[sink]]");
        return None;
    };
    let Value::List(nodes) = &node.value else {
        problems.add(node.head(), "write [[sink]] with two brackets: there may be several");
        return None;
    };
    let sinks: Vec<_> = nodes.iter().map(|node| connectors::sink(node, problems)).collect();
    for (index, node) in nodes.iter().enumerate() {
        let name = |node: &Node| node.get("name").and_then(Node::text).map(str::to_owned);
        if let Some(own) = name(node)
            && nodes[..index].iter().any(|other| name(other).as_ref() == Some(&own))
        {
            let span = node.get("name").map_or_else(|| node.head(), |name| name.span.clone());
            problems.add(span, format!("another sink is called {own:?} already"));
        }
    }
    sinks.into_iter().collect()
}

/// What only the whole shows.
fn cross_check(config: &Config, root: &Node, problems: &mut Problems) {
    topics_fit(config, root, problems);
    let checkpoint = root.get("checkpoint");
    let key = |key: &str| checkpoint.and_then(|checkpoint| checkpoint.get(key));
    match (config.guarantee, key("state")) {
        (Promise::AtLeastOnce, Some(state)) => problems.add(
            state.key_span.clone(),
            "guarantee = \"at_least_once\" keeps no record; leave `state` out",
        ),
        (Promise::ExactlyOnce, None) => {
            let homes = config.sinks.iter().filter(|sink| sink.sink.home().is_some()).count();
            if config.sinks.len() != 1 || homes != 1 {
                let span = checkpoint.map_or(0..0, Node::head);
                problems.add(
                    span,
                    "missing key \"state\" in [checkpoint]: with several sinks, or without one \
                     that writes files, say where the pipeline's record is to live, for \
                     example state = \"s3://bucket/_state\"",
                );
            }
        }
        _ => {}
    }
    if let (Some(storage), None) = (key("storage"), key("state")) {
        problems.add(storage.key_span.clone(), "`storage` in [checkpoint] needs `state`");
    }
    if let State::Store(store) = config.state()
        && let Err(error) = tidelock_store::Store::open(&store)
    {
        let span = key("state").map_or(0..0, |state| state.span.clone());
        problems.add(span, format!("`state` in [checkpoint]: {error}"));
    }
    if problems.is_empty()
        && let Err(error) = config.clone().into_builder().build()
    {
        // All that is left to be found is a name that cannot be part of a path.
        let span = root.get("name").map_or(0..0, |name| name.span.clone());
        problems.add(span, error.to_string());
    }
}

/// Every topic goes somewhere, and nobody waits for one that is not read.
fn topics_fit(config: &Config, root: &Node, problems: &mut Problems) {
    let read = &config.source.topics;
    // What a regular expression matches is not known yet.
    if read.iter().any(|topic| topic.starts_with('^')) {
        return;
    }
    let nodes = root.get("sink").map(Node::children).unwrap_or_default();
    for (sink, node) in config.sinks.iter().zip(nodes) {
        let Some(topics) = &sink.topics else { continue };
        for topic in topics.iter().filter(|topic| !read.contains(topic)) {
            let list = node.get("topics");
            let place = list
                .and_then(|list| list.children().iter().find(|one| one.text() == Some(topic)))
                .or(list);
            let names: Vec<&str> = read.iter().map(String::as_str).collect();
            let hint = hint(topic, &names);
            problems.add(
                place.map_or_else(|| node.head(), |place| place.span.clone()),
                format!("the source does not read the topic {topic:?}; {hint}"),
            );
        }
    }
    let taken = |topic: &String| {
        config.sinks.iter().any(|sink| sink.topics.as_ref().is_none_or(|all| all.contains(topic)))
    };
    let list = root.get("source").and_then(|source| source.get("topics"));
    for topic in read.iter().filter(|topic| !taken(topic)) {
        problems.add(
            list.map_or(0..0, |list| list.span.clone()),
            format!("no sink takes the topic {topic:?}, so its records would be thrown away"),
        );
    }
}
