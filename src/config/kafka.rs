//! `[source] type = "kafka"`.

use std::sync::Arc;

use serde::Deserialize;
use tidelock_connector::Source as _;
use tidelock_json::ColumnSpec;
use tidelock_kafka::{FormatConfig, KafkaConfig, KafkaSource};

use super::connectors::{SourceConfig, refused, type_of};
use super::de::read;
use super::node::Node;
use super::problem::Problems;

const FORMATS: &[&str] = &["json", "raw"];

pub(super) fn source(
    node: &Node,
    pipeline: Option<&str>,
    problems: &mut Problems,
) -> Option<SourceConfig> {
    let wrong: Vec<usize> = node
        .get("format")
        .filter(|format| !format_is_right(format, problems))
        .map(|format| format.id)
        .into_iter()
        .collect();
    let config: KafkaConfig = read(node, &["type"], &wrong, problems)?;
    let topics = config.topics.clone();
    let summary = summary(&config, pipeline.unwrap_or_default());
    match KafkaSource::new(config, pipeline.unwrap_or("-")) {
        Ok(source) => Some(SourceConfig {
            group: Some(Arc::new(source.admin())),
            topics,
            streams: source.streams(),
            summary,
            fairness: source.fairness(),
            attach: Arc::new(move |builder| builder.source(source.clone())),
        }),
        Err(error) => {
            refused(node, &error, problems);
            None
        }
    }
}

fn summary(config: &KafkaConfig, pipeline: &str) -> Vec<(&'static str, String)> {
    let format = match &config.format {
        FormatConfig::Json { schema } => format!("json, {} columns", schema.len()),
        FormatConfig::Raw {} => "raw".to_owned(),
    };
    vec![
        ("type", "kafka".to_owned()),
        ("brokers", config.brokers.join(", ")),
        ("topics", config.topics.join(", ")),
        ("group", config.group_id.as_deref().unwrap_or(pipeline).to_owned()),
        ("format", format),
    ]
}

#[derive(Deserialize)]
struct JsonFormat {
    #[serde(default)]
    schema: Option<Vec<ColumnSpec>>,
}

#[derive(Deserialize)]
struct RawFormat {}

/// Looks at `format` on its own: what serde says of an enum with a tag inside
/// has lost its place.
fn format_is_right(node: &Node, problems: &mut Problems) -> bool {
    if !matches!(node.value, super::node::Value::Table(_)) {
        let example = "{ type = \"json\", schema = [ … ] }";
        problems.add(node.span.clone(), format!("`format` {} is a table: {example}", node.within));
        return false;
    }
    match type_of(node, FORMATS, problems) {
        Some("json") => {
            let format: Option<JsonFormat> = read(node, &["type"], &[], problems);
            let Some(JsonFormat { schema }) = format else { return false };
            let Some((list, columns)) = node.get("schema").zip(schema) else {
                problems.add(node.head(), format!("missing key \"schema\" {}", node.place));
                return false;
            };
            columns_are_right(list, &columns, problems)
        }
        Some(_) => read::<RawFormat>(node, &["type"], &[], problems).is_some(),
        None => false,
    }
}

/// Every column by itself, then all together.
fn columns_are_right(list: &Node, columns: &[ColumnSpec], problems: &mut Problems) -> bool {
    let mut right = true;
    for (column, node) in columns.iter().zip(list.children()) {
        if let Err(error) = tidelock_json::to_arrow(std::slice::from_ref(column)) {
            let place = type_in(node, error.message()).unwrap_or(node);
            problems.add(place.span.clone(), error.to_string());
            right = false;
        }
    }
    if right && let Err(error) = tidelock_json::to_arrow(columns) {
        problems.add(list.head(), error.to_string());
        right = false;
    }
    right
}

/// The type that a message quotes.
fn type_in<'a>(node: &'a Node, message: &str) -> Option<&'a Node> {
    let quoted = |text: &str| message.contains(&format!("{text:?}"));
    let mut children = node.children().iter();
    children.find_map(|child| match (child.key.as_deref(), child.text()) {
        (Some("type"), Some(text)) if quoted(text) => Some(child),
        _ => type_in(child, message),
    })
}
