//! The connector API of [Tidelock](https://github.com/tidelock/tidelock).
//!
//! Implement [`Source`] to bring records in, [`Sink`] to take rows out; no
//! other crate of Tidelock is needed for that, and no C code is built.
//!
//! ```text
//! Source ──▶ SourceReader ──▶ Transform … ──▶ SinkWriter ──▶ Committable ──▶ Committer
//!            batches,         rows in,        write,          plain data,     makes them
//!            assignments      rows out        prepare         in the record   visible
//! ```
//!
//! * A [`Batch`] is an Arrow `RecordBatch` and its [`Coverage`]: the offsets
//!   that it accounts for, whatever its number of rows.
//! * A [`Barrier`] closes a checkpoint. Sinks *prepare* at it, the runtime
//!   writes the pipeline's record, and a [`Committer`] makes things visible.
//! * A sink that needs only at-least-once implements [`AtLeastOnceWriter`].
//! * Everything that fails returns the one [`Error`].

mod batch;
mod error;
mod offsets;
mod sink;
mod source;
#[cfg(feature = "testing")]
pub mod testing;
mod transform;

pub use arrow;
pub use async_trait::async_trait;

pub use batch::{Batch, Rejected, Run, Stream};
pub use error::{Error, ErrorKind, Result};
pub use offsets::{Coverage, OffsetRange, OffsetSet, Offsets, TopicPartition};
pub use sink::{
    AtLeastOnce, AtLeastOnceWriter, Barrier, Committable, Committer, Guarantee, Home, Incarnation,
    Outcome, Sink, SinkContext, SinkWriter,
};
pub use source::{
    AssignedPartition, Assignment, CommittedOffset, CommittedOffsets, Event, Identity,
    NothingToCommit, OffsetCommitter, OpenSource, Revocation, Source, SourceContext, SourceReader,
    Start,
};
pub use transform::Transform;
