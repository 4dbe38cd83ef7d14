//! A TCP proxy that delays, cuts, throttles and resets.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidelock_connector::Result;

use crate::install::{Installed, Part, install};
use crate::watch::{self, Spec, Watched};
use crate::{container, http, ports, unique, with_port};

const READY_LIMIT: Duration = Duration::from_secs(30);

/// A running Toxiproxy. It dies when this is dropped and when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct Toxiproxy {
    api: String,
    _server: Watched,
}

impl Toxiproxy {
    /// Starts one.
    ///
    /// # Errors
    /// `Unsupported` where it cannot be had (see [`or_skip`](crate::or_skip));
    /// any other kind when it could be had and did not start.
    pub fn start_private() -> Result<Self> {
        let installed = install(Part::Toxiproxy)?;
        with_port(None, |port| {
            let dir = watch::scratch("Toxiproxy")?;
            let mut server = Watched::new(&spec(&installed, &dir, port), &dir)?;
            server.start()?;
            let api = format!("http://127.0.0.1:{port}");
            let version = format!("{api}/version");
            server.wait_ready(READY_LIMIT, || http::get(&version).is_ok())?;
            Ok(Self { api, _server: server })
        })
    }

    /// A new proxy on a free port, in front of `upstream` (`host:port`).
    ///
    /// # Errors
    /// When Toxiproxy refuses or does not answer.
    pub fn proxy(&self, upstream: &str) -> Result<Proxy> {
        let address = format!("127.0.0.1:{}", ports::free()?);
        let name = unique("proxy");
        let wanted = json!({ "name": name, "listen": address, "upstream": upstream });
        http::post(&format!("{}/proxies", self.api), &wanted)?;
        let url = format!("{}/proxies/{name}", self.api);
        Ok(Proxy { url, address, toxics: AtomicU32::new(0) })
    }
}

/// One proxy; it is removed when this is dropped, with all its connections.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    address: String,
    toxics: AtomicU32,
}

/// Which half of a connection a toxic works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What the client sends: requests.
    Upstream,
    /// What the server sends: answers.
    Downstream,
}

/// What a proxy does to the bytes that pass through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toxic {
    /// Delays them, give or take the jitter.
    Latency {
        /// The delay.
        delay: Duration,
        /// How much it varies.
        jitter: Duration,
    },
    /// Lets so many kilobytes through per second.
    Bandwidth {
        /// The rate.
        kilobytes_per_second: u64,
    },
    /// Swallows them, and closes the connection after a time; never when the
    /// time is zero.
    Timeout(Duration),
    /// Resets the connection after a time.
    Reset(Duration),
    /// Closes the connection after so many bytes.
    LimitData {
        /// How many.
        bytes: u64,
    },
}

/// A toxic that was added.
#[derive(Debug)]
#[must_use = "the toxic stays until it is removed or the proxy is dropped"]
pub struct AddedToxic {
    url: String,
}

impl AddedToxic {
    /// Takes the toxic away again.
    ///
    /// # Errors
    /// When Toxiproxy does not answer.
    pub fn remove(self) -> Result<()> {
        http::delete(&self.url)
    }
}

impl Proxy {
    /// `host:port` to connect to instead of the upstream.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address as a URL, for S3 clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a toxic that hits each connection with probability `toxicity`
    /// (1.0: every one).
    ///
    /// # Errors
    /// When Toxiproxy refuses or does not answer.
    pub fn add(&self, direction: Direction, toxic: Toxic, toxicity: f64) -> Result<AddedToxic> {
        let (kind, attributes) = toxic.wire();
        let stream = match direction {
            Direction::Upstream => "upstream",
            Direction::Downstream => "downstream",
        };
        let name = format!("toxic{}", self.toxics.fetch_add(1, Ordering::Relaxed));
        let wanted = json!({
            "name": name, "type": kind, "stream": stream,
            "toxicity": toxicity, "attributes": attributes,
        });
        let toxics = format!("{}/toxics", self.url);
        http::post(&toxics, &wanted)?;
        Ok(AddedToxic { url: format!("{toxics}/{name}") })
    }

    /// Closes every connection and refuses new ones until
    /// [`mend`](Self::mend).
    ///
    /// # Errors
    /// When Toxiproxy does not answer.
    pub fn cut(&self) -> Result<()> {
        http::post(&self.url, &json!({ "enabled": false })).map(drop)
    }

    /// Accepts connections again.
    ///
    /// # Errors
    /// When Toxiproxy does not answer.
    pub fn mend(&self) -> Result<()> {
        http::post(&self.url, &json!({ "enabled": true })).map(drop)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may be gone with its server already.
        let _ = http::delete(&self.url);
    }
}

impl Toxic {
    /// Type and attributes in Toxiproxy's terms.
    fn wire(self) -> (&'static str, Value) {
        let millis = |time: Duration| time.as_millis() as u64;
        match self {
            Self::Latency { delay, jitter } => {
                ("latency", json!({ "latency": millis(delay), "jitter": millis(jitter) }))
            }
            Self::Bandwidth { kilobytes_per_second } => {
                ("bandwidth", json!({ "rate": kilobytes_per_second }))
            }
            Self::Timeout(time) => ("timeout", json!({ "timeout": millis(time) })),
            Self::Reset(time) => ("reset_peer", json!({ "timeout": millis(time) })),
            Self::LimitData { bytes } => ("limit_data", json!({ "bytes": bytes })),
        }
    }
}

fn spec(installed: &Installed, dir: &Path, port: u16) -> Spec {
    let args = ["-host=127.0.0.1".to_owned(), format!("-port={port}")];
    match installed {
        Installed::Image(image) => container::spec("Toxiproxy", image, dir, "/tidelock")
            .host_network()
            .run("/toxiproxy", args),
        Installed::Path(program) => {
            let spec = Spec::new("Toxiproxy", [program.to_string_lossy()]);
            args.into_iter().fold(spec, Spec::arg)
        }
    }
}
