//! The launcher against the real servers.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not their helpers")]

mod kafka;
mod life;
mod network;
mod s3;
