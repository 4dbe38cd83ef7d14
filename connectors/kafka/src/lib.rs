//! The Kafka source of [Tidelock](https://github.com/tidelock/tidelock).
//!
//! ```no_run
//! use std::sync::Arc;
//! use tidelock_connector::arrow::datatypes::{DataType, Field, Schema};
//! use tidelock_kafka::{Json, KafkaSource};
//!
//! # fn main() -> tidelock_connector::Result<()> {
//! let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, false)]));
//! let source = KafkaSource::builder("localhost:9092", "orders-to-lake")
//!     .topics(["orders"])
//!     .format(Json::schema(schema))
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it reads
//! ```text
//!            ┌──────────────── consumer thread, one per reader ───────────────┐
//! brokers ──▶│ librdkafka ──▶ a queue per ──▶ turns: deficit ──▶ rows of each │──▶ channel ──▶ next()
//!            │                partition       round robin        topic, open  │    in bytes
//!            └────────────────────────────────────────────────────────────────┘
//! ```
//! Every partition with data is served in every round, so a quiet one is never
//! starved by a busy one. Decoding runs on the consumer thread, straight from
//! librdkafka's memory into Arrow columns. Every edge is bounded in bytes, and
//! all together by [`SourceContext::memory`](tidelock_connector::SourceContext::memory).
//!
//! # What it promises
//! * Per partition the coverage of successive events is contiguous, over the
//!   holes that transaction markers, aborted transactions, compaction and
//!   retention leave. The end of a log is covered too, when nothing but such a
//!   hole is there.
//! * Nothing is skipped in silence: an offset that is gone from the log is
//!   [`ErrorKind::DataLoss`](tidelock_connector::ErrorKind::DataLoss), a record
//!   that does not decode ends the run unless it is told to skip them.
//! * Reading of an assigned partition begins when the
//!   [`Assignment`](tidelock_connector::Assignment) was answered, exactly where
//!   the answer says. Partitions that were kept in a rebalance go on meanwhile.
//! * Before a partition is given up, what was read of it is delivered, and the
//!   runtime has a third of `max_poll_interval`, 30 s at most, to commit it.
//! * Rebalance events are hints, not safety: fencing is the business of the
//!   pipeline's record.

mod admin;
mod builder;
mod client;
mod commit;
mod config;
mod context;
mod errors;
mod express;
mod fair;
mod fairness;
mod ffi;
mod group;
mod inbox;
mod lookup;
mod outbox;
mod poller;
mod probe;
mod reader;
mod rows;
mod security;
mod serve;
mod settings;
mod slot;
mod source;
mod stats;
mod sync;
mod track;
mod values;

pub use admin::GroupAdmin;
pub use builder::KafkaSourceBuilder;
pub use config::{
    Assignor, Coordinate, FormatConfig, Isolation, KafkaConfig, OnBadRecord, StartAt, Threshold,
};
pub use fairness::{Fairness, FairnessReport, PartitionFairness};
pub use lookup::NO_START;
pub use rows::{Format, Json};
pub use security::{Protocol, Security};
pub use source::KafkaSource;
