//! A sink of your own, in one file.
//!
//! It prints rows to standard output, at least once: after a crash the rows
//! since the last checkpoint are printed again. Two short methods and no
//! committer are all that takes. For exactly once, implement `Sink`,
//! `SinkWriter` and `Committer` instead; `tidelock_connector::testing` has the
//! conformance suite that tells whether you got it right.
//!
//! ```sh
//! cargo run --example custom_sink
//! ```

use tidelock::{Pipeline, State};
use tidelock_connector::testing::MemorySource;
use tidelock_connector::{AtLeastOnce, AtLeastOnceWriter, Batch, Result, async_trait};

/// Prints one line per batch.
struct Printer {
    rows: usize,
}

#[async_trait]
impl AtLeastOnceWriter for Printer {
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        self.rows += batch.num_rows();
        for (partition, offsets) in batch.coverage.iter() {
            println!("{partition}: offsets {offsets}, {} rows in this batch", batch.num_rows());
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        println!("checkpoint: {} rows so far", self.rows);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // Any source will do; this one reads from memory and ends by itself.
    let source = MemorySource::new().topic("greetings", 2).bounded();
    source.log().append("greetings", 0, [(1, "hello"), (2, "world")]);
    source.log().append("greetings", 1, [(3, "again")]);

    let report = Pipeline::builder("custom-sink")
        .source(source)
        .sink("printer", AtLeastOnce::new(|_ctx| Ok(Printer { rows: 0 })))
        .state(State::None)
        .run(tidelock::shutdown_on_ctrl_c())
        .await?;
    println!("done: {} records in {} checkpoints", report.records, report.checkpoints);
    Ok(())
}
