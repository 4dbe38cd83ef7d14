//! The `parquet` crate's reader on a [`Store`].

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;
use tidelock_store::{Entry, Store};

/// One file of a store.
pub(super) struct StoreReader {
    pub(super) store: Store,
    pub(super) entry: Entry,
}

impl AsyncFileReader for StoreReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let read = self.store.get_range(&self.entry.path, range).await;
            read.map_err(|e| ParquetError::External(e.into()))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let read = super::read_metadata(&self.store, &self.entry).await;
            read.map(Arc::new).map_err(|e| ParquetError::External(e.into()))
        }
        .boxed()
    }
}
