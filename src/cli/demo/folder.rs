//! The folder that a demo leaves behind.

use std::fs;
use std::path::{Path, PathBuf};

use tidelock_connector::{Error, Result};
use tidelock_json::sample;

pub(super) const TOPIC: &str = "shop-events";
pub(super) const PIPELINE: &str = "shop-events-to-parquet";

/// Says that the folder belongs to a demo, which may empty it.
const MARK: &str = ".tidelock-demo";

/// Where everything goes.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) data: PathBuf,
    pub(super) pipeline: PathBuf,
    pub(super) log: PathBuf,
}

impl Folder {
    /// Makes the folder, or empties the one of an earlier demo.
    ///
    /// # Errors
    /// Somebody else's files are in it.
    pub(super) fn prepare(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::config("the folder for the demo cannot be used; choose another one with --dir")
                .object(path.display())
                .source(e)
        };
        fs::create_dir_all(path).map_err(failed)?;
        let root = fs::canonicalize(path).map_err(failed)?;
        let folder = Self {
            data: root.join("events"),
            pipeline: root.join("pipeline.toml"),
            log: root.join("worker.log"),
            root,
        };
        let mark = folder.root.join(MARK);
        if mark.exists() {
            if folder.data.exists() {
                fs::remove_dir_all(&folder.data).map_err(failed)?;
            }
        } else if fs::read_dir(&folder.root).map_err(failed)?.next().is_some() {
            return Err(Error::config(
                "the folder for the demo is not empty; choose another one with --dir",
            )
            .object(path.display()));
        }
        fs::write(&mark, "made by `tidelock demo`, which empties this folder\n").map_err(failed)?;
        fs::write(&folder.log, "").map_err(failed)?;
        Ok(folder)
    }

    /// Writes a pipeline that people can keep.
    pub(super) fn write_pipeline(&self, brokers: &str) -> Result<()> {
        let url = url::Url::from_directory_path(&self.data)
            .map_err(|()| Error::config("the folder has no url").object(self.data.display()))?;
        let text = pipeline(brokers, url.as_str().trim_end_matches('/'));
        fs::write(&self.pipeline, text).map_err(|e| {
            Error::config("cannot write the pipeline").object(self.pipeline.display()).source(e)
        })
    }
}

fn pipeline(brokers: &str, url: &str) -> String {
    let columns = sample::COLUMNS;
    let (brokers, url) = (quoted(brokers), quoted(url));
    format!(
        r#"# What `tidelock demo` ran. Its broker has gone; the files are still there:
#   tidelock verify pipeline.toml

name = "{PIPELINE}"

[source]
type = "kafka"
brokers = {brokers}
topics = ["{TOPIC}"]
session_timeout = "4s"      # a killed worker is missed soon; 45s unless said
coordinates = ["_topic", "_partition", "_offset", "_timestamp"]

[source.format]
type = "json"
schema = {columns}

[[sink]]
name = "files"
type = "parquet"
url = {url}

[checkpoint]
interval = "1s"
"#
    )
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_pipeline_is_a_good_one() {
        let text = pipeline("127.0.0.1:1", "memory:///demo");
        let config = Config::parse(Path::new("p.toml"), &text, &|_| None);
        let config = config.map_err(|errors| errors.to_string()).unwrap();
        let schema = &config.source.streams[0].schema;
        assert_eq!(schema.fields()[..8], sample::schema().fields()[..]);
    }

    #[test]
    fn only_a_demo_s_own_folder_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo");
        let first = Folder::prepare(&path).unwrap();
        fs::create_dir(&first.data).unwrap();
        fs::write(first.data.join("x.parquet"), "x").unwrap();
        let second = Folder::prepare(&path).unwrap();
        assert!(!second.data.exists());

        fs::remove_file(second.root.join(MARK)).unwrap();
        let error = Folder::prepare(&path).unwrap_err();
        assert!(error.to_string().contains("--dir"), "{error}");
        assert!(second.pipeline.parent().unwrap().exists());
    }
}
