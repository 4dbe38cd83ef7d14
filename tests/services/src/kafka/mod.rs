//! A real Apache Kafka: one KRaft node with a plain and a SASL_SSL listener.

mod client;
mod config;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use tidelock_connector::Result;

pub use client::{KafkaClient, Message, TransactionalProducer};

use self::config::{Ports, USER};
use crate::install::{Installed, Part, install, java};
use crate::watch::{self, Spec, Watched};
use crate::{container, ports, with_port};

/// Cold starts on a busy machine take a while.
const READY_LIMIT: Duration = Duration::from_secs(90);

/// How long one attempt to log in may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The folder of the broker inside a container.
const IN_CONTAINER: &str = "/tidelock";

/// A running broker. It dies when this is dropped and when the process ends,
/// however it ends.
///
/// Topics, producers and offsets are at hand through [`KafkaClient`], which a
/// broker dereferences to.
#[derive(Debug)]
pub struct Kafka {
    client: KafkaClient,
    sasl: Sasl,
    server: Watched,
}

/// How to get in through the SASL_SSL listener.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// `host:port` of the listener.
    pub bootstrap: String,
    /// The certificate authority, a PEM file.
    pub ca: PathBuf,
    /// The mechanism, as librdkafka calls it.
    pub mechanism: &'static str,
    /// The user.
    pub username: &'static str,
    /// The user's password.
    pub password: &'static str,
}

impl Sasl {
    /// The start of a client's configuration.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("security.protocol", "sasl_ssl")
            .set("ssl.ca.location", self.ca.to_string_lossy())
            .set("sasl.mechanism", self.mechanism)
            .set("sasl.username", self.username)
            .set("sasl.password", self.password);
        config
    }

    fn is_ready(&self) -> bool {
        let mut config = self.config();
        config.set("log_level", "0");
        let client: KafkaResult<BaseConsumer> = config.create();
        client.is_ok_and(|client| client.fetch_metadata(None, ANSWER_LIMIT).is_ok())
    }
}

impl Kafka {
    /// Starts a broker of one's own, which may be killed and restarted.
    ///
    /// # Errors
    /// `Unsupported` where Kafka cannot be had (see
    /// [`or_skip`](crate::or_skip)); any other kind when it could be had and
    /// did not start.
    pub fn start_private() -> Result<Self> {
        Self::start(None)
    }

    /// Starts a broker whose plain listener is on `port`, or on a free one when
    /// somebody listens there.
    ///
    /// # Errors
    /// As for [`start_private`](Self::start_private).
    pub fn start_near(port: u16) -> Result<Self> {
        Self::start(Some(port))
    }

    fn start(port: Option<u16>) -> Result<Self> {
        let installed = install(Part::Kafka)?;
        with_port(port, |plain| {
            let ports = Ports { plain, sasl: ports::free()?, controller: ports::free()? };
            Self::start_on(&installed, ports)
        })
    }

    fn start_on(installed: &Installed, ports: Ports) -> Result<Self> {
        let dir = watch::scratch("Kafka")?;
        let mut server = Watched::new(&server_spec(installed, &dir, ports)?, &dir)?;
        let ca = config::certificates(&dir)?;
        let (bind, seen_as) = match installed {
            Installed::Image(_) => ("0.0.0.0", Path::new(IN_CONTAINER)),
            Installed::Path(_) => ("127.0.0.1", dir.as_path()),
        };
        let properties = config::properties(ports, bind, seen_as);
        config::write(&dir.join("server.properties"), &properties)?;
        watch::run(&format_spec(installed, &dir)?, READY_LIMIT)?;

        server.start()?;
        let client = KafkaClient::new(format!("127.0.0.1:{}", ports.plain));
        let (username, password) = USER;
        let bootstrap = format!("127.0.0.1:{}", ports.sasl);
        let sasl = Sasl { bootstrap, ca, mechanism: "SCRAM-SHA-512", username, password };
        let kafka = Self { client, sasl, server };
        kafka.wait_ready()?;
        Ok(kafka)
    }

