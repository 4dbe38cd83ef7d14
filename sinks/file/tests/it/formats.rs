//! Every type there and back, with every codec.

use std::io::Read;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidelock_connector::{Sink, Stream, arrow};
use tidelock_file::{
    Compression, Dictionary, JsonLinesSink, ParquetConfig, ParquetSink, Statistics,
};

use crate::support::{Worker, memory_url, read_parquet};

const ROWS: usize = 3_000;

fn nullable<T>(i: usize, value: T) -> Option<T> {
    (i % 11 != 3).then_some(value)
}

/// A column of every kind that a pipeline can make; `binary` apart, which JSON
/// cannot give back without knowing.
fn all_types() -> RecordBatch {
    let n = || 0..ROWS;
    let text = |i: usize| nullable(i, format!("text {i} \"quoted\" \u{1F30A} \\ \n"));
    let mut tags = ListBuilder::new(StringBuilder::new());
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for i in n() {
        for j in 0..i % 4 {
            tags.values().append_option(nullable(i + j, format!("tag{j}")));
        }
        tags.append(i % 7 != 5);
        map.keys().append_value(format!("k{i}"));
        map.values().append_option(nullable(i, i as i64));
        map.append(true).unwrap();
    }
    let lat: ArrayRef = Arc::new(Float64Array::from_iter(n().map(|i| nullable(i, i as f64 / 7.0))));
    let country: ArrayRef =
        Arc::new(StringArray::from_iter(n().map(|i| nullable(i, ["DE", "FR"][i % 2]))));
    let geo = StructArray::from(vec![
        (Arc::new(Field::new("lat", DataType::Float64, true)), lat),
        (Arc::new(Field::new("country", DataType::Utf8, true)), country),
    ]);
    let us = |i: usize| nullable(i, 1_700_000_000_000_000 + i as i64 * 1_001);
    RecordBatch::try_from_iter_with_nullable([
        ("i8", Arc::new(Int8Array::from_iter(n().map(|i| nullable(i, i as i8)))) as ArrayRef, true),
        ("i16", Arc::new(Int16Array::from_iter(n().map(|i| nullable(i, i as i16)))) as _, true),
        ("i32", Arc::new(Int32Array::from_iter(n().map(|i| nullable(i, -(i as i32))))) as _, true),
        (
            "i64",
            Arc::new(Int64Array::from_iter_values(n().map(|i| i64::MAX - i as i64))) as _,
            false,
        ),
        ("u8", Arc::new(UInt8Array::from_iter(n().map(|i| nullable(i, i as u8)))) as _, true),
        (
            "u32",
            Arc::new(UInt32Array::from_iter(n().map(|i| nullable(i, u32::MAX - i as u32)))) as _,
            true,
        ),
        (
            "u64",
            Arc::new(UInt64Array::from_iter(n().map(|i| nullable(i, u64::MAX - i as u64)))) as _,
            true,
        ),
        (
            "f32",
            Arc::new(Float32Array::from_iter(n().map(|i| nullable(i, i as f32 / 3.0)))) as _,
            true,
        ),
        (
            "f64",
            Arc::new(Float64Array::from_iter(n().map(|i| nullable(i, i as f64 / 3.0)))) as _,
            true,
        ),
        (
            "bool",
            Arc::new(BooleanArray::from_iter(n().map(|i| nullable(i, i % 3 == 0)))) as _,
            true,
        ),
        ("utf8", Arc::new(StringArray::from_iter(n().map(text))) as _, true),
        ("large", Arc::new(LargeStringArray::from_iter(n().map(text))) as _, true),
        ("view", Arc::new(StringViewArray::from_iter(n().map(text))) as _, true),
        (
            "date32",
            Arc::new(Date32Array::from_iter(n().map(|i| nullable(i, i as i32 - 900)))) as _,
            true,
        ),
        ("ts_us", Arc::new(TimestampMicrosecondArray::from_iter(n().map(us))) as _, true),
        (
            "ts_utc",
            Arc::new(TimestampMicrosecondArray::from_iter(n().map(us)).with_timezone("UTC")) as _,
            true,
        ),
        (
            "ts_ms",
            Arc::new(TimestampMillisecondArray::from_iter(n().map(|i| us(i).map(|us| us / 1_000))))
                as _,
            true,
        ),
        (
            "time",
            Arc::new(Time64MicrosecondArray::from_iter(n().map(|i| nullable(i, i as i64)))) as _,
            true,
        ),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from_iter(n().map(|i| nullable(i, i as i128 * 1_000_003)))
                    .with_precision_and_scale(30, 4)
                    .unwrap(),
            ) as _,
            true,
        ),
        (
            "small_decimal",
            Arc::new(
                Decimal128Array::from_iter(n().map(|i| nullable(i, -(i as i128))))
                    .with_precision_and_scale(9, 2)
                    .unwrap(),
            ) as _,
            true,
        ),
        ("geo", Arc::new(geo) as _, true),
        ("tags", Arc::new(tags.finish()) as _, true),
        ("map", Arc::new(map.finish()) as _, true),
        ("nothing", Arc::new(StringArray::from_iter(n().map(|_| None::<&str>))) as _, true),
    ])
    .unwrap()
}

