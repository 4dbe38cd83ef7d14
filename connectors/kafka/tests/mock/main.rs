//! The reader against librdkafka's own mock cluster.

mod errors;
mod group;
mod reading;
mod support;
