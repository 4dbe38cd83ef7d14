//! Runs `tidelock verify` again and again beside everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tidelock_connector::{Error, ErrorKind, Result};

use crate::rig::Rig;

/// The shortest pause between two runs.
const PAUSE: Duration = Duration::from_secs(2);

/// What `verify` said.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Verdicts {
    /// How often it said yes.
    pub yes: u64,
    /// How often it could not tell, because something did not answer.
    pub undecided: u64,
    /// Everything it said when it said no.
    pub no: Vec<String>,
    /// The longest run, in seconds.
    pub longest_s: f64,
}

/// Runs `verify` until told to stop. Meant for a scoped thread.
pub(crate) fn watch(rig: &Rig, stop: &Arc<AtomicBool>) -> Result<Verdicts> {
    let mut verdicts = Verdicts::default();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        once(rig, &mut verdicts)?;
        let took = begun.elapsed();
        verdicts.longest_s = verdicts.longest_s.max(took.as_secs_f64());
        // It shares two cores with what it judges.
        let until = Instant::now() + PAUSE.max(took * 2);
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            crate::pause(Duration::from_millis(50));
        }
    }
    Ok(verdicts)
}

/// Runs it once.
fn once(rig: &Rig, verdicts: &mut Verdicts) -> Result<()> {
    let output = rig.verify()?;
    match output.status.code() {
        Some(0) => verdicts.yes += 1,
        Some(1) => {
            let said = [output.stdout, output.stderr].concat();
            verdicts.no.push(String::from_utf8_lossy(&said).into_owned());
        }
        // Usage errors are ours, and would hide everything.
        Some(2) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::new(ErrorKind::Config, "verify did not run").source(said));
        }
        _ => verdicts.undecided += 1,
    }
    Ok(())
}
