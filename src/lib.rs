//! Tidelock moves streams into files, exactly once.

pub mod checkpoint;
mod pipeline;
mod progress;
mod worker;

pub use pipeline::{Pipeline, PipelineBuilder, State, defaults, shutdown_on_ctrl_c};
pub use progress::{Progress, Report, SinkProgress};
pub use tidelock_connector as connector;
