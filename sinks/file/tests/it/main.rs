//! The engine from the outside: rows in, files out, as a reader finds them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commit;
mod conformance;
mod formats;
mod inspect;
mod partition;
mod random;
mod rotation;
mod support;
