//! Declaring columns, in a configuration file or as an Arrow schema.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use tidelock_connector::{Error, Result};

use crate::MAX_DEPTH;

/// The metadata that tells JSON text from other text, and its value: Arrow's
/// canonical extension type.
const EXTENSION_NAME: &str = "ARROW:extension:name";
const JSON_EXTENSION: &str = "arrow.json";

/// The types that stand for themselves.
const PLAIN: [(&str, DataType); 16] = [
    ("utf8", DataType::Utf8),
    ("large_utf8", DataType::LargeUtf8),
    ("binary", DataType::Binary),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("boolean", DataType::Boolean),
    ("date32", DataType::Date32),
    // Text as far as Arrow is concerned; the field's metadata says the rest.
    ("json", DataType::Utf8),
];

const UNITS: [(&str, TimeUnit); 4] = [
    ("s", TimeUnit::Second),
    ("ms", TimeUnit::Millisecond),
    ("us", TimeUnit::Microsecond),
    ("ns", TimeUnit::Nanosecond),
];

/// What people write who mean one of ours.
const ALIASES: [(&str, &str); 40] = [
    ("string", "utf8"),
    ("str", "utf8"),
    ("text", "utf8"),
    ("varchar", "utf8"),
    ("char", "utf8"),
    ("uuid", "utf8"),
    ("bytes", "binary"),
    ("blob", "binary"),
    ("byte", "int8"),
    ("tinyint", "int8"),
    ("short", "int16"),
    ("smallint", "int16"),
    ("int", "int64"),
    ("integer", "int64"),
    ("long", "int64"),
    ("bigint", "int64"),
    ("i8", "int8"),
    ("i16", "int16"),
    ("i32", "int32"),
    ("i64", "int64"),
    ("u8", "uint8"),
    ("u16", "uint16"),
    ("u32", "uint32"),
    ("u64", "uint64"),
    ("f32", "float32"),
    ("f64", "float64"),
    ("float", "float64"),
    ("double", "float64"),
    ("number", "float64"),
    ("bool", "boolean"),
    ("date", "date32"),
    ("datetime", "timestamp(us)"),
    ("time", "timestamp(us)"),
    ("numeric", "decimal128(38, 9)"),
    ("decimal", "decimal128(38, 9)"),
    ("object", "struct"),
    ("record", "struct"),
    ("array", "list"),
    ("variant", "json"),
    ("map", "json"),
];

/// One column, as a configuration file declares it.
///
/// ```toml
/// schema = [
///   { name = "id", type = "utf8", nullable = false },
///   { name = "at", type = "timestamp(us, UTC)" },
///   { name = "geo", type = "struct", fields = [ { name = "lat", type = "float64" } ] },
///   { name = "tags", type = "list", item = { type = "utf8" } },
/// ]
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// The key in the messages' objects, and the column's name.
    pub name: String,
    /// The type, one of the [supported ones](crate#types).
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether the field may be null or left out; yes, unless said.
    #[serde(default = "yes")]
    pub nullable: bool,
    /// The columns within, for a struct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<ColumnSpec>>,
    /// What each element is, for a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Box<ItemSpec>>,
}

/// The elements of a list: a column without a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemSpec {
    /// The type, as in [`ColumnSpec::type_name`].
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether elements may be null; yes, unless said.
    #[serde(default = "yes")]
    pub nullable: bool,
    /// The columns within, for a list of structs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<ColumnSpec>>,
    /// What each element of the elements is, for a list of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Box<ItemSpec>>,
}

fn yes() -> bool {
    true
}

/// The Arrow schema of the declared columns.
///
/// # Errors
/// Names the column by its path, what is wrong with it, and what was probably
/// meant.
pub fn to_arrow(columns: &[ColumnSpec]) -> Result<SchemaRef> {
    let fields = to_fields(columns, "", 1)?;
    check(&fields)?;
    Ok(Arc::new(Schema::new(fields)))
}

fn to_fields(columns: &[ColumnSpec], parent: &str, depth: usize) -> Result<Fields> {
    if depth > MAX_DEPTH {
        return Err(Error::config(format!(
            "column {parent:?}: nested deeper than {MAX_DEPTH} levels"
        )));
    }
    columns
        .iter()
        .map(|column| {
            let path = join(parent, &column.name);
            let ColumnSpec { name, type_name, nullable, fields, item } = column;
            to_field(name, type_name, *nullable, fields.as_deref(), item.as_deref(), &path, depth)
        })
        .collect()
}

