#![doc = include_str!("../README.md")]

pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod offsets;
mod pipeline;
mod progress;
#[cfg(feature = "file")]
pub mod verify;
mod worker;

#[doc(hidden)]
pub use pipeline::Simulated;
pub use pipeline::{Pipeline, PipelineBuilder, State, defaults, shutdown_on_ctrl_c};
pub use progress::{Progress, Report, SinkProgress};
pub use tidelock_connector as connector;
#[cfg(feature = "file")]
pub use tidelock_file as file;
#[cfg(feature = "kafka")]
pub use tidelock_kafka as kafka;
pub use tidelock_store as store;
