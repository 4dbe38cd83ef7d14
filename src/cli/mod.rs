//! The command line.
//!
//! # Contract
//! * Answers go to stdout, everything else to stderr. With `--json` stdout is
//!   exactly one JSON document, whatever happens.
//! * An error is one message that says what to do, and an [exit code](Exit).
//! * On a terminal there is colour, unless `NO_COLOR` is set, and a live line
//!   below the log; elsewhere the log is JSON lines.

mod check;
mod confirm;
#[cfg(all(feature = "kafka", feature = "file"))]
mod demo;
mod doctor;
mod fair;
mod figures;
mod live;
mod log;
mod offsets;
mod record;
mod run;
mod screen;
#[cfg(feature = "file")]
mod verify;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;
use tidelock_connector::{Error, ErrorKind};

use crate::config::{Config, ConfigErrors};
use screen::SCREEN;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked for.
    Done = 0,
    /// The answer is no.
    No = 1,
    /// The command line or the pipeline file is wrong.
    Usage = 2,
    /// It cannot go on.
    Fatal = 3,
    /// Going on would lose data; somebody has to decide.
    DataLoss = 4,
}

impl Exit {
    /// How a run that failed like this ends.
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Config => Self::Usage,
            ErrorKind::DataLoss => Self::DataLoss,
            _ => Self::Fatal,
        }
    }
}

/// Moves Kafka topics into Parquet on S3, exactly once.
#[derive(Debug, Parser)]
#[command(name = "tidelock", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How the log on stderr looks; RUST_LOG says how much of it there is.
    #[arg(long, global = true, value_enum, default_value_t)]
    log: log::Format,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the answer is no (verify, check, doctor), 2 bad \
                          usage or configuration, 3 a fatal error, 4 data would be lost without \
                          a decision";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it all in 20 seconds: a broker inside, a crash, a recovery, a proof.
    #[cfg(all(feature = "kafka", feature = "file"))]
    Demo(demo::Args),
    /// Explain every mistake in a pipeline file, try its connections, print the plan.
    Check(check::Args),
    /// Run a pipeline until it is stopped.
    Run(run::Args),
    /// Prove from the files that every offset is there exactly once.
    #[cfg(feature = "file")]
    Verify(verify::Args),
    /// Try what a store really does, and say which guarantees hold on it.
    Doctor(doctor::Args),
    /// Show the record beside the group's offsets, and move them.
    Offsets(offsets::Args),
}

impl Command {
    fn wants_json(&self) -> bool {
        match self {
            #[cfg(all(feature = "kafka", feature = "file"))]
            Self::Demo(args) => args.json,
            Self::Check(args) => args.json,
            Self::Run(args) => args.json,
            #[cfg(feature = "file")]
            Self::Verify(args) => args.json,
            Self::Doctor(args) => args.json,
            Self::Offsets(args) => args.wants_json(),
        }
    }
}

/// Why a command failed.
enum Failure {
    Config(ConfigErrors),
    /// With what was known until then, for `--json`.
    Error(Error, Exit, serde_json::Map<String, serde_json::Value>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = Exit::of(&error);
        Self::Error(error, exit, serde_json::Map::new())
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log::init(cli.log, !matches!(cli.command, Command::Run(_)));
    let json = cli.command.wants_json();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            SCREEN.say(&format!("error: cannot start: {error}\n"));
            return ExitCode::from(Exit::Fatal as u8);
        }
    };
    let outcome = runtime.block_on(dispatch(cli.command));
    SCREEN.clear();
    // A store that hangs must not keep the process alive.
    runtime.shutdown_background();
    let exit = outcome.unwrap_or_else(|failure| tell(failure, json));
    ExitCode::from(exit as u8)
}

async fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        #[cfg(all(feature = "kafka", feature = "file"))]
        Command::Demo(args) => demo::demo(args).await,
        Command::Check(args) => check::check(args).await,
        Command::Run(args) => run::run(args).await,
        #[cfg(feature = "file")]
        Command::Verify(args) => verify::verify(args).await,
        Command::Doctor(args) => doctor::doctor(args).await,
        Command::Offsets(args) => offsets::offsets(args).await,
    }
}

/// One message per failure; the document too, where one is wanted.
fn tell(failure: Failure, json: bool) -> Exit {
    let (exit, document) = match failure {
        Failure::Config(errors) => {
            if SCREEN.is_terminal() {
                SCREEN.say(&errors.render(SCREEN.has_colour()));
            } else {
                let lines = errors.to_string();
                let lines: String = lines.lines().map(|line| format!("error: {line}\n")).collect();
                SCREEN.say(&lines);
            }
            let mistakes: Vec<_> = errors
                .mistakes()
                .iter()
                .map(|m| json!({ "line": m.line, "column": m.column, "message": m.message }))
                .collect();
            let error = json!({ "kind": "configuration", "mistakes": mistakes });
            (Exit::Usage, json!({ "ok": false, "error": error }))
        }
        Failure::Error(error, exit, mut known) => {
            let advice = words::advice(&error).map_or_else(String::new, |a| format!("\n  {a}"));
            let (red, off) = SCREEN.colours("1;31");
            SCREEN.say(&format!("{red}error{off}: {error}{advice}\n"));
            let context: serde_json::Map<_, _> =
                error.context().map(|(key, value)| (key.to_owned(), value.into())).collect();
            known.insert("ok".to_owned(), false.into());
            let told = json!({
                "kind": error.kind().to_string(),
                "message": error.to_string(),
                "context": context,
            });
            known.insert("error".to_owned(), told);
            (exit, known.into())
        }
    };
    if json {
        words::print_json(&document);
    }
    exit
}

/// A pipeline file on the command line.
#[derive(Debug, clap::Args)]
struct PipelineFile {
    /// The pipeline file.
    #[arg(value_name = "PIPELINE.toml")]
    path: PathBuf,
}

impl PipelineFile {
    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(Path::new(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_are_those_of_the_documentation() {
        assert_eq!(Exit::of(&Error::config("x")) as u8, 2);
        assert_eq!(Exit::of(&Error::new(ErrorKind::Denied, "x")) as u8, 3);
        assert_eq!(Exit::of(&Error::new(ErrorKind::DataLoss, "x")) as u8, 4);
    }
}
