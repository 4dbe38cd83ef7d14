//! Real S3 servers: MinIO, and versitygw as a second opinion.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidelock_connector::Result;

use crate::install::{Installed, Part, install};
use crate::watch::{self, Spec, Watched, failed};
use crate::{container, http, unique, with_port};

const READY_LIMIT: Duration = Duration::from_secs(60);

/// Served without credentials, so that being ready can be asked for.
const HEALTH: &str = "/minio/health/live";

/// The folder of the buckets inside a container.
const IN_CONTAINER: &str = "/tidelock/data";

/// Whose S3 server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Kind {
    /// MinIO.
    Minio,
    /// versitygw on a local folder.
    Versitygw,
}

impl S3Kind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Minio, Self::Versitygw];

    fn part(self) -> Part {
        match self {
            Self::Minio => Part::Minio,
            Self::Versitygw => Part::Versitygw,
        }
    }
}

/// A running S3 server. It dies when this is dropped and when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct S3 {
    kind: S3Kind,
    endpoint: String,
    buckets: PathBuf,
    server: Watched,
}

impl S3 {
    /// The access key of every server that this crate starts.
    pub const ACCESS_KEY: &'static str = "tidelock";
    /// The secret key that belongs to it.
    pub const SECRET_KEY: &'static str = "tidelock-secret";
    /// The region of every server that this crate starts.
    pub const REGION: &'static str = "us-east-1";

    /// Starts a server of one's own, which may be killed and restarted.
    ///
    /// # Errors
    /// `Unsupported` where it cannot be had (see [`or_skip`](crate::or_skip));
    /// any other kind when it could be had and did not start.
    pub fn start_private(kind: S3Kind) -> Result<Self> {
        Self::start(kind, None)
    }

    /// Starts a server on `port`, or on a free one when somebody listens there.
    ///
    /// # Errors
    /// As for [`start_private`](Self::start_private).
    pub fn start_near(kind: S3Kind, port: u16) -> Result<Self> {
        Self::start(kind, Some(port))
    }

    fn start(kind: S3Kind, port: Option<u16>) -> Result<Self> {
        let installed = install(kind.part())?;
        with_port(port, |port| {
            let dir = watch::scratch(kind.part().name())?;
            let mut server = Watched::new(&spec(kind, &installed, &dir, port), &dir)?;
            let buckets = dir.join("data");
            fs::create_dir(&buckets).map_err(|e| failed("cannot make a folder").source(e))?;
            server.start()?;
            let endpoint = format!("http://127.0.0.1:{port}");
            let s3 = Self { kind, endpoint, buckets, server };
            s3.wait_ready()?;
            Ok(s3)
        })
    }

    fn wait_ready(&self) -> Result<()> {
        let health = format!("{}{HEALTH}", self.endpoint);
        self.server.wait_ready(READY_LIMIT, || http::get(&health).is_ok())
    }

    /// Whose server this is.
    pub fn kind(&self) -> S3Kind {
        self.kind
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `host:port`, as a proxy's upstream.
    pub fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    /// The environment that an S3 client finds its keys in.
    pub fn env(&self) -> [(&'static str, &'static str); 3] {
        [
            ("AWS_ACCESS_KEY_ID", Self::ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", Self::SECRET_KEY),
            ("AWS_REGION", Self::REGION),
        ]
    }

    /// Makes a bucket of this name.
    ///
    /// # Errors
    /// When it exists already.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        // Both servers take a folder in their root for a bucket, and no client
        // library that is small can make one by request.
        fs::create_dir(self.buckets.join(name))
            .map_err(|e| failed("cannot make a bucket").with("bucket", name).source(e))
    }

    /// Makes a bucket whose name begins with `prefix` and that no other test
    /// uses; returns its name.
    ///
    /// # Errors
    /// When the server's folder is gone.
    pub fn bucket(&self, prefix: &str) -> Result<String> {
        let name = unique(prefix);
        self.create_bucket(&name)?;
        Ok(name)
    }

    /// The folder of the server: its log, and the data until it is gone.
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// The process id of the server.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Kills the server with SIGKILL; connections to it are refused from now on.
    ///
    /// # Errors
    /// When the server cannot be reached to be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Starts the server again on the same port and data, and waits until it
    /// answers. One that still runs is killed first.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn restart(&mut self) -> Result<()> {
        self.server.start()?;
        self.wait_ready()
    }

    /// Stops the server from answering; connections stay open (SIGSTOP).
    ///
    /// # Errors
    /// When the server cannot be reached to be paused.
    pub fn pause(&mut self) -> Result<()> {
        self.server.pause()
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    /// When the server cannot be reached to be resumed.
    pub fn resume(&mut self) -> Result<()> {
        self.server.resume()
    }

    /// Whether the server process has ended without being asked to.
    pub fn has_died(&self) -> bool {
        self.server.exited().is_some()
    }
}

fn spec(kind: S3Kind, installed: &Installed, dir: &Path, port: u16) -> Spec {
    let (bind, folder) = match installed {
        Installed::Image(_) => ("0.0.0.0", PathBuf::from(IN_CONTAINER)),
        Installed::Path(_) => ("127.0.0.1", dir.join("data")),
    };
    let address = format!("{bind}:{port}");
    let folder = folder.to_string_lossy();
    let args: Vec<&str> = match kind {
        S3Kind::Minio => vec!["server", "--quiet", "--address", &address, &folder],
        S3Kind::Versitygw => {
            vec!["--quiet", "--health", HEALTH, "--port", &address, "posix", &folder]
        }
    };
    let env: &[(&str, &str)] = match kind {
        S3Kind::Minio => &[
            ("MINIO_ROOT_USER", S3::ACCESS_KEY),
            ("MINIO_ROOT_PASSWORD", S3::SECRET_KEY),
            ("MINIO_BROWSER", "off"),
            // Asks the vendor's site for news otherwise.
            ("MINIO_UPDATE", "off"),
        ],
        S3Kind::Versitygw => {
            &[("ROOT_ACCESS_KEY", S3::ACCESS_KEY), ("ROOT_SECRET_KEY", S3::SECRET_KEY)]
        }
    };
    let name = kind.part().name();
    match installed {
        Installed::Image(image) => {
            let container = container::spec(name, image, dir, "/tidelock").publish([port]);
            let program = match kind {
                S3Kind::Minio => "minio",
                S3Kind::Versitygw => "versitygw",
            };
            env.iter().fold(container, |c, (key, value)| c.env(key, value)).run(program, args)
        }
        Installed::Path(program) => {
            let spec = Spec::new(name, [program.to_string_lossy()]);
            let spec = args.iter().fold(spec, |spec, arg| spec.arg(*arg));
            env.iter().fold(spec, |spec, (key, value)| spec.env(key, *value))
        }
    }
}