fn to_field(
    name: &str,
    type_name: &str,
    nullable: bool,
    fields: Option<&[ColumnSpec]>,
    item: Option<&ItemSpec>,
    path: &str,
    depth: usize,
) -> Result<Field> {
    let fail = |message: String| Err(Error::config(format!("column {path:?}: {message}")));
    let type_name = type_name.trim();
    if fields.is_some() && type_name != "struct" {
        return fail(format!("only a struct has `fields`, and the type is {type_name:?}"));
    }
    if item.is_some() && type_name != "list" {
        return fail(format!("only a list has an `item`, and the type is {type_name:?}"));
    }
    let data_type = match (type_name, fields, item) {
        ("struct", Some(fields), _) => DataType::Struct(to_fields(fields, path, depth + 1)?),
        ("struct", None, _) => return fail("a struct needs `fields = [ … ]`".into()),
        ("list", _, Some(item)) => {
            if depth >= MAX_DEPTH {
                return fail(format!("nested deeper than {MAX_DEPTH} levels"));
            }
            let ItemSpec { type_name, nullable, fields, item } = item;
            let (path, name) = (format!("{path}[]"), Field::LIST_FIELD_DEFAULT_NAME);
            let (fields, item) = (fields.as_deref(), item.as_deref());
            let item = to_field(name, type_name, *nullable, fields, item, &path, depth + 1)?;
            DataType::List(Arc::new(item))
        }
        ("list", _, None) => return fail("a list needs `item = { type = … }`".into()),
        _ => match parse_type(type_name) {
            Ok(data_type) => data_type,
            Err(message) => return fail(message),
        },
    };
    let field = Field::new(name, data_type, nullable);
    Ok(if type_name == "json" { as_json(field) } else { field })
}

/// Marks a text column as one that takes any value and keeps it as JSON.
///
/// The mark is Arrow's canonical extension type `arrow.json`, so readers of the
/// data know as well.
#[must_use]
pub fn as_json(field: Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(EXTENSION_NAME.into(), JSON_EXTENSION.into());
    field.with_metadata(metadata)
}

pub(crate) fn is_json(field: &Field) -> bool {
    *field.data_type() == DataType::Utf8
        && field.metadata().get(EXTENSION_NAME).is_some_and(|name| name == JSON_EXTENSION)
}

/// A type without anything nested in it.
fn parse_type(name: &str) -> Result<DataType, String> {
    if let Some((_, data_type)) = PLAIN.iter().find(|(plain, _)| *plain == name) {
        return Ok(data_type.clone());
    }
    let (base, arguments) = match name.split_once('(') {
        Some((base, rest)) => match rest.strip_suffix(')') {
            Some(arguments) => (base.trim(), arguments.split(',').map(str::trim).collect()),
            None => return Err(format!("type {name:?} lacks its closing bracket")),
        },
        None => (name, Vec::new()),
    };
    match base {
        "timestamp" => parse_timestamp(name, &arguments),
        "decimal128" => parse_decimal(name, &arguments),
        _ if PLAIN.iter().any(|(plain, _)| *plain == base) => {
            Err(format!("type {base:?} takes no arguments, found {name:?}"))
        }
        _ => Err(unknown_type(name, base)),
    }
}

fn parse_timestamp(name: &str, arguments: &[&str]) -> Result<DataType, String> {
    let wanted = || {
        format!(
            "type {name:?} is no timestamp; did you mean \"timestamp(us)\"? \
             Units are s, ms, us and ns, and a zone may follow, as in \"timestamp(us, UTC)\""
        )
    };
    let (unit, zone) = match arguments {
        [unit] => (unit, None),
        [unit, zone] => (unit, Some(zone.trim_matches(['"', '\'']))),
        _ => return Err(wanted()),
    };
    let Some((_, unit)) = UNITS.iter().find(|(name, _)| name == unit) else {
        return Err(wanted());
    };
    if zone.is_some_and(str::is_empty) {
        return Err(wanted());
    }
    Ok(DataType::Timestamp(*unit, zone.map(Arc::from)))
}