fn with_binary(records: &RecordBatch) -> RecordBatch {
    let bytes = |i: usize| nullable(i, i.to_le_bytes());
    let binary: ArrayRef = Arc::new(BinaryArray::from_iter((0..ROWS).map(bytes)));
    let fixed =
        FixedSizeBinaryArray::try_from_sparse_iter_with_size((0..ROWS).map(bytes), 8).unwrap();
    let dictionary: DictionaryArray<Int32Type> =
        (0..ROWS).map(|i| Some(["a", "b", "c"][i % 3])).collect();
    let mut fields: Vec<_> = records.schema().fields().iter().cloned().collect();
    let mut columns = records.columns().to_vec();
    let more: [(&str, ArrayRef); 3] =
        [("binary", binary), ("fixed", Arc::new(fixed)), ("dictionary", Arc::new(dictionary))];
    for (name, column) in more {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

async fn parquet_round_trip(records: &RecordBatch, codec: Compression, parquet: ParquetConfig) {
    let sink =
        ParquetSink::builder(memory_url()).compression(codec).parquet(parquet).build().unwrap();
    sink.check(&[Stream::new("orders", records.schema())]).await.unwrap();
    let mut worker = Worker::new(&sink).await;
    // Slices have offsets, which is where encoders err.
    for (from, count) in [(0, 1), (1, 1_999), (2_000, ROWS - 2_000)] {
        worker.write(&records.slice(from, count)).await;
    }
    let committed = worker.checkpoint(0, ROWS as i64).await;
    assert_eq!(committed.len(), 1);
    assert_eq!(committed[0].rows, ROWS as u64);
    let read = read_parquet(&worker.store, &committed[0].name).await;
    let read = concat_batches(&read[0].schema(), &read).unwrap();
    for (field, (expected, found)) in
        records.schema().fields().iter().zip(records.columns().iter().zip(read.columns()))
    {
        assert_eq!(expected, found, "{} with {codec}", field.name());
    }
}

#[tokio::test]
async fn parquet_gives_every_type_back() {
    let records = with_binary(&all_types());
    for codec in ["none", "snappy", "lz4", "gzip(1)", "zstd(1)", "zstd(9)"] {
        parquet_round_trip(&records, codec.parse().unwrap(), ParquetConfig::default()).await;
    }
}

#[tokio::test]
async fn parquet_options_do_not_change_the_rows() {
    let records = with_binary(&all_types());
    let columns = Dictionary::Columns(vec!["geo".into(), "utf8".into(), "tags.list.item".into()]);
    for dictionary in [Dictionary::All, Dictionary::Never, columns] {
        for statistics in [Statistics::Page, Statistics::RowGroup, Statistics::None] {
            let parquet = ParquetConfig {
                dictionary: dictionary.clone(),
                statistics,
                row_group_rows: 700,
                ..ParquetConfig::default()
            };
            parquet_round_trip(&records, Compression::Zstd(1), parquet).await;
        }
    }
}

/// Values as people see them: bytes below nulls do not count.
fn shown(array: &ArrayRef) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let formatter = ArrayFormatter::try_new(array, &options).unwrap();
    (0..array.len()).map(|row| formatter.value(row).to_string()).collect()
}

fn numbered_zones(records: &RecordBatch) -> RecordBatch {
    let schema = records.schema();
    let columns = schema.fields().iter().zip(records.columns()).map(|(field, column)| {
        let column = match column.data_type() {
            DataType::Timestamp(unit, Some(_)) => {
                let utc = DataType::Timestamp(*unit, Some("+00:00".into()));
                arrow::compute::cast(column, &utc).unwrap()
            }
            _ => Arc::clone(column),
        };
        (field.name().clone(), column, field.is_nullable())
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

#[tokio::test]
async fn json_lines_give_every_type_back() {
    let records = all_types();
    for codec in ["none", "gzip", "zstd(3)"] {
        let sink = JsonLinesSink::builder(memory_url())
            .compression(codec.parse().unwrap())
            .build()
            .unwrap();
        sink.check(&[Stream::new("orders", records.schema())]).await.unwrap();
        let mut worker = Worker::new(&sink).await;
        worker.write(&records.slice(0, 1_000)).await;
        worker.write(&records.slice(1_000, ROWS - 1_000)).await;
        let committed = worker.checkpoint(0, ROWS as i64).await;
        let bytes = worker.store.get(&committed[0].name).await.unwrap().unwrap();
        let mut text = Vec::new();
        match codec {
            "none" => text = bytes.to_vec(),
            "gzip" => {
                flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
            }
            _ => text = zstd::decode_all(&bytes[..]).unwrap(),
        }
        // Named time zones come back as what they are called in numbers.
        let records = numbered_zones(&records);
        let mut reader = arrow::json::ReaderBuilder::new(records.schema())
            .with_batch_size(ROWS)
            .build(&text[..])
            .unwrap();
        let read = reader.next().unwrap().unwrap();
        for (field, (expected, found)) in
            records.schema().fields().iter().zip(records.columns().iter().zip(read.columns()))
        {
            assert_eq!(shown(expected), shown(found), "{} with {codec}", field.name());
        }
    }
}

#[tokio::test]
async fn repeating_values_get_dictionaries_and_others_do_not() {
    let sink = ParquetSink::builder(memory_url()).build().unwrap();
    let mut worker = Worker::new(&sink).await;
    worker.write(&crate::support::rows(0, 5_000)).await;
    let committed = worker.checkpoint(0, 5_000).await;
    let bytes = worker.store.get(&committed[0].name).await.unwrap().unwrap();
    let metadata =
        parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap();
    let dictionaries: Vec<_> = metadata
        .row_group(0)
        .columns()
        .iter()
        .map(|c| {
            (
                c.column_path().string(),
                c.dictionary_page_offset().is_some(),
                c.statistics().is_some(),
            )
        })
        .collect();
    let expected = [
        ("_topic", true, true),
        ("_partition", false, true),
        ("_offset", false, true),
        ("value", true, true),
        ("text", false, false),
    ];
    assert_eq!(dictionaries, expected.map(|(name, d, s)| (name.to_owned(), d, s)));
}

#[tokio::test]
async fn columns_that_a_format_cannot_hold_are_refused_at_start() {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let schema = Arc::new(Schema::new(vec![Field::new("i", interval, true)]));
    let sink = JsonLinesSink::builder(memory_url()).build().unwrap();
    let error = sink.check(&[Stream::new("orders", Arc::clone(&schema))]).await.unwrap_err();
    assert!(error.to_string().contains("column=i"), "{error}");

    let parquet = ParquetConfig {
        dictionary: Dictionary::Columns(vec!["land".into()]),
        ..Default::default()
    };
    let sink = ParquetSink::builder(memory_url()).parquet(parquet).build().unwrap();
    let schema = crate::support::rows(0, 1).schema();
    let error = sink.check(&[Stream::new("orders", schema)]).await.unwrap_err();
    assert!(error.to_string().contains("\"land\""), "{error}");
}
