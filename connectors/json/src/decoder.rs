//! From messages to record batches.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidelock_connector::{Error, ErrorKind, Result};

use crate::cursor::Cursor;
use crate::error::{DecodeError, Reason};
use crate::object::Object;
use crate::schema;

/// What a batch may take in: offsets into it have 31 bits, and no value takes
/// more room in a column than it took in its message.
const MAX_BATCH_BYTES: usize = i32::MAX as usize;

/// How a decoder takes messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JsonOptions {
    /// Refuse messages with fields that the schema does not have, instead of
    /// passing over such fields.
    pub deny_unknown_fields: bool,
}

impl JsonOptions {
    /// Sets [`deny_unknown_fields`](Self::deny_unknown_fields).
    #[must_use]
    pub fn with_deny_unknown_fields(mut self, deny: bool) -> Self {
        self.deny_unknown_fields = deny;
        self
    }
}

/// Decodes JSON messages, one row each, into the columns of a schema.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use tidelock_json::{JsonDecoder, JsonOptions};
///
/// let schema = Arc::new(Schema::new(vec![
///     Field::new("id", DataType::Utf8, false),
///     Field::new("amount", DataType::Float64, true),
/// ]));
/// let mut decoder = JsonDecoder::new(schema, JsonOptions::default())?;
/// decoder.decode(br#"{"id": "a", "amount": 1.5, "note": "not a column"}"#)?;
/// decoder.decode(br#"{"id": "b"}"#)?;
/// let refused = decoder.decode(br#"{"id": "c", "amount": true}"#).unwrap_err();
/// assert_eq!(
///     refused.to_string(),
///     r#"column "amount": expected float64, found boolean at byte 22"#
/// );
/// assert_eq!(decoder.finish()?.num_rows(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct JsonDecoder {
    schema: SchemaRef,
    root: Object,
    rows: usize,
    /// The sum of the messages' lengths since the batch began.
    taken: usize,
}

impl JsonDecoder {
    /// A decoder for the columns of `schema`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] names the column that cannot be decoded from JSON:
    /// its type is not one of the [supported ones](crate#types), its name is
    /// there twice, or it is nested too deeply.
    pub fn new(schema: SchemaRef, options: JsonOptions) -> Result<Self> {
        schema::check(schema.fields())?;
        let root = Object::new(schema.fields(), "", options.deny_unknown_fields)
            .map_err(|error| Error::config("schema cannot be decoded from JSON").source(error))?;
        Ok(Self { schema, root, rows: 0, taken: 0 })
    }

    /// The schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Decodes one message, an object with white space around it or none, and
    /// appends exactly one row.
    ///
    /// # Errors
    /// Says where and why the message was refused. Nothing of it remains, and
    /// the decoder is ready for the next one.
    #[inline]
    pub fn decode(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        match self.try_decode(message) {
            Ok(()) => {
                self.rows += 1;
                self.taken += message.len();
                Ok(())
            }
            Err(error) => {
                self.root.truncate(self.rows);
                Err(error)
            }
        }
    }

    #[inline]
    fn try_decode(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let mut cursor = Cursor::new(message, 0);
        if message.len() > MAX_BATCH_BYTES - self.taken {
            return Err(cursor.error(Reason::Full));
        }
        cursor.skip_space();
        cursor.at = self.root.read(message, cursor.at, self.rows)?;
        cursor.skip_space();
        if cursor.at < message.len() {
            return Err(cursor.expected("the end of the message"));
        }
        Ok(())
    }

    /// How many rows the batch has so far.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether the batch has no rows yet.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes that the rows take so far. Visits every column, so it is better
    /// asked once for some messages than once for each.
    pub fn buffered_bytes(&self) -> usize {
        self.root.bytes()
    }

    /// Ends the batch and begins the next one, which has room for about as much
    /// from the start. The columns' buffers become the arrays' without a copy.
    ///
    /// # Errors
    /// None that a message could cause: Arrow checks the arrays once more.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        self.rows = 0;
        self.taken = 0;
        let batch = self
            .root
            .finish()
            .and_then(|(_, arrays)| RecordBatch::try_new(self.schema.clone(), arrays));
        batch.map_err(|error| Error::new(ErrorKind::Schema, "decoded columns").source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_batch_takes_nothing_until_it_is_finished() {
        let mut decoder =
            JsonDecoder::new(crate::sample::schema(), JsonOptions::default()).unwrap();
        let mut event = Vec::new();
        crate::sample::EventGenerator::new(1).write_event(&mut event);
        decoder.taken = MAX_BATCH_BYTES - event.len();
        decoder.decode(&event).unwrap();
        let refused = decoder.decode(&event).unwrap_err();
        assert!(refused.is_full(), "{refused}");
        assert_eq!(decoder.finish().unwrap().num_rows(), 1);
        decoder.decode(&event).unwrap();
    }
}
