//! What is said about messages that are refused.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use tidelock_json::{JsonDecoder, JsonOptions, MAX_DEPTH};

use crate::decoder;

fn shop() -> JsonDecoder {
    let geo = Fields::from(vec![Field::new("lat", DataType::Float64, false)]);
    let tag = Arc::new(Field::new("item", DataType::Utf8, false));
    decoder(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("geo", DataType::Struct(geo), true),
        Field::new("tags", DataType::List(tag), true),
    ])
}

#[test]
fn each_says_column_byte_expected_and_found() {
    for (message, expected) in [
        (r#"{"id":"x"}"#, r#"column "id": expected int64, found text that is none at byte 6"#),
        (r#"{"id":true}"#, r#"column "id": expected int64, found boolean at byte 6"#),
        (r#"{"id":{}}"#, r#"column "id": expected int64, found object at byte 6"#),
        (r#"{"id":1.5}"#, r#"column "id": int64 cannot hold the number without loss at byte 6"#),
        (r#"{"id":1e99}"#, r#"column "id": out of range for int64 at byte 6"#),
        (r#"{"id":null}"#, r#"column "id": null, and not nullable at byte 6"#),
        (r#"{"id":}"#, r#"column "id": expected int64, found `}` at byte 6"#),
        (r#"{"geo":{"lat":1}}"#, r#"column "id": missing, and not nullable at byte 16"#),
        (r#"{"id":1,"geo":{}}"#, r#"column "geo.lat": missing, and not nullable at byte 15"#),
        (
            r#"{"id":1,"geo":{"lat":"x"}}"#,
            r#"column "geo.lat": expected float64, found text that is none at byte 21"#,
        ),
        (
            r#"{"id":1,"geo":{"lat":1]}"#,
            r#"column "geo": expected `,` or `}`, found `]` at byte 22"#,
        ),
        (r#"{"id":1,"geo":[1]}"#, r#"column "geo": expected struct, found array at byte 14"#),
        (r#"{"id":1,"tags":[1]}"#, r#"column "tags[]": expected utf8, found number at byte 16"#),
        (r#"{"id":1,"tags":["a"}"#, r#"column "tags": expected `,` or `]`, found `}` at byte 19"#),
        (
            r#"{"id":1,"tags":["a"#,
            r#"column "tags[]": expected the end of a string, found the end of the message at byte 18"#,
        ),
        (
            "{\"id\":1,\"tags\":[\"a\nb\"]}",
            r#"column "tags[]": control character within a string at byte 18"#,
        ),
        (
            r#"{"id":1,"tags":["\ud800"]}"#,
            r#"column "tags[]": unpaired surrogate in an escape sequence at byte 19"#,
        ),
        (r#"{"id":1,"tags":["\q"]}"#, r#"column "tags[]": invalid escape sequence at byte 18"#),
        (r#"[]"#, "expected an object, found array at byte 0"),
        ("", "expected an object, found the end of the message at byte 0"),
        ("  7", "expected an object, found number at byte 2"),
        (r#"{"id":1"#, "expected `,` or `}`, found the end of the message at byte 7"),
        (r#"{"id":1,}"#, "expected a string, found `}` at byte 8"),
        (r#"{"id" 1}"#, "expected `:`, found number at byte 6"),
        (r#"{"id":1} x"#, "expected the end of the message, found `x` at byte 9"),
        (r#"{"id":1}{"id":2}"#, "expected the end of the message, found object at byte 8"),
        ("{\"id\":1}\u{0}", "expected the end of the message, found byte 0x00 at byte 8"),
        (r#"{"id":1,"x":[1,}"#, "expected a value, found `}` at byte 15"),
        (r#"{"id":1,"x":truth}"#, "expected true, found boolean at byte 12"),
    ] {
        let mut decoder = shop();
        let refused = decoder.decode(message.as_bytes()).unwrap_err();
        assert_eq!(refused.to_string(), expected, "{message}");
        assert!(!refused.is_full());
        assert_eq!(decoder.len(), 0);
        assert_eq!(decoder.finish().unwrap().num_rows(), 0);
    }
}

#[test]
fn unknown_fields_may_be_refused() {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    let options = JsonOptions::default().with_deny_unknown_fields(true);
    let mut decoder = JsonDecoder::new(schema, options).unwrap();
    decoder.decode(br#"{"id":1}"#).unwrap();
    let refused = decoder.decode(br#"{"id":2,"idd":3}"#).unwrap_err();
    assert_eq!(refused.to_string(), "field that the schema does not have at byte 8");
    assert_eq!(decoder.finish().unwrap().num_rows(), 1);
}

#[test]
fn values_that_nobody_wants_may_nest_only_so_deep() {
    let mut decoder = shop();
    let nested = |levels: usize| {
        let (open, close) = ("[{\"a\":".repeat(levels / 2), "}]".repeat(levels / 2));
        format!("{{\"x\":{open}1{close},\"id\":1}}")
    };
    decoder.decode(nested(MAX_DEPTH).as_bytes()).unwrap();
    let refused = decoder.decode(nested(MAX_DEPTH + 2).as_bytes()).unwrap_err();
    assert!(refused.to_string().starts_with("nested deeper than 64 levels"), "{refused}");
    let refused = decoder.decode(nested(200_000).as_bytes()).unwrap_err();
    assert!(refused.to_string().starts_with("nested deeper than 64 levels"), "{refused}");
}

#[test]
fn a_refused_message_is_a_bad_record() {
    let refused = shop().decode(b"{\"id\":true}").unwrap_err();
    let error = tidelock_connector::Error::from(refused);
    assert_eq!(error.kind(), tidelock_connector::ErrorKind::BadRecord);
    assert_eq!(
        error.to_string(),
        "message cannot be decoded: column \"id\": expected int64, found boolean at byte 6"
    );
}

#[test]
fn an_error_is_one_pointer_wide() {
    let size = std::mem::size_of::<Result<(), tidelock_json::DecodeError>>();
    assert_eq!(size, std::mem::size_of::<usize>());
}
