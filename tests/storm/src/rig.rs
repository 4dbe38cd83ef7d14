//! What a storm rages in: a topic, a bucket, the way between worker and store,
//! and the pipeline file that puts them together.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_services::{KafkaClient, Proxy, S3, Toxiproxy, unique};

use crate::proxy::{FaultProxy, Rates};

/// How many partitions the topic has unless it is said.
pub const PARTITIONS: i32 = 8;

/// Below this a silent member is still a member unless it is said. The broker
/// must allow it.
pub const SESSION_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The program under test.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    env: Option<(String, String)>,
}

impl Program {
    /// The `tidelock` binary itself.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), env: None }
    }

    /// Sets a variable that makes an executable be `tidelock`.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env = Some((key.to_owned(), value.to_owned()));
        self
    }

    /// A command with nothing of our own environment that changes what it does.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.envs(self.env.iter().map(|(key, value)| (key, value))).stdin(Stdio::null());
        for key in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "NO_COLOR"] {
            command.env_remove(key);
        }
        command
    }
}

/// What is to be in the pipeline file beside the usual.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// The faults between worker and store; the proxy that makes them is there
    /// when this is given, so that it can be asked for faults later.
    pub faults: Option<Rates>,
    /// Passed through to librdkafka.
    pub librdkafka: BTreeMap<String, String>,
    /// How long the group waits for a member to give up partitions.
    pub max_poll_interval: Duration,
    /// Fencing is switched off: the control.
    pub unfenced: bool,
    /// The memory budget of a process, as the pipeline file has it.
    pub memory: &'static str,
    /// How many members a process is.
    pub workers: u32,
    /// How many partitions the topic has.
    pub partitions: i32,
    /// Below this a silent member is still a member.
    pub session_timeout: Duration,
}

impl Plan {
    /// No faults, classic protocol, fenced.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            faults: None,
            librdkafka: BTreeMap::new(),
            max_poll_interval: Duration::from_secs(30),
            unfenced: false,
            memory: "64MiB",
            workers: 1,
            partitions: PARTITIONS,
            session_timeout: SESSION_TIMEOUT,
        }
    }
}

/// See the module's documentation. Proxies end when it is dropped.
#[derive(Debug)]
pub struct Rig {
    /// The program under test.
    pub program: Program,
    /// The broker.
    pub kafka: KafkaClient,
    /// The topic, which is the pipeline's and the group's name too.
    pub topic: String,
    /// The bucket.
    pub bucket: String,
    /// The store itself.
    pub endpoint: String,
    /// The plan.
    pub plan: Plan,
    /// Between worker and store, where faults were planned.
    pub faults: Option<FaultProxy>,
    /// Behind it, where a Toxiproxy was given.
    pub toxics: Option<Proxy>,
    folder: tempfile::TempDir,
}

impl Rig {
    /// Makes a topic, a bucket and the pipeline file.
    ///
    /// # Errors
    /// When a service refuses.
    pub fn new(
        program: Program,
        kafka: &KafkaClient,
        s3: &S3,
        toxiproxy: Option<&Toxiproxy>,
        plan: Plan,
    ) -> Result<Self> {
        let topic = unique("storm");
        kafka.create_topic(&topic, plan.partitions, &[])?;
        let toxics = toxiproxy.map(|toxiproxy| toxiproxy.proxy(s3.address())).transpose()?;
        let faults = match &plan.faults {
            Some(rates) => {
                let upstream = toxics.as_ref().map_or(s3.address(), Proxy::address);
                Some(FaultProxy::start(upstream, plan.seed, rates.clone())?)
            }
            None => None,
        };
        let rig = Self {
            program,
            kafka: kafka.clone(),
            bucket: s3.bucket("storm")?,
            topic,
            endpoint: s3.endpoint().to_owned(),
            plan,
            faults,
            toxics,
            folder: tempfile::Builder::new().prefix("tidelock-storm-").tempdir().map_err(io)?,
        };
        let through = match (&rig.faults, &rig.toxics) {
            (Some(faults), _) => faults.endpoint(),
            (None, Some(toxics)) => toxics.endpoint(),
            (None, None) => rig.endpoint.clone(),
        };
        std::fs::write(rig.pipeline(), rig.toml(&through)?).map_err(io)?;
        std::fs::write(rig.folder().join("direct.toml"), rig.toml(&rig.endpoint)?).map_err(io)?;
        Ok(rig)
    }

    /// Where logs and phase files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder with the logs; says where it is.
    pub fn keep(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// The pipeline file of the workers.
    pub fn pipeline(&self) -> PathBuf {
        self.folder().join("pipeline.toml")
    }

    /// A command of the program; `direct` passes the proxies by.
    pub fn command(&self, verb: &str, direct: bool, arguments: &[&str]) -> Command {
        let mut command = self.program.command();
        let file = if direct { "direct.toml" } else { "pipeline.toml" };
        command.arg(verb).arg(self.folder().join(file)).args(arguments);
        command.env("AWS_ACCESS_KEY_ID", S3::ACCESS_KEY);
        command.env("AWS_SECRET_ACCESS_KEY", S3::SECRET_KEY);
        command.env("AWS_REGION", S3::REGION);
        if self.plan.unfenced {
            command.env("TIDELOCK_UNFENCED", "1");
        }
        command
    }

    /// Runs `verify` once, past the proxies.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn verify(&self) -> Result<Output> {
        self.command("verify", true, &[]).output().map_err(io)
    }

    fn toml(&self, endpoint: &str) -> Result<String> {
        let Self { kafka, topic, bucket, plan, .. } = self;
        let brokers = kafka.bootstrap();
        let session = plan.session_timeout.as_millis();
        let Plan { memory, workers, .. } = plan;
        let poll = plan.max_poll_interval.as_millis();
        let mut passed = String::new();
        for (key, value) in &plan.librdkafka {
            let comma = if passed.is_empty() { "" } else { ", " };
            write!(passed, "{comma}\"{key}\" = \"{value}\"")
                .map_err(|e| Error::new(ErrorKind::Other, "cannot write the pipeline").source(e))?;
        }
        // Several files per set: what is between two publishes must exist.
        Ok(format!(
            r#"name = "{topic}"
[source]
type = "kafka"
brokers = "{brokers}"
topics = ["{topic}"]
start = "earliest"
session_timeout = "{session}ms"
max_poll_interval = "{poll}ms"
librdkafka = {{ {passed} }}
[source.format]
type = "json"
schema = [
  {{ name = "number", type = "int64" }},
  {{ name = "shade", type = "utf8" }},
  {{ name = "body", type = "utf8" }},
]
[checkpoint]
interval = "1s"
[runtime]
memory = "{memory}"
workers = {workers}
[[sink]]
name = "lake"
type = "parquet"
compression = "zstd(1)"
partition_by = ["shade"]
url = "s3://{bucket}/events"
storage = {{ endpoint = "{endpoint}", allow_http = true }}
"#
        ))
    }
}

pub(crate) fn io(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Other, "a file or a process of the storm failed").source(error)
}
