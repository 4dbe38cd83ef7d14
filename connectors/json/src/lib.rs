//! JSON messages straight into Arrow columns, by a schema.
//!
//! One pass over each message, no tree and no tape in between: the bytes of a
//! value go from the message into the column's buffer, and the buffer becomes
//! the Arrow array. A [`JsonDecoder`] appends one row per message, **all of it
//! or nothing**: a message that is refused leaves no trace in any column, and
//! its [`DecodeError`] says which column, which byte, what was expected and
//! what was found.
//!
//! # Types
//! [`to_arrow`] makes a schema of a declaration; a hand-made one may have the
//! same types.
//!
//! | type | takes |
//! |---|---|
//! | `utf8`, `large_utf8` | strings |
//! | `binary` | strings in base64, padded or not |
//! | `int8` … `int64`, `uint8` … `uint64` | numbers that are integers (`1.0` and `1e3` are) and in range |
//! | `float32`, `float64` | numbers that do not overflow; the strings `NaN`, `Infinity`, `-Infinity` |
//! | `decimal128(precision, scale)` | numbers that the digits can hold exactly |
//! | `boolean` | `true`, `false` |
//! | `date32` | `2026-01-31`, or days since 1970 |
//! | `timestamp(s\|ms\|us\|ns[, zone])` | RFC 3339 and what is close to it, or a number in that unit |
//! | `struct` with `fields` | objects |
//! | `list` with an `item` | arrays |
//! | `json` | anything, kept as the text that it was (marked as Arrow's `arrow.json`) |
//!
//! # What is taken
//! * A message is one object, with or without white space around it.
//! * Fields that the schema does not have are passed over, unless
//!   [`JsonOptions::deny_unknown_fields`] says otherwise. They must be JSON, and
//!   not nested deeper than [`MAX_DEPTH`] levels.
//! * A field that is null or missing is null, or an error where the column is
//!   not nullable (a `json` column that is not nullable keeps the text `null`).
//! * Of a field given twice the last value counts; each must fit.
//! * Numbers may stand in strings, as protobuf's JSON writes them.
//! * Nothing is rounded but floats; digits of a timestamp beyond its unit are
//!   dropped. A timestamp without an offset is meant in the column's zone, UTC
//!   when it has none; with a named zone (`Europe/Berlin`) it is refused.
//!
//! Where `arrow-json` takes a message that is valid JSON, the columns are the
//! same (a test compares 100,000 messages), but for what it takes and this
//! decoder refuses: fractions for integers, digits of decimals beyond the scale,
//! floats that overflow to infinity, numbers in strings with white space around
//! them. And binary is hex there.

mod chunk;
mod column;
mod cursor;
mod decoder;
mod error;
mod number;
mod object;
pub mod sample;
mod schema;
mod time;

pub use decoder::{JsonDecoder, JsonOptions};
pub use error::DecodeError;
pub use schema::{ColumnSpec, ItemSpec, as_json, to_arrow};

/// How many levels values and schemas may be nested.
pub const MAX_DEPTH: usize = 64;
