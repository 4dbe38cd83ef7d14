//! What each type takes, and what it does not.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int8Array, Int64Array, LargeStringArray, ListArray, StringArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, TimeUnit};
use tidelock_json::as_json;

use crate::{column, decoder, refusal};

fn same(array: &ArrayRef, expected: impl Array + 'static) {
    assert_eq!(array, &(Arc::new(expected) as ArrayRef));
}

#[test]
fn strings_with_every_kind_of_escape() {
    let values = [
        r#""plain""#,
        r#""""#,
        "null",
        r#""\"\\\/\b\f\n\r\t""#,
        r#""\u0041\u00e9\u20ac""#,
        r#""\ud83d\ude00 and \uD83D\uDE00""#,
        r#""äöü – 日本語 – 😀""#,
        r#""ä\u00e4ä\n""#,
        r#""a string that is longer than any chunk, with an escape at the end\t""#,
    ];
    let expected = [
        Some("plain"),
        Some(""),
        None,
        Some("\"\\/\u{8}\u{c}\n\r\t"),
        Some("Aé€"),
        Some("😀 and 😀"),
        Some("äöü – 日本語 – 😀"),
        Some("äää\n"),
        Some("a string that is longer than any chunk, with an escape at the end\t"),
    ];
    same(&column(&DataType::Utf8, &values), StringArray::from(expected.to_vec()));
    same(&column(&DataType::LargeUtf8, &values), LargeStringArray::from(expected.to_vec()));
}

#[test]
fn strings_of_every_length_stop_where_they_end() {
    for length in 0..80 {
        for tail in ["\"", "\\n\"", "é\""] {
            let body = "x".repeat(length);
            let expected = format!("{body}{}", tail.trim_end_matches('"').replace("\\n", "\n"));
            let array = column(&DataType::Utf8, &[&format!("\"{body}{tail}")]);
            assert_eq!(array.as_string::<i32>().value(0), expected);
        }
    }
}

#[test]
fn strings_that_are_none() {
    for value in [
        "1",
        "true",
        "{}",
        "[]",
        "x",
        "\"",
        "\"a",
        "\"\\\"",
        r#""\x""#,
        r#""\u12""#,
        r#""\u12g4""#,
        r#""\ud83d""#,
        r#""\ud83d\n""#,
        r#""\ud83dx""#,
        r#""\ud83d\u0041""#,
        r#""\ude00""#,
        "\"a\nb\"",
        "\"\u{1}\"",
        "nul",
        "nulll",
    ] {
        refusal(&DataType::Utf8, value);
    }
}

