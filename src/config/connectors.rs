//! Sources and sinks: the `type` of a table decides which other keys it has.
//!
//! A further connector is one more arm in [`source`] or [`sink`].

use std::collections::BTreeSet;
use std::sync::Arc;

use tidelock_connector::{Sink, Stream};

use super::de::read_some;
use super::node::{Node, Value};
use super::problem::{Problems, hint};
use crate::offsets::Group;
use crate::pipeline::PipelineBuilder;

/// `[source]`.
#[derive(Clone)]
pub struct SourceConfig {
    /// The topics that it was told to read; one that begins with `^` is a
    /// regular expression.
    pub topics: Vec<String>,
    /// The streams that are known before the first record is read.
    pub streams: Vec<Arc<Stream>>,
    /// Short lines for people: what it is and what it reads.
    pub summary: Vec<(&'static str, String)>,
    /// The consumer group, asked from outside, where the source has one.
    pub group: Option<Arc<dyn Group>>,
    /// How fairly its partitions are served.
    #[cfg(feature = "kafka")]
    pub fairness: tidelock_kafka::Fairness,
    pub(super) attach: Attach,
}

/// Makes the source that of a pipeline.
pub(super) type Attach = Arc<dyn Fn(PipelineBuilder) -> PipelineBuilder + Send + Sync>;

/// One `[[sink]]`.
#[derive(Clone)]
pub struct SinkConfig {
    /// Its name.
    pub name: String,
    /// The topics that it takes; all of them when there are none.
    pub topics: Option<BTreeSet<String>>,
    /// What the pipeline writes to.
    pub sink: Arc<dyn Sink>,
    /// The same, where it writes files.
    #[cfg(feature = "file")]
    pub file: Option<tidelock_file::FileSink>,
    /// Short lines for people: what it is and where it writes.
    pub summary: Vec<(&'static str, String)>,
}

/// A sink, as the part of the code made it that knows its type.
pub(super) struct Made {
    pub(super) sink: Arc<dyn Sink>,
    #[cfg(feature = "file")]
    pub(super) file: Option<tidelock_file::FileSink>,
    pub(super) summary: Vec<(&'static str, String)>,
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
    // The other keys are judged by the sink's own struct.
    let common: Option<Common> = read_some(node, problems);
    let kind = type_of(node, SINKS, problems)?;
    let made: Option<Made> = match kind {
        #[cfg(feature = "file")]
        "parquet" | "file" => super::file::sink(node, COMMON, kind == "parquet", problems),
        other => not_built(node, other, problems),
    };
    let (Common { name, topics }, made) = common.zip(made)?;
    Some(SinkConfig {
        name,
        topics,
        sink: made.sink,
        #[cfg(feature = "file")]
        file: made.file,
        summary: made.summary,
    })
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
#[cfg(any(feature = "kafka", feature = "file"))]
pub(super) fn refused(node: &Node, error: &tidelock_connector::Error, problems: &mut Problems) {
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

#[cfg(any(feature = "kafka", feature = "file"))]
fn deepest<'a>(node: &'a Node, is_it: &dyn Fn(&Node) -> bool) -> Option<&'a Node> {
    let children = node.children().iter();
    children.clone().find_map(|child| deepest(child, is_it)).or_else(|| {
        let mut children = children;
        children.find(|child| is_it(child))
    })
}

#[cfg(any(feature = "kafka", feature = "file"))]
fn longest<'a>(node: &'a Node, is_it: &dyn Fn(&Node) -> bool) -> Option<&'a Node> {
    let below = node.children().iter().filter_map(|child| longest(child, is_it));
    let here = node.children().iter().filter(|child| is_it(child));
    below.chain(here).max_by_key(|child| child.text().map_or(0, str::len))
}

/// What every sink has beside its `type`.
#[derive(Debug, serde::Deserialize)]
struct Common {
    name: String,
    #[serde(default)]
    topics: Option<BTreeSet<String>>,
}

/// The keys of that.
#[cfg(feature = "file")]
const COMMON: &[&str] = &["type", "name", "topics"];
