//! The same columns as arrow-json's, and nothing left of refused messages.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use serde::de::IgnoredAny;
use tidelock_json::{DecodeError, JsonDecoder, JsonOptions};

use crate::events::{Messages, schema};

fn ours<'a>(
    schema: &SchemaRef,
    messages: impl IntoIterator<Item = &'a [u8]>,
) -> Result<RecordBatch, DecodeError> {
    let mut decoder = JsonDecoder::new(Arc::clone(schema), JsonOptions::default()).unwrap();
    for message in messages {
        decoder.decode(message)?;
    }
    Ok(decoder.finish().unwrap())
}

fn theirs<'a>(
    schema: &SchemaRef,
    messages: impl IntoIterator<Item = &'a [u8]>,
) -> Result<RecordBatch, ArrowError> {
    let builder = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(1 << 16);
    let mut decoder = builder.build_decoder()?;
    for message in messages {
        // arrow-json ends a number only when something follows it.
        for part in [message, b"\n"] {
            let taken = decoder.decode(part)?;
            if taken < part.len() {
                return Err(ArrowError::JsonError("not all of it was taken".into()));
            }
        }
    }
    decoder.flush()?.ok_or_else(|| ArrowError::JsonError("no rows".into()))
}

#[test]
fn the_columns_equal_those_of_arrow_json() {
    let schema = schema();
    for seed in 0..210 {
        let mut generator = Messages::new(seed);
        let messages: Vec<String> = (0..480).map(|_| generator.message()).collect();
        let bytes = || messages.iter().map(String::as_bytes);
        match (ours(&schema, bytes()), theirs(&schema, bytes())) {
            (Ok(ours), Ok(theirs)) if ours == theirs => {}
            _ => explain(seed, &messages),
        }
    }
}

/// Finds the first message that the two do not agree on.
fn explain(seed: u64, messages: &[String]) {
    let schema = schema();
    for message in messages {
        let bytes = [message.as_bytes()];
        let (ours, theirs) = (ours(&schema, bytes), theirs(&schema, bytes));
        let (ours, theirs) = match (ours, theirs) {
            (Ok(ours), Ok(theirs)) if ours == theirs => continue,
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (ours, theirs) => {
                panic!("seed {seed}: {message}\nours: {:?}\ntheirs: {:?}", ours.err(), theirs.err())
            }
        };
        for ((ours, theirs), field) in
            ours.columns().iter().zip(theirs.columns()).zip(schema.fields())
        {
            let name = field.name();
            assert_eq!(ours, theirs, "seed {seed}: {name} of {message}");
        }
    }
    panic!("seed {seed}: the batches differ, the messages do not");
}

/// Damages a message, or splices two.
fn mutate(generator: &mut Messages, message: &mut Vec<u8>) {
    const ODD: &[u8] = b"{}[]\",:\\0123456789-+.eEtfnulrsai \t\n\x00\x1f\x7f\x80\xc3\xe2\xff";
    for _ in 0..generator.random.random_range(1..4) {
        let at = generator.random.random_range(0..message.len().max(1));
        let end = (at + generator.random.random_range(0..12)).min(message.len());
        let odd = *ODD.choose(&mut generator.random).unwrap();
        match generator.random.random_range(0..8) {
            0 => message.truncate(at),
            1 => drop(message.drain(at.min(end)..end)),
            2 => {
                let part = message.get(at..end).unwrap_or_default().to_vec();
                message.splice(at..at, part);
            }
            3 => message.insert(at.min(message.len()), odd),
            4 => {
                let other = generator.message().into_bytes();
                let from = generator.random.random_range(0..other.len());
                message.truncate(at);
                message.extend_from_slice(&other[from..]);
            }
            _ => {
                if let Some(byte) = message.get_mut(at) {
                    *byte = odd;
                }
            }
        }
    }
}