    fn wait_ready(&self) -> Result<()> {
        // Users become known a moment after the listener that asks for them.
        self.server.wait_ready(READY_LIMIT, || self.client.is_ready() && self.sasl.is_ready())
    }

    /// A client that outlives borrows of the broker, and the broker itself.
    pub fn client(&self) -> &KafkaClient {
        &self.client
    }

    /// How to get in with TLS and SCRAM.
    pub fn sasl(&self) -> &Sasl {
        &self.sasl
    }

    /// The folder of the broker: its log, and the data until it is gone.
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// The process id of the broker.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Kills the broker with SIGKILL; connections to it are refused from now on.
    ///
    /// # Errors
    /// When the broker cannot be reached to be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Starts the broker again on the same ports and data, and waits until it
    /// answers. One that still runs is killed first.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn restart(&mut self) -> Result<()> {
        self.server.start()?;
        self.wait_ready()
    }

    /// Stops the broker from answering; connections stay open (SIGSTOP).
    ///
    /// # Errors
    /// When the broker cannot be reached to be paused.
    pub fn pause(&mut self) -> Result<()> {
        self.server.pause()
    }

    /// Lets a paused broker go on.
    ///
    /// # Errors
    /// When the broker cannot be reached to be resumed.
    pub fn resume(&mut self) -> Result<()> {
        self.server.resume()
    }

    /// Whether the broker process has ended without being asked to.
    pub fn has_died(&self) -> bool {
        self.server.exited().is_some()
    }
}

impl Deref for Kafka {
    type Target = KafkaClient;

    fn deref(&self) -> &KafkaClient {
        &self.client
    }
}

fn server_spec(installed: &Installed, dir: &Path, ports: Ports) -> Result<Spec> {
    Ok(match installed {
        Installed::Image(image) => container::spec("Kafka", image, dir, IN_CONTAINER)
            .publish([ports.plain, ports.sasl])
            .env("KAFKA_HEAP_OPTS", "-Xmx1g")
            .env("LOG_DIR", "/tmp/logs")
            .run(
                "/opt/kafka/bin/kafka-server-start.sh",
                [format!("{IN_CONTAINER}/server.properties")],
            ),
        Installed::Path(jars) => Spec::new("Kafka", native(jars, "-Xmx1g", "kafka.Kafka")?)
            .arg(dir.join("server.properties").to_string_lossy()),
    })
}

/// Formats the folder of a new broker, with the user already in it.
fn format_spec(installed: &Installed, dir: &Path) -> Result<Spec> {
    let (username, password) = USER;
    let name = "kafka-storage format";
    let (spec, properties) = match installed {
        Installed::Image(image) => (
            container::spec(name, image, dir, IN_CONTAINER)
                .env("LOG_DIR", "/tmp/logs")
                .run("/opt/kafka/bin/kafka-storage.sh", Vec::<String>::new()),
            format!("{IN_CONTAINER}/server.properties"),
        ),
        Installed::Path(jars) => (
            Spec::new(name, native(jars, "-Xmx256m", "kafka.tools.StorageTool")?),
            dir.join("server.properties").to_string_lossy().into_owned(),
        ),
    };
    Ok(spec
        .arg("format")
        .arg("--cluster-id")
        .arg(config::cluster_id())
        .arg("--config")
        .arg(properties)
        .arg("--add-scram")
        .arg(format!("SCRAM-SHA-512=[name={username},password={password}]")))
}

fn native(jars: &Path, heap: &str, class: &str) -> Result<Vec<String>> {
    let class_path = format!("{}/*", jars.display());
    let level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";
    let clock = "-Dorg.slf4j.simpleLogger.showDateTime=true";
    let date = "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS";
    let argv = [&java()?, heap, level, clock, date, "-cp", &class_path, class];
    Ok(argv.map(String::from).to_vec())
}
