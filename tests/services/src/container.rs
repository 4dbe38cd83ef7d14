//! The `docker run` that stands for a command.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::watch::Spec;

/// A `docker run` under construction.
#[derive(Debug)]
pub(crate) struct Container {
    spec: Spec,
    image: &'static str,
}

/// A container of `image` that runs as the current user, sees the folder `dir`
/// as `inside`, and is removed when it ends.
pub(crate) fn spec(name: &str, image: &'static str, dir: &Path, inside: &str) -> Container {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let unique = format!("tidelock-{}-{count}", std::process::id());
    let volume = format!("{}:{inside}", dir.display());
    let argv = ["docker", "run", "--rm", "--name", &unique, "--user", &user(), "-v", &volume];
    let spec = Spec { container: Some(unique.clone()), ..Spec::new(name, argv) };
    Container { spec, image }
}

impl Container {
    /// Makes ports of the container reachable on our loopback interface.
    pub(crate) fn publish(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        for port in ports {
            self.spec = self.spec.arg("-p").arg(format!("127.0.0.1:{port}:{port}"));
        }
        self
    }

    /// Gives the container the network of its host.
    pub(crate) fn host_network(mut self) -> Self {
        self.spec = self.spec.arg("--network").arg("host");
        self
    }

    /// Adds to the environment inside the container.
    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.spec = self.spec.arg("-e").arg(format!("{key}={value}"));
        self
    }

    /// The whole command: `program`, in place of the image's entry point.
    pub(crate) fn run(
        self,
        program: &str,
        args: impl IntoIterator<Item = impl Into<String>>,
    ) -> Spec {
        let spec = self.spec.arg("--entrypoint").arg(program).arg(self.image);
        args.into_iter().fold(spec, Spec::arg)
    }
}

/// `uid:gid`: what the container writes must be ours to remove.
fn user() -> String {
    let id = |flag: &str| {
        let output = Command::new("id").arg(flag).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (id("-u"), id("-g")) {
        (Some(user), Some(group)) => format!("{user}:{group}"),
        _ => "0:0".to_owned(),
    }
}
