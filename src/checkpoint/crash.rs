//! Named moments of the protocol, for tests to strike at.
//!
//! Empty unless the feature `testing` is on. With it the environment decides:
//!
//! | variable | what happens |
//! |---|---|
//! | `TIDELOCK_CRASH_AT=name[:nth]` | the process kills itself at the nth time it comes to the point `name` |
//! | `TIDELOCK_PHASE_FILE=path` | each begin and end of a phase is a line in that file: `+swap`, `-swap` |
//! | `TIDELOCK_UNFENCED=1` | epochs and cursors are not checked: the control that shows what fencing is for |
//!
//! `docs/guarantees.md` says what becomes of a checkpoint at each point.

/// Every point, in the order in which a worker comes to them.
pub const POINTS: &[&str] = &[
    "before-claim",
    "claimed-before-recovery",
    "recovered-before-first-message",
    "staged-before-swap",
    "filed-away-before-swap",
    "swap-applied-reply-lost",
    "swapped-before-publish",
    "between-publishes",
    "published-before-offsets",
    "offsets-before-clear",
    "cleared-before-deletion",
    "between-deletions",
    "collecting-orphans",
    "revoking-before-checkpoint",
    "revoked-before-answer",
];

/// What a checkpoint is going through; reading goes on beside all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Files are finished and staged.
    Prepare,
    /// The record is being written.
    Swap,
    /// Files become visible.
    Publish,
    /// Offsets are committed, pending sets and staged bytes go.
    Clear,
}

#[cfg(feature = "testing")]
pub use on::{Entered, at, begin, unfenced};

#[cfg(not(feature = "testing"))]
pub use off::{Entered, at, begin, unfenced};

#[cfg(not(feature = "testing"))]
mod off {
    use super::Phase;

    /// Nothing.
    #[derive(Debug)]
    pub struct Entered;

    /// Nothing.
    #[inline(always)]
    pub fn at(_point: &str) {}

    /// Nothing.
    #[inline(always)]
    pub fn begin(_phase: Phase) -> Entered {
        Entered
    }

    /// No.
    #[inline(always)]
    pub const fn unfenced() -> bool {
        false
    }
}

#[cfg(feature = "testing")]
mod on {
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{POINTS, Phase};

    struct Chosen {
        point: String,
        nth: u32,
        seen: AtomicU32,
    }

    static CHOSEN: LazyLock<Option<Chosen>> = LazyLock::new(|| {
        let text = std::env::var("TIDELOCK_CRASH_AT").ok()?;
        let (point, nth) = match text.split_once(':') {
            Some((point, nth)) => (point, nth.parse().unwrap_or(1)),
            None => (text.as_str(), 1),
        };
        Some(Chosen { point: point.to_owned(), nth, seen: AtomicU32::new(0) })
    });

    static PHASES: LazyLock<Option<File>> = LazyLock::new(|| {
        let path = std::env::var_os("TIDELOCK_PHASE_FILE")?;
        OpenOptions::new().append(true).create(true).open(path).ok()
    });

    static UNFENCED: LazyLock<bool> =
        LazyLock::new(|| std::env::var("TIDELOCK_UNFENCED").is_ok_and(|value| value == "1"));

    /// Dies here, when this is the chosen point.
    pub fn at(point: &str) {
        debug_assert!(POINTS.contains(&point), "{point} is not listed");
        let Some(chosen) = CHOSEN.as_ref().filter(|chosen| chosen.point == point) else { return };
        if chosen.seen.fetch_add(1, Ordering::Relaxed) + 1 == chosen.nth {
            // Standard error is not buffered: whoever waits for it sees it.
            eprintln!("crash point {point}");
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Notes that a phase begins; it ends when the value is dropped.
    pub fn begin(phase: Phase) -> Entered {
        note('+', phase);
        Entered(phase)
    }

    /// Whether the checks that fence a worker are left out.
    pub fn unfenced() -> bool {
        *UNFENCED
    }

    /// A phase under way.
    #[must_use]
    #[derive(Debug)]
    pub struct Entered(Phase);

    impl Drop for Entered {
        fn drop(&mut self) {
            note('-', self.0);
        }
    }

    fn note(sign: char, phase: Phase) {
        if let Some(mut file) = PHASES.as_ref() {
            let name = match phase {
                Phase::Prepare => "prepare",
                Phase::Swap => "swap",
                Phase::Publish => "publish",
                Phase::Clear => "clear",
            };
            // One write, so that lines of several threads do not mix.
            let _ = file.write_all(format!("{sign}{name}\n").as_bytes());
        }
    }
}
