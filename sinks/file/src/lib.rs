//! The file sinks of Tidelock: **one engine**, two axes, format × store.
//!
//! ```text
//!              split by                encode            8 MiB parts
//! Batch ──▶ partition values ──▶ open file (Encoder) ──▶ StagedWriter ──▶ staged bytes
//!                                 at most max_open_files,                     │
//!                                 all together ≤ SinkContext::memory          │ barrier: prepare
//!                                                                             ▼
//!              data file under its final key ◀── Committer::commit ── Committable (moves)
//! ```
//!
//! # Contract
//! * A *commit set* is every file that one writer closes for one barrier. Each
//!   file tells in its [`FileFooter`] which set it belongs to; exactly one of
//!   them, the last, tells what the set covers and which its siblings are.
//! * Nothing is visible before it is committed: staged bytes lie below
//!   `_tidelock/` under names with no data file's extension.
//! * No final key is ever used twice: it is made of the incarnation, the
//!   checkpoint and a number within the checkpoint.
//! * Committing is idempotent and can be done by any process: a committable is
//!   a list of moves, see [`FileCommitter`].
//!
//! ```no_run
//! use tidelock_file::{Compression, ParquetSink};
//!
//! # fn main() -> tidelock_connector::Result<()> {
//! let lake = ParquetSink::builder("s3://lake/orders")
//!     .partition_by(["country", "day"])
//!     .compression(Compression::Zstd(1))
//!     .build()?;
//! # drop(lake); Ok(())
//! # }
//! ```

mod budget;
mod committer;
mod config;
mod file;
mod footer;
mod format;
pub mod inspect;
mod names;
mod partition;
mod sink;
mod writer;

pub use committer::FileCommitter;
pub use config::{Compression, Dictionary, FileConfig, Format, ParquetConfig, Size, Statistics};
pub use footer::{CommitSet, CoveredPartition, FileFooter, SetCoverage, SetFile};
pub use sink::{FileSink, FileSinkBuilder, JsonLinesSink, ParquetSink};
pub use tidelock_store::{StorageOptions, Store};
