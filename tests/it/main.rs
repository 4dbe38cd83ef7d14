//! The integration tests of Tidelock: one binary, modules inside.

mod runtime;
