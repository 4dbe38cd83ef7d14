//! What `up` prints: a pipeline.toml that works with the servers, and in its
//! comments all that a person wants to know of them.

use std::fmt::Write;

use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_json::sample;
use tidelock_services::{Kafka, S3};

/// The whole text. It is a complete pipeline where both servers run.
pub(crate) fn describe(
    kafka: Option<&Kafka>,
    s3: Option<&S3>,
    topic: &str,
    bucket: &str,
    sasl: bool,
) -> Result<String> {
    let mut text = String::new();
    compose(&mut text, kafka, s3, topic, bucket, sasl)
        .map_err(|e| Error::new(ErrorKind::Other, "cannot write the pipeline").source(e))?;
    Ok(text)
}

fn compose(
    out: &mut String,
    kafka: Option<&Kafka>,
    s3: Option<&S3>,
    topic: &str,
    bucket: &str,
    sasl: bool,
) -> std::fmt::Result {
    if let Some(kafka) = kafka {
        let (pid, folder) = (kafka.pid().unwrap_or_default(), kafka.folder().display());
        writeln!(out, "# Kafka  {}  (process {pid}, folder {folder})", kafka.bootstrap())?;
        let sasl = kafka.sasl();
        writeln!(out, "#        {}  with {} over TLS", sasl.bootstrap, sasl.mechanism)?;
        writeln!(out, "#        user {}, password {}", sasl.username, sasl.password)?;
        writeln!(out, "#        authority {}", sasl.ca.display())?;
    }
    if let Some(s3) = s3 {
        let (pid, folder) = (s3.pid().unwrap_or_default(), s3.folder().display());
        writeln!(out, "# S3     {}  (process {pid}, folder {folder})", s3.endpoint())?;
        writeln!(out, "#        bucket {bucket}")?;
        for (key, value) in s3.env() {
            writeln!(out, "# export {key}={value}")?;
        }
    }
    writeln!(out, "# Ctrl-C stops everything and deletes the data.")?;
    if kafka.is_some() && s3.is_some() {
        writeln!(out, "#\n# Save this as pipeline.toml, then: tidelock run pipeline.toml\n")?;
        writeln!(out, "name = \"{topic}-to-lake\"")?;
    }
    if let Some(kafka) = kafka {
        source(out, kafka, topic, sasl)?;
    }
    if let Some(s3) = s3 {
        sink(out, s3, topic, bucket)?;
    }
    Ok(())
}

fn source(out: &mut String, kafka: &Kafka, topic: &str, sasl: bool) -> std::fmt::Result {
    let brokers = if sasl { &kafka.sasl().bootstrap } else { kafka.bootstrap() };
    writeln!(out, "\n[source]\ntype = \"kafka\"\nbrokers = \"{brokers}\"")?;
    writeln!(out, "group_id = \"{topic}-to-lake\"\ntopics = [\"{topic}\"]")?;
    writeln!(out, "start = \"earliest\"")?;
    if sasl {
        let s = kafka.sasl();
        let (user, password) = (s.username, s.password);
        let (mechanism, ca) = (s.mechanism, quoted(&s.ca.to_string_lossy()));
        writeln!(out, "\n[source.security]\nprotocol = \"sasl_ssl\"")?;
        writeln!(out, "mechanism = \"{mechanism}\"\nusername = \"{user}\"")?;
        writeln!(out, "password = \"{password}\"\nca = {ca}")?;
    }
    writeln!(out, "\n[source.format]\ntype = \"json\"\nschema = {}", sample::COLUMNS)
}

fn sink(out: &mut String, s3: &S3, topic: &str, bucket: &str) -> std::fmt::Result {
    writeln!(out, "\n[[sink]]\nname = \"lake\"\ntype = \"parquet\"")?;
    writeln!(out, "url = \"s3://{bucket}/{topic}\"")?;
    // The keys come from the environment.
    let endpoint = s3.endpoint();
    writeln!(out, "storage = {{ endpoint = \"{endpoint}\", allow_http = true }}")?;
    writeln!(out, "compression = \"zstd(1)\"")?;
    writeln!(out, "\n[checkpoint]\ninterval = \"10s\"")
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
