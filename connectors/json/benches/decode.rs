//! Nanoseconds per message: this decoder against arrow-json's, on the same
//! events in the same run.
//!
//! `cargo bench -p tidelock-json`; the number of rounds may be given behind `--`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::ReaderBuilder;
use tidelock_json::sample::{EventGenerator, schema};
use tidelock_json::{JsonDecoder, JsonOptions};

const EVENTS: usize = 200_000;
const BATCH: usize = 8_192;

fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(7);
    let (mut data, mut ends) = (Vec::new(), vec![0]);
    let mut events = EventGenerator::new(7);
    for _ in 0..EVENTS {
        events.write_event(&mut data);
        ends.push(data.len());
    }
    let messages: Vec<&[u8]> = ends.windows(2).map(|ends| &data[ends[0]..ends[1]]).collect();
    println!("{EVENTS} events, {} bytes on average, batches of {BATCH}", data.len() / EVENTS);

    let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
    for round in 1..=rounds {
        let (us, them) = (time(&messages, decode), time(&messages, decode_with_arrow));
        println!("round {round}: tidelock-json {us:.1} ns, arrow-json {them:.1} ns");
        (ours, theirs) = (ours.min(us), theirs.min(them));
    }
    println!(
        "best: tidelock-json {ours:.1} ns per message, arrow-json {theirs:.1} ns, ratio {:.2}",
        theirs / ours
    );
}

fn time(messages: &[&[u8]], decode: fn(&[&[u8]]) -> usize) -> f64 {
    let start = Instant::now();
    let rows = decode(black_box(messages));
    let elapsed = start.elapsed();
    assert_eq!(rows, messages.len());
    elapsed.as_secs_f64() * 1e9 / rows as f64
}

fn decode(messages: &[&[u8]]) -> usize {
    let mut decoder = JsonDecoder::new(schema(), JsonOptions::default()).expect("a good schema");
    let batches = messages.chunks(BATCH).map(|chunk| {
        for message in chunk {
            decoder.decode(message).expect("a good event");
        }
        decoder.finish().expect("good columns")
    });
    count(batches)
}

fn decode_with_arrow(messages: &[&[u8]]) -> usize {
    let builder = ReaderBuilder::new(without_named_zone()).with_batch_size(BATCH);
    let mut decoder = builder.build_decoder().expect("a good schema");
    let batches = messages.chunks(BATCH).map(|chunk| {
        for message in chunk {
            decoder.decode(message).expect("a good event");
        }
        decoder.flush().expect("good columns").expect("rows")
    });
    count(batches)
}

fn count(batches: impl Iterator<Item = RecordBatch>) -> usize {
    batches.map(|batch| black_box(batch).num_rows()).sum()
}

/// arrow-json knows `UTC` only with a zone database.
fn without_named_zone() -> SchemaRef {
    let schema = schema();
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            let unit: TimeUnit = *unit;
            let data_type = DataType::Timestamp(unit, Some("+00:00".into()));
            Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
