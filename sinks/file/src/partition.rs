//! Rows apart by the values that become folders, Hive style.
//!
//! `country=DE/day=2026-11-21/hour=13`: plain columns leave the file, because
//! readers take them from the folder's name; `day` and `hour` are computed, in
//! UTC, and the column that they come from stays. Null and the empty string
//! are [`HIVE_NULL`], as Hive and Spark have it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Date32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidelock_connector::{Error, ErrorKind, Result};

use crate::names;

/// The value of a folder that stands for null.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";
/// The record's time, where the pipeline keeps it.
const RECORD_TIMESTAMP: &str = "_timestamp";
/// The longest name of a folder; file systems take 255 bytes.
const MAX_FOLDER_BYTES: usize = 255;

/// One entry of `partition_by`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    /// A word: a column, or `day` or `hour` of the record where there is no
    /// such column.
    Word(String),
    /// `day(column)`.
    Day(String),
    /// `hour(column)`.
    Hour(String),
}

/// What rows are split by.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionBy {
    terms: Vec<Term>,
}

impl PartitionBy {
    pub(crate) fn parse(texts: &[String]) -> Result<Self> {
        let terms = texts.iter().map(|text| parse_term(text)).collect::<Result<Vec<_>>>()?;
        Ok(Self { terms })
    }

    /// Binds the terms to the columns of one schema.
    ///
    /// # Errors
    /// A column is missing, or cannot name a folder.
    pub(crate) fn bind(&self, schema: &SchemaRef) -> Result<Splitter> {
        let mut keys = Vec::new();
        for term in &self.terms {
            let key = Key::bind(term, schema)?;
            if keys.iter().any(|other: &Key| other.folder == key.folder) {
                let message = format!("partition_by makes two folders {:?}", key.folder);
                return Err(Error::config(message));
            }
            keys.push(key);
        }
        let kept: Vec<usize> = (0..schema.fields().len())
            .filter(|i| !keys.iter().any(|key| key.derived.is_none() && key.column == *i))
            .collect();
        let file_schema = Arc::new(schema.project(&kept)?);
        if file_schema.fields().is_empty() {
            return Err(Error::config("partition_by leaves no column for the files"));
        }
        // A reader could not tell the folder's value from the column's.
        if let Some(key) = keys.iter().find(|key| file_schema.index_of(&key.folder).is_ok()) {
            let message = format!("the folder {:?} would hide the column of that name", key.folder);
            return Err(Error::config(message));
        }
        let fields = keys.iter().map(|key| SortField::new(key.data_type(schema))).collect();
        let converter = RowConverter::new(fields)?;
        Ok(Splitter { keys, kept, file_schema, converter })
    }
}

