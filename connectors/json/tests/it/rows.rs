//! Messages as rows: their keys, and the batches that they make.

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{DataType, Field, Int32Type};

use crate::{decoder, one};

#[test]
fn keys_in_any_order_given_twice_escaped_or_unknown() {
    let fields = ["a", "b", "a key that is longer than sixteen bytes", "ключ", "q\"uote"];
    let mut decoder =
        decoder(fields.iter().map(|name| Field::new(*name, DataType::Int32, true)).collect());
    for message in [
        r#"{"a":1,"b":2,"a key that is longer than sixteen bytes":3,"ключ":4,"q\"uote":5}"#,
        r#"{"q\"uote":5,"ключ":4,"a key that is longer than sixteen bytes":3,"b":2,"a":1}"#,
        r#"{"b":2,"x":{"a":[9,{"b":"}"}]},"a":1,"aa":7,"ключ":4,"q\"uote":5,"a key that is longer than sixteen bytes":3}"#,
        r#"{"a":7,"a":null,"a":1,"b":2,"b":2,"a key that is longer than sixteen bytes":3,"ключ":4,"q\"uote":5}"#,
        r#" { "\u0061" : 1 , "b":2,"a key that is longer than sixteen bytes"  :3,"\u043a\u043bюч":4,"q\u0022uote":5 } "#,
        "\n{\t\"a\"\r:1,\"b\":2,\"a key that is longer than sixteen bytes\":3,\"ключ\":4,\"q\\\"uote\":5}\n",
    ] {
        decoder.decode(message.as_bytes()).unwrap();
    }
    let batch = decoder.finish().unwrap();
    for (column, expected) in batch.columns().iter().zip(1..) {
        let values = column.as_primitive::<Int32Type>();
        assert_eq!(values.null_count(), 0);
        assert!(values.values().iter().all(|value| *value == expected), "{values:?}");
    }
}

#[test]
fn the_next_batch_begins_empty() {
    let mut decoder = one(DataType::Utf8);
    for round in 0..3 {
        for row in 0..100 {
            decoder.decode(format!("{{\"v\":\"{round}-{row}\"}}").as_bytes()).unwrap();
        }
        assert!(decoder.buffered_bytes() >= 100 * 7);
        let batch = decoder.finish().unwrap();
        assert_eq!(batch.num_rows(), 100);
        assert_eq!(batch.column(0).as_string::<i32>().value(99), format!("{round}-99"));
    }
    assert_eq!(decoder.finish().unwrap().num_rows(), 0);
}

#[test]
fn fields_that_the_schema_does_not_have_may_be_as_many_as_they_like() {
    let mut decoder = decoder(vec![
        Field::new("a", DataType::Int32, false),
        Field::new("b", DataType::Int32, true),
    ]);
    let long = "x".repeat(1_000);
    for row in 0..3_000 {
        let (some, other) = (row % 7, row % 1_000);
        let message = format!(
            r#"{{"s{some}":[{row}],"a":{row},"k{other}":"a","{long}{some}":{{"b":1}},"aa":0,"b":{other},"":1}}"#
        );
        decoder.decode(message.as_bytes()).unwrap();
    }
    let batch = decoder.finish().unwrap();
    let [a, b] = [0, 1].map(|index| batch.column(index).as_primitive::<Int32Type>().clone());
    assert_eq!(b.null_count(), 0);
    for row in 0..3_000 {
        assert_eq!((a.value(row) as usize, b.value(row) as usize), (row, row % 1_000));
    }
}
