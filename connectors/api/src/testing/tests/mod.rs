//! Tests of the doubles themselves.

mod memory_sink;
mod memory_source;
