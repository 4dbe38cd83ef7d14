//! Where a pipeline's record is, for commands that look at it from outside.

use std::sync::Arc;

use tidelock_connector::Error;
use tidelock_store::{Store, StoreConfig};

use crate::checkpoint::store::{MemoryRecord, RecordStore, StoredRecord};
use crate::config::Config;
use crate::pipeline::State;

/// The record of a pipeline; an empty one where it keeps none.
pub(super) async fn of(config: &Config) -> Result<Arc<dyn RecordStore>, Error> {
    let store = match config.state() {
        State::None => return Ok(Arc::new(MemoryRecord::default())),
        State::Store(config) => Store::open(&config)?,
        State::WithSink => home(config)?,
    };
    store.check().await?;
    Ok(Arc::new(StoredRecord::new(store, &config.name)))
}

/// The store of the only sink that has one.
fn home(config: &Config) -> Result<Store, Error> {
    let home = config.sinks.iter().find_map(|sink| sink.sink.home());
    let home = home.ok_or_else(|| {
        Error::config("no sink has a store, so there is no record: set `[checkpoint] state`")
    })?;
    let storage = serde_json::from_value(home.storage)
        .map_err(|error| Error::config("the sink's storage options").source(error))?;
    Store::open(&StoreConfig { url: home.url, storage })
}
