//! Where Tidelock's bytes go: local folders and object stores behind one
//! [`Store`], with exactly the operations that exactly-once needs.
//!
//! ```text
//! StagedWriter ──▶ staged bytes, where no reader looks ──publish──▶ the final key
//!  parts of 8 MiB,                                      copy or rename, idempotent
//!  at most 3 in flight
//! Versioned: one mutable object, written only by compare-and-swap
//! ```
//!
//! # Contract
//! * Every path is relative to the URL that the store was opened with, has `/`
//!   between its parts and is taken literally: nothing is encoded or decoded.
//! * What a call has acknowledged is durable. In a local folder that means
//!   `fsync` of the file *and* of the folders that name it.
//! * **An error does not mean that nothing happened.** A server may apply a
//!   request and lose the answer. [`Store::publish`] resolves that by itself;
//!   the caller of [`Versioned::write`] reads again after every error.
//! * Requests are tried again inside for about ten seconds, where trying again
//!   cannot change their meaning; whoever waits longer does it by
//!   [`Error::is_retryable`](tidelock_connector::Error::is_retryable).
//!
//! # Why not `LocalFileSystem` of `object_store`
//! It neither calls `fsync` nor knows a conditional update, and both are what
//! a commit stands on. Folders are therefore written here with `std::fs`.

mod config;
mod error;
mod local;
mod object;
mod stage;
mod store;
mod versioned;

pub use config::{StorageOptions, StoreConfig};
pub use object_store;
pub use stage::StagedWriter;
pub use store::{Beneath, Entry, Published, Store};
pub use versioned::{Version, Versioned};
