//! Tests of the doubles themselves, and of the suites: each has to find the
//! bugs that are planted for it.

mod broken_sink;
mod broken_source;
mod conformance;
mod memory_sink;
mod memory_source;