fn parse_term(text: &str) -> Result<Term> {
    let text = text.trim();
    let Some((function, rest)) = text.split_once('(') else {
        return Ok(Term::Word(text.to_owned()));
    };
    let column = rest.strip_suffix(')').map(str::trim).filter(|column| !column.is_empty());
    match (function.trim(), column) {
        ("day", Some(column)) => Ok(Term::Day(column.to_owned())),
        ("hour", Some(column)) => Ok(Term::Hour(column.to_owned())),
        _ => Err(Error::config(format!(
            "{text:?} is nothing to partition by; write a column, day, hour, day(column) or \
             hour(column)"
        ))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Derived {
    Day,
    Hour,
}

/// One level of folders, bound to a column.
#[derive(Debug)]
struct Key {
    folder: String,
    column: usize,
    derived: Option<Derived>,
}

impl Key {
    fn bind(term: &Term, schema: &Schema) -> Result<Self> {
        let (folder, column, derived) = match term {
            Term::Day(column) => ("day", column.as_str(), Some(Derived::Day)),
            Term::Hour(column) => ("hour", column.as_str(), Some(Derived::Hour)),
            Term::Word(word) if schema.index_of(word).is_ok() => {
                (word.as_str(), word.as_str(), None)
            }
            Term::Word(word) if word == "day" => ("day", RECORD_TIMESTAMP, Some(Derived::Day)),
            Term::Word(word) if word == "hour" => ("hour", RECORD_TIMESTAMP, Some(Derived::Hour)),
            Term::Word(word) => (word.as_str(), word.as_str(), None),
        };
        let index =
            schema.index_of(column).map_err(|_| missing(folder, column, derived, schema))?;
        let data_type = schema.field(index).data_type();
        let fits = match (derived, data_type) {
            (Some(_), DataType::Timestamp(..) | DataType::Date64)
            | (Some(Derived::Day), DataType::Date32) => true,
            (Some(_), _) => false,
            (None, DataType::Dictionary(_, values)) => {
                names_folders(values) && !matches!(**values, DataType::Timestamp(..))
            }
            (None, other) => names_folders(other),
        };
        if !fits {
            let message = match derived {
                Some(_) => format!("{folder} cannot be taken of a column of type {data_type}"),
                None => format!("a column of type {data_type} cannot name folders"),
            };
            return Err(Error::config(message).with("column", column));
        }
        Ok(Self { folder: folder.to_owned(), column: index, derived })
    }

    /// The type of the values that rows are told apart by.
    fn data_type(&self, schema: &Schema) -> DataType {
        match (self.derived, schema.field(self.column).data_type()) {
            (Some(Derived::Day), _) => DataType::Date32,
            (Some(Derived::Hour), _) => DataType::Int32,
            (None, DataType::Dictionary(_, values)) => values.as_ref().clone(),
            // Folders tell UTC, without the name of a time zone.
            (None, DataType::Timestamp(unit, _)) => DataType::Timestamp(*unit, None),
            (None, other) => other.clone(),
        }
    }

    fn values(&self, records: &RecordBatch) -> Result<ArrayRef> {
        let column = records.column(self.column);
        match (self.derived, column.data_type()) {
            (None, DataType::Dictionary(_, values)) => Ok(cast(column, values)?),
            (None, DataType::Timestamp(unit, Some(_))) => {
                Ok(cast(column, &DataType::Timestamp(*unit, None))?)
            }
            (None, _) | (Some(Derived::Day), DataType::Date32) => Ok(Arc::clone(column)),
            (Some(derived), data_type) => times(column, data_type, derived),
        }
    }

    /// The name of the folder of row `row` of `values`.
    fn folder(&self, values: &dyn Array, row: usize) -> Result<String> {
        let value = if values.is_null(row) {
            String::new()
        } else if self.derived == Some(Derived::Hour) {
            format!("{:02}", values.as_primitive::<arrow::datatypes::Int32Type>().value(row))
        } else {
            let options = FormatOptions::default();
            names::escape(&ArrayFormatter::try_new(values, &options)?.value(row).to_string())
        };
        let value = if value.is_empty() { HIVE_NULL } else { &value };
        let folder = format!("{}={value}", names::escape(&self.folder));
        if folder.len() > MAX_FOLDER_BYTES {
            let message = "a value is too long to name a folder";
            return Err(Error::new(ErrorKind::Schema, message).with("column", &self.folder));
        }
        Ok(folder)
    }
}

fn missing(folder: &str, column: &str, derived: Option<Derived>, schema: &Schema) -> Error {
    if column == RECORD_TIMESTAMP && derived.is_some() {
        return Error::config(format!(
            "partition_by {folder} needs the column {RECORD_TIMESTAMP}: keep it in the rows, or \
             name another one, {folder}(column)"
        ));
    }
    let known: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Error::config(format!("partition_by: no column {column:?}; there are {}", known.join(", ")))
}

fn names_folders(data_type: &DataType) -> bool {
    data_type.is_integer()
        || data_type.is_temporal()
        || matches!(
            data_type,
            DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Decimal128(..)
        )
}

/// Days since 1970, or hours of the day, in UTC; before 1970 too.
fn times(column: &ArrayRef, data_type: &DataType, derived: Derived) -> Result<ArrayRef> {
    let per_second = match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => 1,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000_000,
        // Milliseconds, as in Date64.
        _ => 1_000,
    };
    let ticks = cast(column, &DataType::Int64)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    Ok(match derived {
        Derived::Day => {
            let day = per_second * 86_400;
            Arc::new(ticks.unary::<_, Date32Type>(|t| t.div_euclid(day) as i32))
        }
        Derived::Hour => {
            let hour = per_second * 3_600;
            let hours: Int32Array = ticks.unary(|t| t.div_euclid(hour).rem_euclid(24) as i32);
            Arc::new(hours)
        }
    })
}

/// Splits batches of one schema.
pub(crate) struct Splitter {
    keys: Vec<Key>,
    kept: Vec<usize>,
    /// The schema of the files: without plain partition columns.
    pub(crate) file_schema: SchemaRef,
    converter: RowConverter,
}

/// The rows of a batch that belong into the same folder.
pub(crate) struct Part {
    /// What tells the folder from others of the same schema.
    pub(crate) id: Box<[u8]>,
    /// A row of the batch that has these values.
    row: usize,
    /// The rows, without plain partition columns.
    pub(crate) records: RecordBatch,
}

/// A batch, apart.
pub(crate) struct Split {
    /// In the order in which their values first appear.
    pub(crate) parts: Vec<Part>,
    values: Vec<ArrayRef>,
}

impl Splitter {
    /// Splits a batch that has rows.
    pub(crate) fn split(&self, records: &RecordBatch) -> Result<Split> {
        let file_records = records.project(&self.kept)?;
        if self.keys.is_empty() {
            let part = Part { id: Box::default(), row: 0, records: file_records };
            return Ok(Split { parts: vec![part], values: Vec::new() });
        }
        let values = self.keys.iter().map(|key| key.values(records)).collect::<Result<Vec<_>>>()?;
        let rows = self.converter.convert_columns(&values)?;
        let (groups, group_of) = group(&rows);
        if let [first] = groups[..] {
            let id = rows.row(first.first_row).data().into();
            let part = Part { id, row: first.first_row, records: file_records };
            return Ok(Split { parts: vec![part], values });
        }
        // Each part is gathered by itself: of slices of one gather, a single one
        // that waits for more rows would hold the rows of all.
        let mut next: Vec<usize> = Vec::with_capacity(groups.len());
        let mut start = 0;
        for group in &groups {
            next.push(start);
            start += group.rows;
        }
        let mut order = vec![0_u32; group_of.len()];
        for (row, group) in group_of.iter().enumerate() {
            let position = &mut next[*group as usize];
            order[*position] = row as u32;
            *position += 1;
        }
        let order = UInt32Array::from(order);
        let parts = groups.iter().zip(next).map(|(group, end)| {
            let picked = order.slice(end - group.rows, group.rows);
            let records = take_record_batch(&file_records, &picked)?;
            let id = rows.row(group.first_row).data().into();
            Ok(Part { id, row: group.first_row, records })
        });
        Ok(Split { parts: parts.collect::<Result<_>>()?, values })
    }

    /// The folders of a part, `a=1/b=2`; empty without `partition_by`.
    pub(crate) fn folders(&self, split: &[ArrayRef], row: usize) -> Result<String> {
        let folders = self.keys.iter().zip(split).map(|(key, values)| key.folder(values, row));
        Ok(folders.collect::<Result<Vec<_>>>()?.join("/"))
    }
}

impl Split {
    /// What [`Splitter::folders`] needs, apart from the rows.
    pub(crate) fn into_parts(self) -> (Vec<ArrayRef>, Vec<Part>) {
        (self.values, self.parts)
    }
}

impl Part {
    pub(crate) fn row(&self) -> usize {
        self.row
    }
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_row: usize,
    rows: usize,
}

/// The groups in order of appearance, and the group of each row. Neighbours
/// are often equal, and comparing is cheaper than hashing.
fn group(rows: &Rows) -> (Vec<Group>, Vec<u32>) {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    let mut group_of = Vec::with_capacity(rows.num_rows());
    let mut last: Option<(&[u8], u32)> = None;
    for row in 0..rows.num_rows() {
        let data = rows.row(row).data();
        let group = match last {
            Some((bytes, group)) if bytes == data => group,
            _ => *known.entry(data).or_insert_with(|| {
                groups.push(Group { first_row: row, rows: 0 });
                groups.len() as u32 - 1
            }),
        };
        groups[group as usize].rows += 1;
        group_of.push(group);
        last = Some((data, group));
    }
    (groups, group_of)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Date32Array, Int64Array, StringArray, TimestampMillisecondArray,
    };

    use super::*;

    fn split(partition_by: &[&str], records: &RecordBatch) -> Vec<(String, RecordBatch)> {
        let terms: Vec<_> = partition_by.iter().map(|&text| text.to_owned()).collect();
        let splitter = PartitionBy::parse(&terms).unwrap().bind(&records.schema()).unwrap();
        let (values, parts) = splitter.split(records).unwrap().into_parts();
        parts
            .into_iter()
            .map(|part| (splitter.folders(&values, part.row()).unwrap(), part.records))
            .collect()
    }

    fn refused(partition_by: &[&str], records: &RecordBatch) -> String {
        let terms: Vec<_> = partition_by.iter().map(|&text| text.to_owned()).collect();
        let bound = PartitionBy::parse(&terms).and_then(|terms| terms.bind(&records.schema()));
        bound.err().map(|e| e.to_string()).unwrap_or_default()
    }

    fn sample() -> RecordBatch {
        let country: ArrayRef =
            Arc::new(StringArray::from(vec![Some("DE"), None, Some("a/b"), Some("DE"), Some("")]));
        let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5));
        // 1969-12-31T23:59:59.999, 1970-01-01T00:00, 2026-11-21T13:59:59.999, null, 1970
        let at: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![
            Some(-1),
            Some(0),
            Some(1_795_269_599_999),
            None,
            Some(1),
        ]));
        RecordBatch::try_from_iter([("country", country), ("id", id), ("_timestamp", at)]).unwrap()
    }

    fn ids(records: &RecordBatch) -> Vec<i64> {
        records.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn plain_columns_become_folders_and_leave_the_file() {
        let parts = split(&["country"], &sample());
        let seen: Vec<_> = parts.iter().map(|(f, r)| (f.as_str(), ids(r))).collect();
        assert_eq!(
            seen,
            [
                ("country=DE", vec![0, 3]),
                ("country=__HIVE_DEFAULT_PARTITION__", vec![1]),
                ("country=a%2Fb", vec![2]),
                ("country=__HIVE_DEFAULT_PARTITION__", vec![4]),
            ]
        );
        assert!(parts[0].1.column_by_name("country").is_none());
        assert!(parts[0].1.column_by_name("_timestamp").is_some());
    }

    #[test]
    fn days_and_hours_are_utc_and_floor_before_1970() {
        let folders: Vec<_> =
            split(&["day", "hour"], &sample()).into_iter().map(|(f, _)| f).collect();
        assert_eq!(
            folders,
            [
                "day=1969-12-31/hour=23",
                "day=1970-01-01/hour=00",
                "day=2026-11-21/hour=13",
                "day=__HIVE_DEFAULT_PARTITION__/hour=__HIVE_DEFAULT_PARTITION__",
            ]
        );
        let same = split(&["day(_timestamp)", "hour( _timestamp )"], &sample());
        assert_eq!(same.into_iter().map(|(f, _)| f).collect::<Vec<_>>(), folders);
    }

    #[test]
    fn a_column_named_day_is_a_column() {
        let day: ArrayRef = Arc::new(Date32Array::from(vec![0, 1]));
        let flag: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
        let records = RecordBatch::try_from_iter([("day", day), ("flag", flag)]).unwrap();
        let folders: Vec<_> = split(&["day"], &records).into_iter().map(|(f, _)| f).collect();
        assert_eq!(folders, ["day=1970-01-01", "day=1970-01-02"]);
        assert!(refused(&["day(day)"], &records).contains("would hide the column"));
        assert!(refused(&["hour"], &records).contains("_timestamp"));
        assert!(refused(&["hour(day)"], &records).contains("hour cannot be taken"));
    }

    #[test]
    fn times_as_plain_columns_tell_utc() {
        let at = TimestampMillisecondArray::from(vec![0, 1_500]).with_timezone("Europe/Berlin");
        let id: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let records = RecordBatch::try_from_iter([("at", Arc::new(at) as _), ("id", id)]).unwrap();
        let folders: Vec<_> = split(&["at"], &records).into_iter().map(|(f, _)| f).collect();
        assert_eq!(folders, ["at=1970-01-01T00%3A00%3A00", "at=1970-01-01T00%3A00%3A01.500"]);
    }

    #[test]
    fn mistakes_are_named() {
        let records = sample();
        assert!(refused(&["land"], &records).contains("there are country, id, _timestamp"));
        assert!(refused(&["week(id)"], &records).contains("week(id)"));
        assert!(refused(&["day(id)"], &records).contains("day cannot be taken"));
        assert!(refused(&["id", "id"], &records).contains("two folders"));
        assert!(refused(&["country", "id", "_timestamp"], &records).contains("no column"));
    }

    #[test]
    fn one_value_needs_no_gather() {
        let records = sample().slice(0, 1);
        let parts = split(&["country"], &records);
        assert_eq!(parts.len(), 1);
        assert!(Arc::ptr_eq(parts[0].1.column(0), records.column(1)));
    }
}