#[test]
fn invalid_utf8_is_refused_wherever_it_stands() {
    let bad: [&[u8]; 6] = [
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xc3\\u00a9",
        b"12345678\xe2\x82",
        b"1234567\xf0\x9f\x98\x80\x80",
    ];
    for body in bad {
        let mut decoder = crate::one(DataType::Utf8);
        let message = [b"{\"v\":\"", body, b"\",\"w\":\"some more bytes\"}"].concat();
        let refused = decoder.decode(&message).unwrap_err();
        assert_eq!(refused.to_string(), r#"column "v": invalid UTF-8 at byte 5"#);
        assert_eq!(refused.column(), Some("v"));
        assert_eq!(refused.position(), 5);
        decoder.decode(b"{\"v\":\"ok\"}").unwrap();
        same(decoder.finish().unwrap().column(0), StringArray::from(vec!["ok"]));
    }
}

#[test]
fn binary_is_base64_with_or_without_padding() {
    let values = [r#""aGk=""#, r#""aGk""#, r#""""#, "null", r#""+\/8=""#];
    let expected: Vec<Option<&[u8]>> =
        vec![Some(b"hi"), Some(b"hi"), Some(b""), None, Some(b"\xfb\xff")];
    same(&column(&DataType::Binary, &values), BinaryArray::from(expected));
    for value in [r#""a""#, r#""aGk-""#, r#""aG k""#, "1"] {
        refusal(&DataType::Binary, value);
    }
}

#[test]
fn integers_at_their_limits() {
    same(
        &column(&DataType::Int8, &["-128", "127", "-0", "1.0", "1.2e1", "\"-5\"", "null", "0e99"]),
        Int8Array::from(vec![
            Some(-128),
            Some(127),
            Some(0),
            Some(1),
            Some(12),
            Some(-5),
            None,
            Some(0),
        ]),
    );
    same(
        &column(
            &DataType::Int64,
            &[
                "9223372036854775807",
                "-9223372036854775808",
                "9.223372036854775807e18",
                "10000000000000000000000e-4",
                "1.00000000000000000000000000000000000000000000000000000000",
                "\"9223372036854775807\"",
            ],
        ),
        Int64Array::from(vec![
            i64::MAX,
            i64::MIN,
            i64::MAX,
            1_000_000_000_000_000_000,
            1,
            i64::MAX,
        ]),
    );
    same(
        &column(&DataType::UInt64, &["18446744073709551615", "0", "1844674407370955161.5e1"]),
        UInt64Array::from(vec![u64::MAX, 0, u64::MAX]),
    );
}

#[test]
fn integers_that_are_none() {
    let range = |data_type, value| {
        let refused = refusal(data_type, value);
        assert!(refused.contains("out of range for"), "{refused}");
    };
    for value in ["128", "-129", "1e3", "99999999999999999999999999999999999999999999", "1e999999"]
    {
        range(&DataType::Int8, value);
    }
    range(&DataType::Int64, "9223372036854775808");
    range(&DataType::Int64, "-9223372036854775809");
    range(&DataType::UInt64, "18446744073709551616");
    range(&DataType::UInt64, "-1");
    range(&DataType::UInt8, "\"256\"");
    for value in ["1.5", "1e-1", "0.00000000000000000000000000000000000000000000001", "\"1.5\""] {
        let refused = refusal(&DataType::Int64, value);
        assert!(refused.contains("cannot hold the number without loss"), "{refused}");
    }
    for value in [
        "01", "-", "+1", ".5", "1.", "1e", "1e+", "--1", "1-2", "0x10", "\"\"", "\" 1\"", "\"1 \"",
        "\"1a\"", "\"x\"", "true", "[1]", "{}", "00", "-01", "1_000", "١",
    ] {
        refusal(&DataType::Int64, value);
    }
}

#[test]
fn floats_are_the_nearest_ones() {
    let values = [
        "0",
        "-0",
        "-0.0",
        "1",
        "0.1",
        "123.45",
        "52.520008",
        "-13.404954",
        "1e22",
        "1e23",
        "9007199254740993",
        "1.7976931348623157e308",
        "5e-324",
        "2.2250738585072011e-308",
        "0.30000000000000004",
        "123456789012345678901234567890",
        "1E5",
        "1e+5",
        "1e-5",
        "1e-400",
        "179769313486231570000000000000000000000000000000000000000000000",
        "\"2.5\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"-Infinity\"",
        "8.5e-45",
    ];
    let nearest = |value: &&str| value.trim_matches('"').parse::<f64>().unwrap();
    let array = column(&DataType::Float64, &values);
    let array = array.as_any().downcast_ref::<Float64Array>().unwrap();
    for (found, value) in array.values().iter().zip(&values) {
        assert_eq!(found.to_bits(), nearest(value).to_bits(), "{value}");
    }
    let fits: Vec<&str> = values
        .into_iter()
        .filter(|value| {
            let value = value.trim_matches('"');
            value.ends_with('y') || !value.parse::<f32>().unwrap().is_infinite()
        })
        .collect();
    let array = column(&DataType::Float32, &fits);
    let array = array.as_any().downcast_ref::<Float32Array>().unwrap();
    for (found, value) in array.values().iter().zip(fits) {
        let nearest = value.trim_matches('"').parse::<f32>().unwrap();
        assert_eq!(found.to_bits(), nearest.to_bits(), "{value}");
    }
    for value in
        ["1e309", "-1e309", "01.5", "1.e5", "nan", "NaN", "\"inf\"", "\"nan\"", "\"1\\u0030\""]
    {
        refusal(&DataType::Float64, value);
    }
    refusal(&DataType::Float32, "1e39");
}

#[test]
fn decimals_are_exact() {
    let data_type = DataType::Decimal128(10, 2);
    let array = column(
        &data_type,
        &[
            "1",
            "-1.5",
            "123.45",
            "99999999.99",
            "-99999999.99",
            "1.2300000000000000000000000",
            "12.5e1",
            "\"7.25\"",
            "null",
            "0",
            "0.00e5",
            "125e-2",
        ],
    );
    let expected = vec![
        Some(100),
        Some(-150),
        Some(12_345),
        Some(9_999_999_999),
        Some(-9_999_999_999),
        Some(123),
        Some(12_500),
        Some(725),
        None,
        Some(0),
        Some(0),
        Some(125),
    ];
    same(&array, Decimal128Array::from(expected).with_data_type(data_type.clone()));
    for value in ["100000000", "1.234", "1e-3", "1e40", "true", "\"abc\"", "0.001e0"] {
        refusal(&data_type, value);
    }
    let wide = DataType::Decimal128(38, 0);
    let digits = "9".repeat(38);
    let array = column(&wide, &[&digits, &format!("-{digits}")]);
    let all: i128 = digits.parse().unwrap();
    same(&array, Decimal128Array::from(vec![all, -all]).with_data_type(wide.clone()));
    refusal(&wide, &"9".repeat(39));
    let thousands = DataType::Decimal128(5, -3);
    same(
        &column(&thousands, &["12000", "1e5"]),
        Decimal128Array::from(vec![12, 100]).with_data_type(thousands.clone()),
    );
    refusal(&thousands, "12500");
}

#[test]
fn booleans() {
    let expected = BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]);
    same(&column(&DataType::Boolean, &["true", "false", "null", "true"]), expected);
    for value in ["tru", "truee", "\"true\"", "1", "True", "fals"] {
        refusal(&DataType::Boolean, value);
    }
}

