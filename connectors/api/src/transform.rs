//! What happens to rows on their way.

use arrow::array::RecordBatch;

use crate::Result;

/// A pure function of one batch: rows in, rows out.
///
/// It may drop, add and reorder rows and change the schema, and it must give
/// the same rows for the same rows: after a crash they pass through again. The
/// schema of its output may depend only on the schema of its input; it is
/// found by applying the transform to a batch without rows.
///
/// Every `FnMut(RecordBatch) -> Result<RecordBatch>` is a transform.
pub trait Transform: Send {
    /// Transforms one batch.
    ///
    /// # Errors
    /// An error ends the run: a transform has nothing to wait for.
    fn apply(&mut self, records: RecordBatch) -> Result<RecordBatch>;
}

impl<F> Transform for F
where
    F: FnMut(RecordBatch) -> Result<RecordBatch> + Send,
{
    fn apply(&mut self, records: RecordBatch) -> Result<RecordBatch> {
        self(records)
    }
}
