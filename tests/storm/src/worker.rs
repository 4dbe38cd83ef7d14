//! A process under test: it can be killed, stopped, and watched closely enough
//! to be killed in a chosen phase.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tidelock_connector::{Error, ErrorKind, Result};

use crate::metrics::Metrics;
use crate::rig::{Rig, io};

/// How closely a phase file is watched.
const WATCH: Duration = Duration::from_micros(200);

/// What a worker's checkpoint is going through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing: rows are being read.
    Read,
    /// Files are finished and staged.
    Prepare,
    /// The record is being written.
    Swap,
    /// Files become visible.
    Publish,
    /// Offsets are committed, pending sets and staged bytes go.
    Clear,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 5] = [Self::Read, Self::Prepare, Self::Swap, Self::Publish, Self::Clear];
}

/// Reads a phase file as it grows.
#[derive(Debug)]
struct Phases {
    path: PathBuf,
    file: Option<File>,
    rest: String,
    /// How many of each are under way.
    active: [i32; 5],
    /// How many of each have begun.
    begun: [u32; 5],
}

impl Phases {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, rest: String::new(), active: [0; 5], begun: [0; 5] }
    }

    /// Takes in what was written since the last time.
    fn poll(&mut self) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return };
        // What cannot be read now is read the next time.
        let _ = file.read_to_string(&mut self.rest);
        while let Some((line, rest)) = self.rest.split_once('\n') {
            let index = match line.get(1..) {
                Some("prepare") => 1,
                Some("swap") => 2,
                Some("publish") => 3,
                Some("clear") => 4,
                _ => 0,
            };
            let step = if line.starts_with('+') { 1 } else { -1 };
            self.active[index] += step;
            self.begun[index] += u32::from(step > 0);
            self.rest = rest.to_owned();
        }
    }

    fn is_in(&self, phase: Phase) -> bool {
        match phase {
            Phase::Read => self.active[1..].iter().all(|active| *active == 0),
            _ => self.active[phase as usize] > 0,
        }
    }

    /// The one that is farthest, if it is not the wanted one.
    fn hit(&self, wanted: Phase) -> Phase {
        if self.is_in(wanted) {
            return wanted;
        }
        Phase::ALL.into_iter().rev().find(|phase| self.is_in(*phase)).unwrap_or(Phase::Read)
    }
}

/// A running worker process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    log: PathBuf,
    /// Where its metrics are.
    metrics: String,
    phases: Phases,
    peak_kib: u64,
    /// Until when it is stopped.
    pub stopped_until: Option<Instant>,
}

