//! The log: for people on a terminal, JSON lines elsewhere.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::screen::SCREEN;

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT: &str =
    "warn,tidelock=info,tidelock_kafka=info,tidelock_file=info,tidelock_store=info";

/// What the log looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// And by commands whose answer says it all.
const QUIET: &str = "error";

/// Begins to log to stderr.
pub(super) fn init(format: Format, quiet: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|error| {
        if std::env::var_os("RUST_LOG").is_some_and(|value| !value.is_empty()) {
            SCREEN.say(&format!("warning: RUST_LOG is not understood: {error}\n"));
        }
        EnvFilter::new(if quiet { QUIET } else { DEFAULT })
    });
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(ToScreen)
        .with_ansi(SCREEN.has_colour());
    let json = match format {
        Format::Auto => !SCREEN.is_terminal(),
        Format::Text => false,
        Format::Json => true,
    };
    // Another subscriber can only be there in tests.
    let _ = if json {
        subscriber.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        subscriber.with_target(false).compact().try_init()
    };
}

/// Events come in one write each.
struct ToScreen;

impl Write for ToScreen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SCREEN.say(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for ToScreen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}