fn parse_decimal(name: &str, arguments: &[&str]) -> Result<DataType, String> {
    let parsed = match arguments {
        [precision] => precision.parse::<u8>().ok().map(|precision| (precision, 0_i8)),
        [precision, scale] => precision.parse().ok().zip(scale.parse().ok()),
        _ => None,
    };
    match parsed {
        Some((precision, scale)) => Ok(DataType::Decimal128(precision, scale)),
        None => Err(format!(
            "type {name:?} is no decimal; did you mean \"decimal128(38, 9)\"? \
             The numbers are the digits in all and those behind the point"
        )),
    }
}

fn unknown_type(name: &str, base: &str) -> String {
    let lower = base.to_ascii_lowercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == lower).map(|(_, meant)| *meant);
    let known = PLAIN.iter().map(|(name, _)| *name);
    let nearest = known
        .chain(["struct", "list", "timestamp(us)", "decimal128(38, 9)"])
        .map(|known| {
            let stem = known.split('(').next().unwrap_or(known);
            (strsim::damerau_levenshtein(stem, &lower), known)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, known)| known);
    match alias.or(nearest) {
        Some(meant) => format!("unknown type {name:?}; did you mean {meant:?}?"),
        None => format!(
            "unknown type {name:?}; the types are utf8, large_utf8, binary, int8 to int64, \
             uint8 to uint64, float32, float64, boolean, date32, timestamp(s|ms|us|ns[, zone]), \
             decimal128(precision, scale), struct, list and json"
        ),
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// Refuses what the decoder cannot fill.
pub(crate) fn check(fields: &Fields) -> Result<()> {
    check_fields(fields, "", 1)
}

fn check_fields(fields: &Fields, parent: &str, depth: usize) -> Result<()> {
    let of = if parent.is_empty() { "the schema".into() } else { format!("column {parent:?}") };
    if fields.is_empty() {
        return Err(Error::config(format!("{of}: no columns")));
    }
    let mut names = std::collections::HashSet::new();
    for field in fields {
        let path = join(parent, field.name());
        if !names.insert(field.name()) {
            return Err(Error::config(format!("column {path:?}: declared twice")));
        }
        check_field(field, &path, depth)?;
    }
    Ok(())
}

fn check_field(field: &Field, path: &str, depth: usize) -> Result<()> {
    let fail = |message: String| Err(Error::config(format!("column {path:?}: {message}")));
    if depth > MAX_DEPTH {
        return fail(format!("nested deeper than {MAX_DEPTH} levels"));
    }
    match field.data_type() {
        DataType::Struct(fields) => check_fields(fields, path, depth + 1),
        DataType::List(item) => check_field(item, &format!("{path}[]"), depth + 1),
        DataType::Timestamp(unit, zone) => match crate::time::Clock::new(*unit, zone.as_deref()) {
            Ok(_) => Ok(()),
            Err(error) => fail(error.to_string()),
        },
        DataType::Decimal128(precision, scale) => {
            let scale_fits = i16::from(*scale).abs() <= i16::from(*precision);
            if !(1..=38).contains(precision) || !scale_fits {
                return fail(format!(
                    "decimal128({precision}, {scale}) is none: 1 to 38 digits, and not more than \
                     that behind the point"
                ));
            }
            Ok(())
        }
        data_type if PLAIN.iter().any(|(_, plain)| plain == data_type) => Ok(()),
        other => fail(format!("type {other} cannot be decoded from JSON")),
    }
}

/// The type of a field as a declaration would say it.
pub(crate) fn type_name(field: &Field) -> String {
    match field.data_type() {
        DataType::Struct(_) => "struct".into(),
        DataType::List(_) => "list".into(),
        DataType::Timestamp(unit, zone) => {
            let unit = UNITS.iter().find(|(_, known)| known == unit).map_or("", |(name, _)| name);
            match zone {
                Some(zone) => format!("timestamp({unit}, {zone})"),
                None => format!("timestamp({unit})"),
            }
        }
        DataType::Decimal128(precision, scale) => format!("decimal128({precision}, {scale})"),
        _ if is_json(field) => "json".into(),
        other => {
            let plain = PLAIN.iter().find(|(_, plain)| plain == other);
            plain.map_or_else(|| other.to_string(), |(name, _)| (*name).to_owned())
        }
    }
}
