//! Nanoseconds per message: this decoder against arrow-json's, on the same
//! events in the same run.
//!
//! `cargo bench -p tidelock-json`; the number of rounds may be given behind `--`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use tidelock_json::sample::{EventGenerator, schema};
use tidelock_json::{JsonDecoder, JsonOptions};

const EVENTS: usize = 100_000;
const BATCH: usize = 8_192;

fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(15);
    let compact = events();
    let spaced: Vec<Vec<u8>> = compact.iter().map(|event| spaced(event)).collect();
    let few = schema().project(&[0, 1, 4]).map(Arc::new).expect("three of the columns");
    println!(
        "{EVENTS} events, batches of {BATCH}, best of {rounds} rounds over all, ns per message"
    );
    println!("{:<34} {:>6} {:>9} {:>11} {:>6}", "", "bytes", "tidelock", "arrow-json", "ratio");
    compare("as a serialiser writes them", &compact, &schema(), rounds);
    compare("with spaces, as Python writes them", &spaced, &schema(), rounds);
    compare("three columns of the eight", &compact, &few, rounds);
}

fn events() -> Vec<Vec<u8>> {
    let mut events = EventGenerator::new(7);
    let event = |_| {
        let mut event = Vec::new();
        events.write_event(&mut event);
        event
    };
    (0..EVENTS).map(event).collect()
}

fn spaced(event: &[u8]) -> Vec<u8> {
    let event = String::from_utf8_lossy(event);
    // No colon or comma stands within a string but those of the timestamp.
    event.replace("\":", "\": ").replace(",\"", ", \"").into_bytes()
}

fn compare(name: &str, messages: &[Vec<u8>], schema: &SchemaRef, rounds: usize) {
    let mut ours =
        JsonDecoder::new(Arc::clone(schema), JsonOptions::default()).expect("a good schema");
    let mut theirs = ReaderBuilder::new(without_named_zone(schema))
        .with_batch_size(BATCH)
        .build_decoder()
        .expect("a good schema");
    let (mut us, mut them) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        for batch in messages.chunks_exact(BATCH) {
            us = us.min(time(batch, |messages| {
                for message in messages {
                    ours.decode(message).expect("a good event");
                }
                ours.finish().expect("good columns")
            }));
            them = them.min(time(batch, |messages| {
                for message in messages {
                    theirs.decode(message).expect("a good event");
                }
                theirs.flush().expect("good columns").expect("rows")
            }));
        }
    }
    let bytes = messages.iter().map(Vec::len).sum::<usize>() / messages.len();
    println!("{name:<34} {bytes:>6} {us:>9.1} {them:>11.1} {:>6.2}", them / us);
}

/// Nanoseconds per message of one batch. A batch takes a millisecond or two:
/// the best of many is what the code needs, whatever else the machine does.
fn time(messages: &[Vec<u8>], mut decode: impl FnMut(&[Vec<u8>]) -> RecordBatch) -> f64 {
    let start = Instant::now();
    let batch = decode(black_box(messages));
    let elapsed = start.elapsed();
    assert_eq!(black_box(batch).num_rows(), messages.len());
    elapsed.as_secs_f64() * 1e9 / messages.len() as f64
}

/// arrow-json knows `UTC` only with a zone database.
fn without_named_zone(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            let data_type = DataType::Timestamp(*unit, Some("+00:00".into()));
            Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