impl Worker {
    /// Starts `tidelock run`; everything that this life says goes into a log of
    /// its own, named after `name`.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn start(rig: &Rig, name: &str) -> Result<Self> {
        let metrics = free_address()?;
        let log = rig.folder().join(format!("{name}.log"));
        let phases = rig.folder().join(format!("{name}.phases"));
        let file = File::create(&log).map_err(io)?;
        let child = rig
            // However we end, the workers end with us.
            .command("run", false, &["--tied-to-stdin", "--metrics", &metrics])
            .stdin(Stdio::piped())
            .env("TIDELOCK_PHASE_FILE", &phases)
            .env("RUST_LOG", "info")
            .stdout(Stdio::from(file.try_clone().map_err(io)?))
            .stderr(Stdio::from(file))
            .spawn()
            .map_err(io)?;
        Ok(Self {
            child,
            log,
            metrics,
            phases: Phases::new(phases),
            peak_kib: 0,
            stopped_until: None,
        })
    }

    /// The last things that it said.
    pub fn last_words(&self) -> String {
        tail(&self.log)
    }

    /// The sum of a counter over all its labels; 0 when it does not answer.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics().samples(name).map(|(_, value)| value).sum()
    }

    /// All metrics as they are now; none when it does not answer.
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = ureq::get(format!("http://{}/metrics", self.metrics)).call();
        let text = answer.and_then(|mut answer| answer.body_mut().read_to_string());
        Metrics(text.unwrap_or_default())
    }

    /// Where its metrics are, which no other life shares.
    pub(crate) fn name(&self) -> &str {
        &self.metrics
    }

    /// The largest resident memory seen, in MiB.
    pub fn peak_mib(&mut self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let peak = status.ok().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().trim_end_matches(" kB").trim().parse().ok()
        });
        self.peak_kib = self.peak_kib.max(peak.unwrap_or(0));
        self.peak_kib >> 10
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(io)
    }

    /// An error that says how it ended and the last things that it said.
    pub fn unexpected(&self, status: ExitStatus) -> Error {
        Error::new(ErrorKind::Other, format!("a worker ended by itself with {status}"))
            .object(self.log.display())
            .source(tail(&self.log))
    }

    fn signal(&self, signal: Signal) {
        // Our own child, not yet waited for: the pid is nobody else's.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// How many publishing phases it has been through.
    pub fn published(&mut self) -> u32 {
        self.phases.poll();
        self.phases.begun[Phase::Publish as usize]
    }

    /// Stops it for a while, without its knowing; [`resume`](Self::resume) is
    /// for the caller to call.
    pub fn stop_for(&mut self, time: Duration) {
        self.signal(Signal::SIGSTOP);
        self.stopped_until = Some(Instant::now() + time);
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.signal(Signal::SIGCONT);
        self.stopped_until = None;
    }

    /// Kills it in the wanted phase, or in any when that one does not come in
    /// time. Returns the phase that the kill hit.
    ///
    /// To be sure of the phase it is stopped first, looked at, and let go on
    /// when it was too late: a miss is not a kill.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_in(&mut self, wanted: Phase, limit: Duration, after: Duration) -> Result<Phase> {
        self.aim(wanted, limit, after)?;
        self.peak_mib();
        self.signal(Signal::SIGKILL);
        self.child.wait().map_err(io)?;
        self.phases.poll();
        Ok(self.phases.hit(wanted))
    }

    /// Stops it for a while in the wanted phase, or in any when that one does not
    /// come in time.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn stop_in(&mut self, wanted: Phase, limit: Duration, time: Duration) -> Result<()> {
        self.aim(wanted, limit, Duration::ZERO)?;
        self.stop_for(time);
        Ok(())
    }

    /// Waits for the wanted phase and stops it there; it goes on when that one
    /// does not come in time.
    fn aim(&mut self, wanted: Phase, limit: Duration, after: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while Instant::now() < end && self.ended()?.is_none() {
            self.phases.poll();
            if self.phases.is_in(wanted) {
                crate::pause(after);
                self.signal(Signal::SIGSTOP);
                crate::pause(WATCH);
                self.phases.poll();
                if self.phases.is_in(wanted) {
                    break;
                }
                self.signal(Signal::SIGCONT);
            }
            crate::pause(WATCH);
        }
        Ok(())
    }

    /// Asks it to stop.
    pub(crate) fn ask_to_stop(&mut self) {
        self.peak_mib();
        self.signal(Signal::SIGTERM);
    }

    /// Asks it to stop, and expects a clean end.
    ///
    /// # Errors
    /// When it does not end in time, or not well.
    pub fn finish(&mut self, limit: Duration) -> Result<()> {
        self.ask_to_stop();
        let end = Instant::now() + limit;
        loop {
            match self.ended()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.unexpected(status)),
                None if Instant::now() > end => {
                    let text = format!("a worker did not stop within {limit:?}");
                    return Err(Error::new(ErrorKind::Other, text)
                        .object(self.log.display())
                        .source(tail(&self.log)));
                }
                None => crate::pause(Duration::from_millis(50)),
            }
        }
    }

    /// How many lines of the log hold one of these texts.
    pub fn said(&self, texts: &[&str]) -> u64 {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| texts.iter().any(|text| line.contains(text))).count() as u64
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that nobody listens on.
fn free_address() -> Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(io)?;
    Ok(listener.local_addr().map_err(io)?.to_string())
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let log = std::fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn phases_are_read_as_they_are_written() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut phases = Phases::new(file.path().to_owned());
        phases.poll();
        assert!(phases.is_in(Phase::Read));
        file.write_all(b"+prepare\n+swap\n-prep").unwrap();
        phases.poll();
        assert!(phases.is_in(Phase::Prepare) && phases.is_in(Phase::Swap));
        assert!(!phases.is_in(Phase::Read));
        assert_eq!(phases.hit(Phase::Prepare), Phase::Prepare);
        assert_eq!(phases.hit(Phase::Clear), Phase::Swap, "the farthest");
        file.write_all(b"are\n-swap\n").unwrap();
        phases.poll();
        assert_eq!(phases.hit(Phase::Swap), Phase::Read);
        assert_eq!(phases.begun, [0, 1, 1, 0, 0]);
    }
}
