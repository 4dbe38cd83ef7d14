//! The pipeline as a process of its own, which can be killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tidelock_connector::{Error, ErrorKind, Result};
use tokio::process::{Child, Command};

/// A `tidelock run` that ends with this process, however that ends: it is
/// killed when this is dropped, and ends by itself when its stdin is closed.
pub(super) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    pub(super) fn start(pipeline: &Path, log: &Path, until_end: bool) -> Result<Self> {
        let failed = |e| Error::new(ErrorKind::Other, "cannot start the worker").source(e);
        let file = File::options().create(true).append(true).open(log).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("run").arg(pipeline).args(["--log", "text", "--json", "--tied-to-stdin"]);
        if until_end {
            command.arg("--until-end");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        let child = command.spawn().map_err(failed)?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// SIGKILL: nothing is flushed, nothing is closed.
    pub(super) async fn kill(mut self) -> Result<()> {
        self.still_runs()?;
        let failed = |e| Error::new(ErrorKind::Other, "cannot kill the worker").source(e);
        self.child.kill().await.map_err(failed)
    }

    /// An error when it has ended, which it must not.
    pub(super) fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(error) => {
                Err(Error::new(ErrorKind::Other, "cannot watch the worker").source(error))
            }
        }
    }

    /// Waits for a good end; it cannot be waited for a second time.
    pub(super) async fn end(&mut self) -> Result<()> {
        let failed = |e| Error::new(ErrorKind::Other, "cannot wait for the worker").source(e);
        // `wait` would close its stdin, and that is how it is told to die.
        let stdin = self.child.stdin.take();
        let status = self.child.wait().await.map_err(failed)?;
        drop(stdin);
        if status.success() { Ok(()) } else { Err(self.ended(status)) }
    }

    fn ended(&self, status: std::process::ExitStatus) -> Error {
        Error::new(ErrorKind::Other, format!("the worker has ended ({status}); see its log"))
            .with("log", self.log.display())
    }
}
