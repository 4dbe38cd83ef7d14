//! Ties the life of a server to ours.
//!
//! Each server runs under a small shell script (`watch.sh`) that holds a pipe
//! to this process. However this process ends (a return from `main`, `exit`, a
//! panic, SIGKILL) the kernel closes the pipe; the script then kills the server
//! and removes its folder. The script is in a process group of its own, so that
//! a Ctrl-C or a signal to our group does not reach it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tidelock_connector::{Error, ErrorKind, Result};

const SCRIPT: &str = include_str!("watch.sh");

/// What to run, and how to stop it.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// What people call it, for messages.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Added to the environment.
    pub(crate) env: Vec<(String, String)>,
    /// The container that the command runs in: killing the client that
    /// attached to it would leave it running.
    pub(crate) container: Option<String>,
}

impl Spec {
    pub(crate) fn new(name: &str, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { name: name.to_owned(), argv, env: Vec::new(), container: None }
    }

    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.argv.push(arg.into());
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.push((key.to_owned(), value.into()));
        self
    }

    /// The commands that kill, pause and resume.
    fn controls(&self) -> [String; 3] {
        match &self.container {
            None => ["KILL", "STOP", "CONT"].map(|signal| format!("kill -{signal} \"$pid\"")),
            // The client is killed too: the container may not exist yet.
            Some(name) => [
                format!("docker rm -f {name}; kill -KILL \"$pid\""),
                format!("docker pause {name}"),
                format!("docker unpause {name}"),
            ],
        }
        .map(|command| format!("{{ {command}; }} >/dev/null 2>&1"))
    }
}

/// A server and its folder; both go when this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Watched {
    name: String,
    dir: PathBuf,
    script: Child,
    /// `None` only while it is dropped.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Watched {
    /// Takes charge of `dir` and of the server, which is not started yet.
    pub(crate) fn new(spec: &Spec, dir: &Path) -> Result<Self> {
        let [kill, pause, resume] = spec.controls();
        let mut script = Command::new("sh")
            .args(["-c", SCRIPT, &spec.name])
            .arg(dir)
            .args(&spec.argv)
            .envs(spec.env.iter().map(|(key, value)| (key, value)))
            .envs([("WATCH_KILL", kill), ("WATCH_PAUSE", pause), ("WATCH_RESUME", resume)])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| failed("cannot run sh").source(e))?;
        let orders = script.stdin.take();
        let answers = script.stdout.take().ok_or_else(|| failed("sh has no standard output"))?;
        Ok(Self {
            name: spec.name.clone(),
            dir: dir.to_owned(),
            script,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// Starts the server; one that runs already is killed first.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.order("start")
    }

    /// Kills the server with SIGKILL and waits until it is gone; its data stay.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.order("kill")
    }

    /// Stops the server from running, connections stay open (SIGSTOP).
    pub(crate) fn pause(&mut self) -> Result<()> {
        self.order("pause")
    }

    /// Lets a paused server go on.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.order("resume")
    }

    fn order(&mut self, word: &str) -> Result<()> {
        let name = &self.name;
        let lost = || failed(format!("the process that watches {name} is gone"));
        let orders = self.orders.as_mut().ok_or_else(lost)?;
        writeln!(orders, "{word}").map_err(|e| lost().source(e))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(|e| lost().source(e))?;
        if answer.trim() == "ok" { Ok(()) } else { Err(lost()) }
    }

    /// The exit status of a server that has ended.
    pub(crate) fn exited(&self) -> Option<i32> {
        fs::read_to_string(self.dir.join("status")).ok()?.trim().parse().ok()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.dir
    }

    /// The process id of the server, or of the client of its container.
    pub(crate) fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()
    }

    /// The last lines that the server wrote.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Waits until `ready` says yes, the server ends, or time is up.
    pub(crate) fn wait_ready(
        &self,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.exited() {
                return Err(self.trouble(format!("{} ended with status {status}", self.name)));
            }
            if ready() {
                return Ok(());
            }
            pause(Duration::from_millis(50));
        }
        Err(self.trouble(format!("{} was not ready within {limit:?}", self.name)))
    }

    fn trouble(&self, message: String) -> Error {
        failed(message).source(format!("its last words:\n{}", self.log_tail()))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.orders = None;
        // When this fails there is nothing left to wait for.
        let _ = self.script.wait();
    }
}

