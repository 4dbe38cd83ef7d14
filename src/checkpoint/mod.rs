//! Checkpoints: how a position in a log and files in a store become one fact.
//!
//! | file | what it is |
//! |---|---|
//! | [`record`] | the pipeline's record: shape and codec |
//! | [`change`] | what may happen to it: pure functions |
//! | [`rewind`] | one of them: cursors are sent elsewhere |
//! | [`coordinator`] | the checkpoints of one worker: a state machine without I/O |
//! | [`claim`] | how an assigned partition is taken over: pure functions |
//! | [`swap`] | the only writer of the record in a process |
//! | [`publish`] | the second phase |
//! | [`collect`] | orphans |
//! | [`lost`] | committed files that are gone, and how to go on |
//! | [`store`] | the port to wherever the record lives |
//! | [`crash`] | named moments for tests to strike at |
//!
//! The promise and its limits are in `docs/guarantees.md`.

pub mod backoff;
pub mod change;
pub mod claim;
pub mod collect;
pub mod coordinator;
pub mod crash;
pub mod lost;
#[doc(hidden)]
pub mod mutation;
pub mod publish;
pub mod record;
pub mod rewind;
pub mod store;
pub mod swap;
