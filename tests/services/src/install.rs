//! Gets the servers: as container images where Docker runs, else Kafka from
//! Maven artifacts and the rest built with Go.
//!
//! What is built lands in a cache folder of the user, each part under its
//! version, by a rename of something complete: a build that is cut off leaves
//! nothing that looks finished. A file lock lets one process build at a time.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tidelock_connector::{Error, ErrorKind, Result};

use crate::watch::{self, Spec, failed};

/// How long one download or build may take.
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A server that this crate can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Apache Kafka.
    Kafka,
    /// MinIO, an S3 server.
    Minio,
    /// versitygw, a second S3 server of other authors.
    Versitygw,
    /// Toxiproxy, a TCP proxy that delays, cuts and resets.
    Toxiproxy,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 4] = [Self::Kafka, Self::Minio, Self::Versitygw, Self::Toxiproxy];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Minio => "MinIO",
            Self::Versitygw => "versitygw",
            Self::Toxiproxy => "Toxiproxy",
        }
    }

    /// The same images stand in docker-compose.yml.
    fn image(self) -> &'static str {
        match self {
            Self::Kafka => "apache/kafka:4.1.0",
            Self::Minio => "minio/minio:RELEASE.2025-09-07T16-13-09Z",
            Self::Versitygw => "versity/versitygw:v1.8.0",
            Self::Toxiproxy => "ghcr.io/shopify/toxiproxy:2.5.0",
        }
    }

    /// Package and version for `go install`.
    fn go_package(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Kafka => None,
            Self::Minio => Some(("github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c")),
            Self::Versitygw => Some(("github.com/versity/versitygw/cmd/versitygw", "v1.8.0")),
            Self::Toxiproxy => Some(("github.com/Shopify/toxiproxy/v2/cmd/server", "v2.5.0")),
        }
    }
}

/// Where an installed part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    /// A container image.
    Image(&'static str),
    /// An executable, or for Kafka the folder of its jars.
    Path(PathBuf),
}

/// Makes sure that a part can be started; takes minutes the first time.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where neither Docker nor the tools to build the
/// part can be had; the message says why.
pub fn install(part: Part) -> Result<Installed> {
    let mut refusals = Vec::new();
    // The proxy must reach servers on our loopback: only Linux can give a
    // container the network of its host.
    if part != Part::Toxiproxy || cfg!(target_os = "linux") {
        match docker().and_then(|()| pull(part)) {
            Ok(image) => return Ok(Installed::Image(image)),
            Err(why) => refusals.push(why),
        }
    }
    let built = match part.go_package() {
        None => kafka_from_maven(),
        Some((package, version)) => go_install(part, package, version),
    };
    built.map(Installed::Path).map_err(|why| {
        refusals.push(why);
        let refusals: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        Error::new(ErrorKind::Unsupported, refusals.join("; "))
    })
}

/// Whether a Docker engine answers; asked once.
fn docker() -> Result<()> {
    static ANSWER: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let answer = ANSWER.get_or_init(|| match env::var("TIDELOCK_SERVICES").as_deref() {
        Ok("native") => Err("not wanted (TIDELOCK_SERVICES=native)".to_owned()),
        // A client without an engine is common: the client alone says nothing.
        _ => watch::run(&Spec::new("docker info", ["docker", "info"]), Duration::from_secs(10))
            .map_err(|_| "no engine answers".to_owned()),
    });
    answer.clone().map_err(|why| failed(format!("Docker: {why}")))
}

fn pull(part: Part) -> Result<&'static str> {
    let image = part.image();
    let present = Spec::new("docker image", ["docker", "image", "inspect", image]);
    if watch::run(&present, Duration::from_secs(30)).is_err() {
        say(&format!("pulling {image}"));
        watch::run(&Spec::new("docker pull", ["docker", "pull", "--quiet", image]), INSTALL_LIMIT)?;
    }
    Ok(image)
}

fn kafka_from_maven() -> Result<PathBuf> {
    java()?;
    // The number behind the plus counts changes of the pom.
    cached("kafka-4.1.0+1", |fresh| {
        needs("mvn")?;
        say("downloading Apache Kafka 4.1.0 with Maven");
        fs::create_dir_all(fresh).map_err(|e| cache_error(fresh, e))?;
        let pom = fresh.join("pom.xml");
        fs::write(&pom, include_str!("pom.xml")).map_err(|e| cache_error(&pom, e))?;
        let copy = Spec::new(
            "mvn",
            [
                "mvn",
                "--batch-mode",
                "--quiet",
                "--file",
                &pom.to_string_lossy(),
                "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
                "-DincludeScope=runtime",
                &format!("-DoutputDirectory={}", fresh.display()),
            ],
        );
        watch::run(&copy, INSTALL_LIMIT)
    })
}

