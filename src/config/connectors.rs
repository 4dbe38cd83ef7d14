//! Sources and sinks: the `type` of a table decides which other keys it has.
//!
//! A further connector is one more arm in [`source`] or [`sink`].

use std::collections::BTreeSet;
use std::sync::Arc;

use tidelock_connector::{Error, Sink, Source as _, Stream};

use super::node::{Node, Value};
use super::problem::{Problems, hint};
use crate::pipeline::PipelineBuilder;

/// `[source]`.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// The source itself.
    pub source: AnySource,
    /// The topics that it was told to read; one that begins with `^` is a
    /// regular expression.
    pub topics: Vec<String>,
    /// Short lines for people: what it is and what it reads.
    pub summary: Vec<(&'static str, String)>,
}

/// A source of a known kind.
#[derive(Debug, Clone)]
pub enum AnySource {
    /// `type = "kafka"`.
    #[cfg(feature = "kafka")]
    Kafka(tidelock_kafka::KafkaSource),
}

impl AnySource {
    /// The streams that are known before the first record is read.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(source) => source.streams(),
        }
    }

    pub(super) fn attach(self, builder: PipelineBuilder) -> PipelineBuilder {
        let _ = &builder;
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(source) => builder.source(source),
        }
    }
}

/// One `[[sink]]`.
#[derive(Clone)]
pub struct SinkConfig {
    /// Its name.
    pub name: String,
    /// The topics that it takes; all of them when there are none.
    pub topics: Option<BTreeSet<String>>,
    /// The sink itself.
    pub sink: Arc<dyn Sink>,
    /// The same, where it writes files.
    #[cfg(feature = "file")]
    pub file: Option<tidelock_file::FileSink>,
    /// Short lines for people: what it is and where it writes.
    pub summary: Vec<(&'static str, String)>,
}

const SOURCES: &[&str] = &["kafka"];
const SINKS: &[&str] = &["parquet", "file"];

/// Reads `[source]`.
pub(super) fn source(
    node: &Node,
    pipeline: Option<&str>,
    problems: &mut Problems,
) -> Option<SourceConfig> {
    if !matches!(node.value, Value::Table(_)) {
        problems.add(node.span.clone(), "`source` must be a table: [source]");
        return None;
    }
    match type_of(node, SOURCES, problems)? {
        #[cfg(feature = "kafka")]
        "kafka" => super::kafka::source(node, pipeline, problems),
        other => {
            let _ = pipeline;
            not_built(node, other, problems)
        }
    }
}

/// Reads one `[[sink]]`.
pub(super) fn sink(node: &Node, problems: &mut Problems) -> Option<SinkConfig> {
    match type_of(node, SINKS, problems)? {
        #[cfg(feature = "file")]
        kind @ ("parquet" | "file") => super::file::sink(node, kind == "parquet", problems),
        other => not_built(node, other, problems),
    }
}

fn not_built<T>(node: &Node, kind: &str, problems: &mut Problems) -> Option<T> {
    let message = format!("this binary was built without the connector {kind:?}");
    problems.add(node.head(), message);
    None
}

/// The tag of a table, if it is one of `known`.
pub(super) fn type_of<'a>(
    node: &Node,
    known: &[&'a str],
    problems: &mut Problems,
) -> Option<&'a str> {
    let Some(tag) = node.get("type") else {
        let known = known.join("\" or \"");
        problems.add(node.head(), format!("missing key \"type\" {}: \"{known}\"", node.place));
        return None;
    };
    let Some(text) = tag.text() else {
        problems.add(tag.span.clone(), format!("`type` {} must be text in quotes", node.place));
        return None;
    };
    let found = known.iter().find(|known| **known == text).copied();
    if found.is_none() {
        let hint = hint(text, known);
        problems.add(tag.span.clone(), format!("unknown type {text:?} {}; {hint}", node.place));
    }
    found
}

/// A connector has found something wrong with its settings as a whole: the key
/// is pointed at that it speaks of, or else the value.
pub(super) fn refused(node: &Node, error: &Error, problems: &mut Problems) {
    let text = error.to_string();
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let words: Vec<&str> = text.split(|c| !part(c)).map(|w| w.trim_end_matches('.')).collect();
    let is_key = |child: &Node| child.key.as_deref().is_some_and(|key| words.contains(&key));
    let is_value = |child: &Node| child.text().is_some_and(|v| v.len() > 2 && text.contains(v));
    if let Some(child) = deepest(node, &is_key) {
        problems.add(child.key_span.clone(), text);
    } else if let Some(child) = longest(node, &is_value) {
        problems.add(child.span.clone(), text);
    } else {
        problems.add(node.head(), format!("{text} ({})", node.place));
    }
}

fn deepest<'a>(node: &'a Node, is_it: &dyn Fn(&Node) -> bool) -> Option<&'a Node> {
    let children = node.children().iter();
    children.clone().find_map(|child| deepest(child, is_it)).or_else(|| {
        let mut children = children;
        children.find(|child| is_it(child))
    })
}

fn longest<'a>(node: &'a Node, is_it: &dyn Fn(&Node) -> bool) -> Option<&'a Node> {
    let below = node.children().iter().filter_map(|child| longest(child, is_it));
    let here = node.children().iter().filter(|child| is_it(child));
    below.chain(here).max_by_key(|child| child.text().map_or(0, str::len))
}

/// The keys that every sink has beside its `type`.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Common {
    pub(super) name: String,
    #[serde(default)]
    pub(super) topics: Option<BTreeSet<String>>,
}

/// The names of those keys.
pub(super) const COMMON: &[&str] = &["type", "name", "topics"];
