//! The decoder from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say so")]

mod comparison;
mod errors;
mod events;
mod rows;
mod schema;
mod types;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use tidelock_json::{JsonDecoder, JsonOptions};

/// A decoder with one nullable column `v`.
fn one(data_type: DataType) -> JsonDecoder {
    decoder(vec![Field::new("v", data_type, true)])
}

fn decoder(fields: Vec<Field>) -> JsonDecoder {
    JsonDecoder::new(Arc::new(Schema::new(fields)), JsonOptions::default()).unwrap()
}

/// The column of the values, each as the `v` of a message of its own.
fn column(data_type: &DataType, values: &[&str]) -> ArrayRef {
    let mut decoder = one(data_type.clone());
    for value in values {
        decoder.decode(format!("{{\"v\":{value}}}").as_bytes()).unwrap();
    }
    assert_eq!(decoder.len(), values.len());
    let batch = decoder.finish().unwrap();
    assert!(decoder.is_empty());
    Arc::clone(batch.column(0))
}

/// What the decoder says to a value that it must refuse; nothing of it may
/// remain, and the next message must be taken.
fn refusal(data_type: &DataType, value: &str) -> String {
    let mut decoder = one(data_type.clone());
    let message = format!("{{\"v\":{value}}}");
    let refused = match decoder.decode(message.as_bytes()) {
        Err(refused) => refused.to_string(),
        Ok(()) => panic!("{data_type} took {value}: {:?}", decoder.finish().unwrap().column(0)),
    };
    decoder.decode(b"{}").unwrap();
    let batch: RecordBatch = decoder.finish().unwrap();
    assert_eq!(batch.num_rows(), 1);
    assert_eq!(batch.column(0).null_count(), 1);
    refused
}
