//! The integration tests of Tidelock: one binary, modules inside.
//!
//! Tests against real services ask `tidelock_services` for them; where they
//! cannot be had, a test is skipped visibly, or fails when
//! `TIDELOCK_REQUIRE_SERVICES=1`.

mod acknowledge;
mod bad_input;
mod examples;
mod main_job;
mod runtime;
mod support;
