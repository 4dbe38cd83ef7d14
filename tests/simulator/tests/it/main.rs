//! The simulator's own tests: seeds, planted bugs, and a small scope in full.

mod mutations;
mod replay;
mod seeds;
mod small_scope;
mod support;
