//! A look at the first values of a column, to choose its encoding.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::{RowConverter, SortField};

/// How many values are looked at.
const SAMPLED: usize = 2_048;
/// Whole numbers within this range need so few bits that a dictionary is no use.
const NARROW: i64 = 1 << 16;

/// What the first values of a leaf column are like.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    values: usize,
    distinct: usize,
    /// Of variable-length values.
    pub(super) average_bytes: usize,
    wide: bool,
}

impl Sample {
    pub(super) fn of(leaf: &ArrayRef) -> Self {
        let leaf = leaf.slice(0, leaf.len().min(SAMPLED));
        let Some(distinct) = distinct(&leaf) else { return Self::default() };
        Self {
            values: leaf.len() - leaf.null_count(),
            distinct,
            average_bytes: average_bytes(&leaf),
            wide: is_wide(&leaf),
        }
    }

    /// Whether each value is seen several times.
    pub(super) fn repeats(&self) -> bool {
        self.distinct * 4 <= self.values
    }

    /// Whether a few values that are far apart are seen many times.
    pub(super) fn repeats_wide_numbers(&self) -> bool {
        self.wide && self.distinct * 32 <= self.values
    }
}

/// How many values differ, nulls apart; nothing for types without an order.
fn distinct(leaf: &ArrayRef) -> Option<usize> {
    let converter = RowConverter::new(vec![SortField::new(leaf.data_type().clone())]).ok()?;
    let rows = converter.convert_columns(&[Arc::clone(leaf)]).ok()?;
    let seen: HashSet<&[u8]> =
        (0..leaf.len()).filter(|i| leaf.is_valid(*i)).map(|i| rows.row(i).data()).collect();
    Some(seen.len())
}

fn average_bytes(leaf: &ArrayRef) -> usize {
    let lengths = arrow::compute::kernels::length::length(leaf)
        .and_then(|lengths| cast(&lengths, &DataType::Int64));
    let Ok(lengths) = lengths else { return 0 };
    let lengths = lengths.as_primitive::<Int64Type>();
    let total: i64 = lengths.iter().flatten().sum();
    let values = lengths.len() - lengths.null_count();
    usize::try_from(total).unwrap_or(0).checked_div(values).unwrap_or(0)
}

fn is_wide(leaf: &ArrayRef) -> bool {
    let Ok(numbers) = cast(leaf, &DataType::Int64) else { return false };
    let numbers = numbers.as_primitive::<Int64Type>();
    match (min(numbers), max(numbers)) {
        (Some(low), Some(high)) => high.checked_sub(low).is_none_or(|range| range > NARROW),
        _ => false,
    }
}

/// The leaves of all columns, in the order of Parquet's columns. Offsets and
/// nulls of what holds them do not matter here.
pub(super) fn leaves(records: &RecordBatch) -> Vec<ArrayRef> {
    let mut found = Vec::new();
    for column in records.columns() {
        collect(column, &mut found);
    }
    found
}

fn collect(array: &ArrayRef, found: &mut Vec<ArrayRef>) {
    match array.data_type() {
        DataType::Struct(_) => {
            for column in array.as_struct().columns() {
                collect(column, found);
            }
        }
        DataType::List(_) => collect(array.as_list::<i32>().values(), found),
        DataType::LargeList(_) => collect(array.as_list::<i64>().values(), found),
        DataType::ListView(_) => collect(array.as_list_view::<i32>().values(), found),
        DataType::LargeListView(_) => collect(array.as_list_view::<i64>().values(), found),
        DataType::FixedSizeList(..) => collect(array.as_fixed_size_list().values(), found),
        DataType::Map(..) => {
            for column in array.as_map().entries().columns() {
                collect(column, found);
            }
        }
        // Judged as what Parquet stores.
        DataType::Dictionary(_, values) => {
            let sampled = array.slice(0, array.len().min(SAMPLED));
            found.push(cast(&sampled, values).unwrap_or(sampled));
        }
        _ => found.push(Arc::clone(array)),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    fn sample(array: impl Array + 'static) -> Sample {
        Sample::of(&(Arc::new(array) as ArrayRef))
    }

    #[test]
    fn repetition_is_seen() {
        assert!(
            sample(StringArray::from_iter_values((0..900).map(|i| format!("c{}", i % 30))))
                .repeats()
        );
        assert!(!sample(StringArray::from_iter_values((0..900).map(|i| i.to_string()))).repeats());
        assert!(
            sample(Float64Array::from_iter_values((0..900).map(|i| f64::from(i % 9)))).repeats()
        );
        let wide = |i: i64| (i % 7) * 1_000_000_007;
        assert!(sample(Int64Array::from_iter_values((0..900).map(wide))).repeats_wide_numbers());
        assert!(
            !sample(Int64Array::from_iter_values((0..900).map(|i| i % 7))).repeats_wide_numbers()
        );
        assert!(!sample(Int64Array::from(vec![i64::MIN, i64::MAX])).repeats_wide_numbers());
    }

    #[test]
    fn average_length_leaves_nulls_out() {
        let text = StringArray::from(vec![Some("abcd"), None, Some("ab")]);
        assert_eq!(sample(text).average_bytes, 3);
    }
}