#[test]
fn nothing_remains_of_refused_messages() {
    for seed in 0..40 {
        let mut generator = Messages::new(seed);
        let mut decoder = JsonDecoder::new(schema(), JsonOptions::default()).unwrap();
        let mut accepted = Vec::new();
        for _ in 0..400 {
            let mut message = generator.message().into_bytes();
            if generator.random.random_ratio(2, 3) {
                mutate(&mut generator, &mut message);
            }
            match decoder.decode(&message) {
                Ok(()) => accepted.push(message),
                Err(refused) => {
                    let said = refused.to_string();
                    assert!(refused.position() <= message.len(), "seed {seed}: {said}");
                }
            }
            assert_eq!(decoder.len(), accepted.len());
        }
        assert!((150..390).contains(&accepted.len()), "{} is no fair test", accepted.len());
        let clean = ours(&schema(), accepted.iter().map(Vec::as_slice)).unwrap();
        assert!(decoder.finish().unwrap() == clean, "seed {seed}: something was left behind");
    }
}

/// What is accepted is JSON and gives what arrow-json makes of it; what only
/// arrow-json accepts is refused for one of the documented reasons.
#[test]
fn damaged_messages_are_judged_as_arrow_json_and_serde_json_judge_them() {
    // arrow-json's decimals panic on some exponents; here they are no column.
    let (decimal, schema) = (DataType::Decimal128(18, 4), schema());
    let fields = schema.fields().iter().filter(|field| *field.data_type() != decimal);
    let schema: SchemaRef = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
    let (mut both, mut neither) = (0, 0);
    for seed in 1_000..1_020 {
        let mut generator = Messages::new(seed);
        for _ in 0..300 {
            let mut message = generator.message().into_bytes();
            mutate(&mut generator, &mut message);
            let text = String::from_utf8_lossy(&message).into_owned();
            let is_json = serde_json::from_slice::<IgnoredAny>(&message).is_ok();
            let bytes = [message.as_slice()];
            match (ours(&schema, bytes), theirs(&schema, bytes)) {
                (Ok(ours), Ok(theirs)) => {
                    both += 1;
                    assert!(is_json, "seed {seed}: {text} is no JSON");
                    assert!(ours == theirs, "seed {seed}: {text} gives other columns");
                }
                (Ok(_), Err(error)) => {
                    assert!(is_json, "seed {seed}: {text} is no JSON");
                    // Strings that nobody wants are not looked into.
                    let said = error.to_string();
                    let hidden = ["non-UTF-8", "surrogate"].iter().any(|why| said.contains(why));
                    assert!(hidden, "seed {seed}: only we take {text}: {said}");
                }
                (Err(error), Ok(_)) if is_json => {
                    let said = error.to_string();
                    let reasons = ["without loss", "out of range", "text that is none"];
                    let stricter = reasons.iter().any(|reason| said.contains(reason))
                        || ours(&schema, [last_of_each_key(&message).as_bytes()]).is_ok();
                    assert!(stricter, "seed {seed}: we refuse {text}: {said}");
                }
                (Err(_), _) => neither += 1,
            }
        }
    }
    assert!(both > 300 && neither > 300, "{both} and {neither} are no fair test");
}

/// The message as it is when a key that is given twice counts only once.
fn last_of_each_key(message: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(message).unwrap().to_string()
}

#[test]
fn random_bytes_and_values_do_no_harm() {
    const TEXT: &[u8] = b"0123456789012345678901234567890123456789-+:.TZtz eE/";
    let mut generator = Messages::new(1);
    let mut decoder = JsonDecoder::new(schema(), JsonOptions::default()).unwrap();
    for round in 0..30_000 {
        let length = generator.random.random_range(0..40);
        let mut bytes: Vec<u8> = (0..length).map(|_| generator.random.random()).collect();
        if round % 3 == 0 {
            assert!(decoder.decode(&bytes).is_err());
            continue;
        }
        for byte in &mut bytes {
            *byte = TEXT[usize::from(*byte) % TEXT.len()];
        }
        let text = String::from_utf8(bytes).unwrap();
        let column =
            ["day", "seconds", "millis", "micros", "nanos", "price", "f64", "i64", "u8"][round % 9];
        let quote = if round % 2 == 0 { "\"" } else { "" };
        let message = format!("{{\"{column}\":{quote}{text}{quote}}}");
        let before = decoder.len();
        let taken = decoder.decode(message.as_bytes()).is_ok();
        assert_eq!(decoder.len(), before + usize::from(taken));
    }
    let rows = decoder.len();
    assert_eq!(decoder.finish().unwrap().num_rows(), rows);
}