#[test]
fn dates() {
    let values = [
        "\"1970-01-01\"",
        "\"2000-02-29\"",
        "\"1969-12-31\"",
        "\"0000-01-01\"",
        "\"9999-12-31\"",
        "-1",
        "19000",
        "\"2020-9-8\"",
        "\"2020-09-08T23:59:59Z\"",
        "\"+29349-01-26\"",
    ];
    let expected = vec![0, 11_016, -1, -719_528, 2_932_896, -1, 19_000, 18_513, 18_513, 10_000_000];
    same(&column(&DataType::Date32, &values), Date32Array::from(expected));
    for value in [
        "\"2023-02-29\"",
        "\"2023-13-01\"",
        "\"2023-00-01\"",
        "\"2023-01-00\"",
        "\"\"",
        "\"1900-02-29\"",
        "\"2023-04-31\"",
        "\"yesterday\"",
        "true",
        "1.5",
    ] {
        refusal(&DataType::Date32, value);
    }
}

#[test]
fn timestamps_in_every_common_spelling() {
    let values = [
        "\"1970-01-01T00:00:00Z\"",
        "\"2026-01-31T09:26:56.123Z\"",
        "\"2026-01-31T09:26:56.123456Z\"",
        "\"2026-01-31T09:26:56.123456789Z\"",
        "\"2026-01-31T10:26:56.5+01:00\"",
        "\"2026-01-31 09:26:56\"",
        "\"2026-01-31\"",
        "\"1969-12-31T23:59:59.999999Z\"",
        "\"2016-12-31T23:59:60Z\"",
        "1769851616123456",
        "null",
    ];
    let day = 1_769_817_600_000_000;
    let time = day + 34_016_000_000;
    let expected = vec![
        Some(0),
        Some(time + 123_000),
        Some(time + 123_456),
        Some(time + 123_456),
        Some(time + 500_000),
        Some(time),
        Some(day),
        Some(-1),
        Some(1_483_228_800_000_000),
        Some(1_769_851_616_123_456),
        None,
    ];
    for zone in [None, Some("UTC"), Some("+00:00")] {
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let array = TimestampMicrosecondArray::from(expected.clone());
        same(&column(&data_type, &values), array.with_data_type(data_type));
    }
    let seconds = DataType::Timestamp(TimeUnit::Second, None);
    same(
        &column(&seconds, &["\"1969-12-31T23:59:59.5Z\"", "\"9999-12-31T23:59:59Z\""]),
        TimestampSecondArray::from(vec![-1, 253_402_300_799]),
    );
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    same(
        &column(
            &nanos,
            &["\"2262-04-11T23:47:16.854775807Z\"", "\"1677-09-21T00:12:43.145224192Z\""],
        ),
        TimestampNanosecondArray::from(vec![i64::MAX, i64::MIN]),
    );
    for value in ["\"2262-04-11T23:47:16.854775808Z\"", "\"9999-12-31T23:59:59Z\""] {
        refusal(&nanos, value);
    }
    for value in [
        "\"2026-02-30T00:00:00Z\"",
        "\"2026-01-31T24:00:00Z\"",
        "\"2026-01-31T09:60:00Z\"",
        "\"2026-01-31T09:26:56.Z\"",
        "\"soon\"",
        "\"\"",
        "true",
        "1.5",
        "\"2026-01-31T09:26:56ZZ\"",
        "\"1769851616\"",
        "\"2026-01-31T09:26:56.1Zé\"",
    ] {
        refusal(&seconds, value);
    }
}

