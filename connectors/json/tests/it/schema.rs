//! Declarations of columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use serde::Deserialize;
use tidelock_json::{ColumnSpec, JsonDecoder, JsonOptions, as_json, to_arrow};

#[derive(Debug, Deserialize)]
struct Format {
    schema: Vec<ColumnSpec>,
}

fn parse(toml: &str) -> Result<Vec<ColumnSpec>, String> {
    toml::from_str::<Format>(toml).map(|format| format.schema).map_err(|error| error.to_string())
}

fn complaint(columns: &str) -> String {
    let columns = parse(&format!("schema = [ {columns} ]")).unwrap();
    to_arrow(&columns).unwrap_err().to_string()
}

#[test]
fn every_type_can_be_declared() {
    let columns = parse(
        r#"schema = [
            { name = "a", type = "utf8", nullable = false },
            { name = "b", type = "large_utf8" },
            { name = "c", type = "binary" },
            { name = "d", type = "int8" }, { name = "e", type = "int16" },
            { name = "f", type = "int32" }, { name = "g", type = "int64" },
            { name = "h", type = "uint8" }, { name = "i", type = "uint16" },
            { name = "j", type = "uint32" }, { name = "k", type = "uint64" },
            { name = "l", type = "float32" }, { name = "m", type = "float64" },
            { name = "n", type = "boolean" }, { name = "o", type = "date32" },
            { name = "p", type = "timestamp(ms)" },
            { name = "q", type = "timestamp(us, UTC)" },
            { name = "r", type = "timestamp(ns,\"+02:00\")" },
            { name = "s", type = "decimal128(10, 2)" },
            { name = "t", type = "decimal128(7)" },
            { name = "u", type = "struct", fields = [ { name = "lat", type = "float64" } ] },
            { name = "v", type = "list", item = { type = "list", item = { type = "utf8", nullable = false } } },
            { name = "w", type = "json" },
            { name = "x", type = "list", item = { type = "struct", fields = [ { name = "y", type = "timestamp(s)" } ] } },
        ]"#,
    )
    .unwrap();
    let list = |item: Field| DataType::List(Arc::new(item));
    let structure = |field: Field| DataType::Struct(Fields::from(vec![field]));
    let at = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
    let types = [
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Binary,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
        DataType::Boolean,
        DataType::Date32,
        at(TimeUnit::Millisecond, None),
        at(TimeUnit::Microsecond, Some("UTC")),
        at(TimeUnit::Nanosecond, Some("+02:00")),
        DataType::Decimal128(10, 2),
        DataType::Decimal128(7, 0),
        structure(Field::new("lat", DataType::Float64, true)),
        list(Field::new("item", list(Field::new("item", DataType::Utf8, false)), true)),
        DataType::Utf8,
        list(Field::new(
            "item",
            structure(Field::new("y", at(TimeUnit::Second, None), true)),
            true,
        )),
    ];
    let expected: Vec<Field> = ('a'..='x')
        .zip(types)
        .map(|(name, data_type)| Field::new(name.to_string(), data_type, name != 'a'))
        .map(|field| if field.name() == "w" { as_json(field) } else { field })
        .collect();
    let schema = to_arrow(&columns).unwrap();
    assert_eq!(*schema, Schema::new(expected));
    let mut decoder = JsonDecoder::new(schema, JsonOptions::default()).unwrap();
    decoder.decode(br#"{"a":"x"}"#).unwrap();
    assert_eq!(decoder.finish().unwrap().num_rows(), 1);

    let json = serde_json::to_string(&columns).unwrap();
    assert_eq!(serde_json::from_str::<Vec<ColumnSpec>>(&json).unwrap(), columns);
}

#[test]
fn unknown_keys_are_refused() {
    let said = parse(r#"schema = [ { name = "a", type = "utf8", nulable = true } ]"#).unwrap_err();
    assert!(said.contains("unknown field `nulable`"), "{said}");
    assert!(said.contains("line 1"), "{said}");
}

#[test]
fn mistakes_name_the_column_and_what_was_probably_meant() {
    for (columns, expected) in [
        (
            r#"{ name = "id", type = "string" }"#,
            r#"column "id": unknown type "string"; did you mean "utf8"?"#,
        ),
        (
            r#"{ name = "id", type = "Int64" }"#,
            r#"column "id": unknown type "Int64"; did you mean "int64"?"#,
        ),
        (
            r#"{ name = "geo", type = "struct", fields = [ { name = "lat", type = "flaot64" } ] }"#,
            r#"column "geo.lat": unknown type "flaot64"; did you mean "float64"?"#,
        ),
        (
            r#"{ name = "tags", type = "list", item = { type = "varchar(20)" } }"#,
            r#"column "tags[]": unknown type "varchar(20)"; did you mean "utf8"?"#,
        ),
        (
            r#"{ name = "x", type = "decimal(10,2)" }"#,
            r#"column "x": unknown type "decimal(10,2)"; did you mean "decimal128(38, 9)"?"#,
        ),
        (r#"{ name = "x", type = "int64(3)" }"#, r#"column "x": type "int64" takes no arguments"#),
        (r#"{ name = "x", type = "timestamp(us" }"#, r#"lacks its closing bracket"#),
        (r#"{ name = "x", type = "timestamp" }"#, r#"did you mean "timestamp(us)"?"#),
        (r#"{ name = "x", type = "timestamp(min)" }"#, "Units are s, ms, us and ns"),
        (r#"{ name = "x", type = "timestamp(us, \"+99:99\")" }"#, r#"column "x": "#),
        (r#"{ name = "x", type = "decimal128" }"#, r#"did you mean "decimal128(38, 9)"?"#),
        (r#"{ name = "x", type = "decimal128(39, 2)" }"#, "1 to 38 digits"),
        (r#"{ name = "x", type = "decimal128(4, 5)" }"#, "not more than that behind the point"),
        (r#"{ name = "x", type = "hyperloglog" }"#, "the types are utf8, large_utf8"),
        (r#"{ name = "x", type = "struct" }"#, "a struct needs `fields = [ … ]`"),
        (r#"{ name = "x", type = "struct", fields = [] }"#, r#"column "x": no columns"#),
        (r#"{ name = "x", type = "list" }"#, "a list needs `item = { type = … }`"),
        (
            r#"{ name = "x", type = "utf8", item = { type = "utf8" } }"#,
            r#"only a list has an `item`, and the type is "utf8""#,
        ),
        (r#"{ name = "x", type = "list", fields = [] }"#, "only a struct has `fields`"),
        (
            r#"{ name = "x", type = "utf8" }, { name = "x", type = "utf8" }"#,
            r#"column "x": declared twice"#,
        ),
        ("", "the schema: no columns"),
    ] {
        let said = complaint(columns);
        assert!(said.contains(expected), "{columns}: {said}");
    }
}

#[test]
fn hand_made_schemas_are_checked_as_well() {
    let refused = |field: Field| {
        let schema = Arc::new(Schema::new(vec![field]));
        JsonDecoder::new(schema, JsonOptions::default()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(Field::new("d", DataType::Duration(TimeUnit::Second), true)),
        r#"column "d": type Duration(s) cannot be decoded from JSON"#
    );
    let mut nested = Field::new("item", DataType::Int8, true);
    for _ in 0..10_000 {
        nested = Field::new("item", DataType::List(Arc::new(nested)), true);
    }
    let said = refused(nested);
    assert!(said.contains("nested deeper than 64 levels"), "{said}");
}
