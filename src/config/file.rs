//! `[[sink]] type = "parquet"` and `type = "file"`.

use std::sync::Arc;

use tidelock_file::{FileConfig, FileSink, Format};

use super::connectors::{Made, refused};
use super::de::read;
use super::node::Node;
use super::problem::Problems;

/// `own` are the keys that every sink has.
pub(super) fn sink(
    node: &Node,
    own: &[&'static str],
    parquet: bool,
    problems: &mut Problems,
) -> Option<Made> {
    let config: Option<FileConfig> = read(node, own, &[], problems);
    let fits = fits(node, parquet, problems);
    let mut config = config.filter(|_| fits)?;
    if parquet {
        config.format = Format::Parquet;
    }
    match FileSink::new(config) {
        Ok(file) => {
            Some(Made { summary: summary(&file), sink: Arc::new(file.clone()), file: Some(file) })
        }
        Err(error) => {
            refused(node, &error, problems);
            None
        }
    }
}

/// Whether there are just the keys that the type and the format have.
fn fits(node: &Node, parquet: bool, problems: &mut Problems) -> bool {
    match (parquet, node.get("format")) {
        (true, Some(format)) => {
            let message = format!(
                "unknown key \"format\" {}; type = \"parquet\" says it already, \
                 other formats have type = \"file\"",
                node.place
            );
            problems.add(format.key_span.clone(), message);
            false
        }
        (false, None) => {
            let place = &node.place;
            let message = format!("missing key \"format\" {place}: \"parquet\" or \"json\"");
            problems.add(node.head(), message);
            false
        }
        (false, Some(format)) if format.text() != Some("parquet") => match node.get("parquet") {
            Some(settings) => {
                let message = format!("`parquet` {} needs format = \"parquet\"", node.place);
                problems.add(settings.key_span.clone(), message);
                false
            }
            None => true,
        },
        _ => true,
    }
}

fn summary(sink: &FileSink) -> Vec<(&'static str, String)> {
    let config = sink.config();
    let format = match config.format {
        Format::Parquet => "parquet",
        Format::Json => "json lines",
    };
    let mut lines = vec![
        ("url", sink.store().url().to_owned()),
        ("format", format!("{format}, {}", config.codec())),
    ];
    if !config.partition_by.is_empty() {
        lines.push(("partitioned by", config.partition_by.join(", ")));
    }
    lines.push(("files up to", config.target_file_size.to_string()));
    lines
}