#[test]
fn timestamps_without_an_offset_are_meant_in_the_columns_zone() {
    let at = |zone: &str| DataType::Timestamp(TimeUnit::Second, Some(zone.into()));
    let east = column(&at("+02:00"), &["\"1970-01-01T02:00:00\"", "\"1970-01-01T02:00:00Z\""]);
    let expected = TimestampSecondArray::from(vec![0, 7_200]);
    same(&east, expected.with_data_type(at("+02:00")));
    let berlin = column(
        &at("Europe/Berlin"),
        &["\"1970-01-01T01:00:00+01:00\"", "\"1970-01-01T00:00:00Z\""],
    );
    let expected = TimestampSecondArray::from(vec![0, 0]);
    same(&berlin, expected.with_data_type(at("Europe/Berlin")));
    refusal(&at("Europe/Berlin"), "\"1970-01-01T01:00:00\"");
    refusal(&at("Europe/Berlin"), "\"1970-01-01\"");
}

#[test]
fn structs_and_lists_nest() {
    let geo = Fields::from(vec![
        Field::new("lat", DataType::Float64, true),
        Field::new("lon", DataType::Float64, false),
    ]);
    let data_type = DataType::List(Arc::new(Field::new("item", DataType::Struct(geo), true)));
    let array = column(
        &data_type,
        &[
            r#"[{"lat":1,"lon":2},null,{"lon":3}]"#,
            "[]",
            "null",
            r#" [ { "lon" : 4.5 , "x" : [ { } ] , "lat" : null } ] "#,
        ],
    );
    let list: &ListArray = array.as_list();
    assert_eq!(list.value_offsets(), [0, 3, 3, 3, 4]);
    assert_eq!(list.null_count(), 1);
    let points = list.values().as_struct();
    assert_eq!(points.null_count(), 1);
    assert!(points.is_null(1));
    let lat = points.column(0).as_primitive::<Float64Type>();
    assert_eq!(lat.iter().collect::<Vec<_>>(), [Some(1.0), None, None, None]);
    let lon = points.column(1).as_primitive::<Float64Type>();
    assert_eq!((lon.value(0), lon.value(2), lon.value(3)), (2.0, 3.0, 4.5));
    for value in [
        "{}",
        "[1]",
        "[{}]",
        r#"[{"lon":null}]"#,
        r#"[{"lon":1},]"#,
        r#"[{"lon":1}"#,
        "[,]",
        r#"[{"lon":1,}]"#,
        r#"[{"lon" 1}]"#,
        r#"[{"lon":1 "lat":1}]"#,
        r#"[{"lon":1}{"lon":1}]"#,
        r#"[{lon:1}]"#,
    ] {
        refusal(&data_type, value);
    }
}

#[test]
fn json_columns_keep_any_value_as_it_was() {
    let field = as_json(Field::new("v", DataType::Utf8, true));
    let mut decoder = decoder(vec![field]);
    let values =
        [r#"{"a" : [1, "é\n", null]}"#, "1.50", "\"x\"", "true", "[]", "{}", "-0e1", "null"];
    for value in values {
        decoder.decode(format!("{{\"v\": {value} , \"w\":1}}").as_bytes()).unwrap();
    }
    let expected: Vec<_> = values.into_iter().map(|v| (v != "null").then_some(v)).collect();
    same(decoder.finish().unwrap().column(0), StringArray::from(expected));
    for value in ["{", "[1,]", "{\"a\"}", "{\"a\":}", "tru", "[1}", "01", "\"\\x\"", "", "[1 2]"] {
        let message = format!("{{\"v\":{value}}}");
        assert!(decoder.decode(message.as_bytes()).is_err(), "{message}");
    }
    assert!(decoder.decode(b"{\"v\":\"\xff\"}").is_err());
}

#[test]
fn a_json_column_that_is_not_nullable_keeps_null() {
    let mut decoder = decoder(vec![as_json(Field::new("v", DataType::Utf8, false))]);
    decoder.decode(b"{\"v\":null}").unwrap();
    assert!(decoder.decode(b"{}").is_err());
    same(decoder.finish().unwrap().column(0), StringArray::from(vec!["null"]));
}
