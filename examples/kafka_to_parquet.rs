//! Kafka to Parquet, declared in Rust.
//!
//! ```sh
//! docker compose up -d        # or: cargo run -p tidelock-services -- up
//! cargo run --example kafka_to_parquet -- localhost:9092 orders ./lake
//! ```
//! Arguments: brokers, topic, and where the files go: a folder, or
//! `s3://bucket/prefix` with the usual `AWS_…` variables in the environment.
//! With `--until-end` it stops at the offsets that are the ends now.

use std::time::Duration;

use tidelock::connector::arrow::array::RecordBatch;
use tidelock::connector::arrow::compute::filter_record_batch;
use tidelock::connector::arrow::datatypes::{DataType, Field, Schema};
use tidelock::connector::{Error, Result};
use tidelock::file::{Compression, ParquetSink};
use tidelock::kafka::{Json, KafkaSource};
use tidelock::{Pipeline, shutdown_on_ctrl_c};

/// A transform is a function: this one leaves out rows without an id.
fn with_id(rows: RecordBatch) -> Result<RecordBatch> {
    let id = rows.column_by_name("id").ok_or_else(|| Error::config("no column \"id\""))?;
    let keep = tidelock::connector::arrow::compute::is_not_null(id)?;
    Ok(filter_record_batch(&rows, &keep)?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let until_end = arguments.iter().any(|argument| argument == "--until-end");
    arguments.retain(|argument| argument != "--until-end");
    let [brokers, topic, url] = arguments.as_slice() else {
        return Err(Error::config("usage: kafka_to_parquet BROKERS TOPIC URL [--until-end]"));
    };

    let schema = Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("country", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
    ]);
    let source = KafkaSource::builder(brokers, "orders-to-lake")
        .topics([topic.as_str()])
        .format(Json::schema(schema))
        .build()?;
    let lake = ParquetSink::builder(url)
        .partition_by(["country"])
        .compression(Compression::Zstd(1))
        .build()?;

    let report = Pipeline::builder("orders-to-lake")
        .source(source)
        .map(with_id)
        .sink("lake", lake)
        .checkpoint_every(Duration::from_secs(10))
        .until_end(until_end)
        .run(shutdown_on_ctrl_c())
        .await?;
    let lake = report.sinks.get("lake").cloned().unwrap_or_default();
    println!("{} records in, {} rows out in {} files", report.records, lake.rows, lake.files);
    Ok(())
}