/// Runs a command to its end; it dies with us, and when time is up.
pub(crate) fn run(spec: &Spec, limit: Duration) -> Result<()> {
    let dir = scratch(&spec.name)?;
    let mut command = Watched::new(spec, &dir)?;
    command.start()?;
    let end = Instant::now() + limit;
    loop {
        match command.exited() {
            Some(0) => return Ok(()),
            Some(status) => {
                let message = format!("{} failed with status {status}", spec.name);
                return Err(command.trouble(message));
            }
            None if Instant::now() > end => {
                return Err(command.trouble(format!("{} took longer than {limit:?}", spec.name)));
            }
            None => pause(Duration::from_millis(50)),
        }
    }
}

/// A new folder that nothing but a [`Watched`] removes.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    tempfile::Builder::new()
        .prefix(&format!("tidelock-{}-", name.to_lowercase()))
        .tempdir()
        .map(tempfile::TempDir::keep)
        .map_err(|e| failed("cannot make a temporary folder").source(e))
}

pub(crate) fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Other, message)
}

/// The launcher is synchronous: tests call it before any runtime exists.
#[allow(clippy::disallowed_methods)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(pid: u32) -> bool {
        Command::new("kill").args(["-0", &pid.to_string()]).output().unwrap().status.success()
    }

    fn sleeper() -> (Watched, PathBuf, u32) {
        let dir = scratch("sleeper").unwrap();
        let mut sleeper = Watched::new(&Spec::new("sleeper", ["sleep", "600"]), &dir).unwrap();
        sleeper.start().unwrap();
        sleeper.wait_ready(Duration::from_secs(5), || sleeper.pid().is_some()).unwrap();
        let pid = sleeper.pid().unwrap();
        assert!(alive(pid));
        (sleeper, dir, pid)
    }

    #[test]
    fn dropping_kills_the_server_and_removes_its_folder() {
        let (sleeper, dir, pid) = sleeper();
        drop(sleeper);
        assert!(!alive(pid));
        assert!(!dir.exists());
    }

    #[test]
    fn killing_keeps_the_folder_and_starting_again_gives_a_new_process() {
        let (mut sleeper, dir, pid) = sleeper();
        fs::write(dir.join("data"), "kept").unwrap();
        sleeper.kill().unwrap();
        assert!(!alive(pid));
        assert_eq!(sleeper.exited(), Some(128 + 9));
        sleeper.start().unwrap();
        sleeper.wait_ready(Duration::from_secs(5), || sleeper.pid().is_some()).unwrap();
        assert_ne!(sleeper.pid(), Some(pid));
        assert_eq!(fs::read_to_string(dir.join("data")).unwrap(), "kept");
    }

    #[test]
    fn a_paused_server_can_be_resumed_and_killed() {
        let (mut sleeper, _dir, pid) = sleeper();
        if !Path::new("/proc/self/stat").exists() {
            return;
        }
        // The kernel takes its time between the signal and the state.
        let becomes = |state: &str| {
            (0..500).any(|_| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
                pause(Duration::from_millis(10));
                stat.split_whitespace().nth(2) == Some(state)
            })
        };
        sleeper.pause().unwrap();
        assert!(becomes("T"));
        sleeper.resume().unwrap();
        assert!(becomes("S"));
        sleeper.pause().unwrap();
        sleeper.kill().unwrap();
        assert!(!alive(pid));
    }

    #[test]
    fn a_command_that_fails_or_hangs_is_an_error_with_its_last_words() {
        let fails = Spec::new("builder", ["sh", "-c", "echo no compiler; exit 3"]);
        let error = run(&fails, Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("status 3") && error.contains("no compiler"), "{error}");
        let hangs = Spec::new("builder", ["sleep", "600"]);
        let error = run(&hangs, Duration::from_millis(200)).unwrap_err().to_string();
        assert!(error.contains("took longer than 200ms"), "{error}");
        run(&Spec::new("builder", ["true"]), Duration::from_secs(5)).unwrap();
    }
}