fn go_install(part: Part, package: &str, version: &str) -> Result<PathBuf> {
    let name = part.name();
    cached(&format!("{}-{version}", name.to_lowercase()), |fresh| {
        needs("go")?;
        say(&format!("building {name} {version} with Go (up to a few minutes, once)"));
        let bin = fresh.with_extension("gobin");
        let build = Spec::new("go install", ["nice", "-n", "10", "go", "install"])
            .env("GOBIN", bin.to_string_lossy())
            .env("CGO_ENABLED", "0")
            .arg(format!("{package}@{version}"));
        watch::run(&build, INSTALL_LIMIT)?;
        let program = package.rsplit('/').next().unwrap_or(package);
        fs::rename(bin.join(program), fresh).map_err(|e| cache_error(&bin, e))?;
        fs::remove_dir_all(&bin).map_err(|e| cache_error(&bin, e))
    })
}

/// The file or folder `name` of the cache; `build` makes it under the path that
/// it is given when it is not there.
fn cached(name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let done = cache.join(name);
    if done.exists() {
        return Ok(done);
    }
    fs::create_dir_all(&cache).map_err(|e| cache_error(&cache, e))?;
    let _lock = lock(&cache.join("lock"))?;
    // Another process may have built it while we waited.
    if done.exists() {
        return Ok(done);
    }
    let work = tempfile::Builder::new()
        .prefix(".building-")
        .tempdir_in(&cache)
        .map_err(|e| cache_error(&cache, e))?;
    let fresh = work.path().join("result");
    let begun = Instant::now();
    build(&fresh)?;
    fs::rename(&fresh, &done).map_err(|e| cache_error(&done, e))?;
    say(&format!("{name} is ready after {:.0?}", begun.elapsed()));
    Ok(done)
}

fn lock(path: &Path) -> Result<File> {
    let lock = File::create(path).map_err(|e| cache_error(path, e))?;
    if lock.try_lock().is_err() {
        say("waiting for another process that is installing");
        lock.lock().map_err(|e| cache_error(path, e))?;
    }
    Ok(lock)
}

fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("TIDELOCK_SERVICES_CACHE") {
        return Ok(dir.into());
    }
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .map(|dir| dir.join("tidelock-services"))
        .ok_or_else(|| failed("no cache folder: set TIDELOCK_SERVICES_CACHE"))
}

fn cache_error(path: &Path, error: std::io::Error) -> Error {
    failed("cannot write to the cache of services").object(path.display()).source(error)
}

/// The `java` to run Kafka with.
pub(crate) fn java() -> Result<String> {
    let java = match env::var("JAVA_HOME") {
        Ok(home) => format!("{home}/bin/java"),
        Err(_) => "java".to_owned(),
    };
    let answer = Command::new(&java)
        .arg("-version")
        .output()
        .map_err(|_| failed("Kafka needs Java 17 or newer, and there is no java"))?;
    let text = String::from_utf8_lossy(&answer.stderr).into_owned();
    match java_major(&text) {
        Some(17..) => Ok(java),
        _ => Err(failed(format!("Kafka needs Java 17 or newer, not {}", text.trim()))),
    }
}

/// The major version in what `java -version` prints.
fn java_major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    version.split(['.', '-', '_', '+']).next()?.parse().ok()
}

fn needs(tool: &str) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    if found { Ok(()) } else { Err(failed(format!("no {tool} on the path"))) }
}

/// Tells whoever waits what is going on. Straight to standard error: a test's
/// captured output shows only when it fails.
pub(crate) fn say(message: &str) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(std::io::stderr(), "services: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_of_all_spellings() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(java_major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_major("java version \"26-ea\" 2026-03-17"), Some(26));
        assert_eq!(java_major("java version \"1.8.0_391\""), Some(1));
        assert_eq!(java_major("command not found"), None);
    }

    #[test]
    fn images_are_those_of_the_compose_file() {
        let compose = include_str!("../../../docker-compose.yml");
        for part in [Part::Kafka, Part::Minio] {
            assert!(compose.contains(part.image()), "{} is not in it", part.image());
        }
    }

    #[test]
    fn the_pom_asks_for_the_version_of_the_image() {
        let version = Part::Kafka.image().rsplit(':').next().unwrap();
        assert_eq!(include_str!("pom.xml").matches(&format!("<version>{version}<")).count(), 2);
    }
}
