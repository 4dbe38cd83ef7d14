//! The integration tests of Tidelock: one binary, modules inside.
//!
//! Tests against real services ask `tidelock_services` for them; where they
//! cannot be had, a test is skipped visibly, or fails when
//! `TIDELOCK_REQUIRE_SERVICES=1`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]
#![allow(clippy::disallowed_methods, reason = "tests of processes wait on threads of their own")]

mod acknowledge;
mod bad_input;
mod crash_points;
mod demo;
mod edges;
mod examples;
mod fair;
mod lost;
mod main_job;
mod offsets;
mod requests;
mod runtime;
mod storm;
mod support;
mod verify_at_size;
