//! Random messages of a schema that has every type, for the tests that compare.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

/// Every type that this decoder and arrow-json have in common.
pub(crate) fn schema() -> SchemaRef {
    let at = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
    let item = |data_type| Arc::new(Field::new("item", data_type, true));
    let point = Fields::from(vec![
        Field::new("lat", DataType::Float64, true),
        Field::new("lon", DataType::Float64, false),
        Field::new("name of the place, at length", DataType::Utf8, true),
    ]);
    let types = [
        ("id", DataType::Utf8),
        ("text", DataType::LargeUtf8),
        ("ключ", DataType::Utf8),
        ("i8", DataType::Int8),
        ("i16", DataType::Int16),
        ("i32", DataType::Int32),
        ("i64", DataType::Int64),
        ("u8", DataType::UInt8),
        ("u16", DataType::UInt16),
        ("u32", DataType::UInt32),
        ("u64", DataType::UInt64),
        ("f32", DataType::Float32),
        ("f64", DataType::Float64),
        ("flag", DataType::Boolean),
        ("day", DataType::Date32),
        ("seconds", at(TimeUnit::Second, None)),
        ("millis", at(TimeUnit::Millisecond, Some("+00:00"))),
        ("micros", at(TimeUnit::Microsecond, Some("-03:30"))),
        ("nanos", at(TimeUnit::Nanosecond, None)),
        ("price", DataType::Decimal128(18, 4)),
        ("point", DataType::Struct(point.clone())),
        ("words", DataType::List(item(DataType::Utf8))),
        ("points", DataType::List(item(DataType::Struct(point)))),
        ("matrix", DataType::List(item(DataType::List(item(DataType::Int32))))),
    ];
    let fields = types.into_iter().map(|(name, data_type)| Field::new(name, data_type, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Writes messages, sometimes as a serialiser would and sometimes as odd as
/// JSON allows; the seed decides.
pub(crate) struct Messages {
    pub(crate) random: StdRng,
    schema: SchemaRef,
    odd: bool,
}

impl Messages {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), schema: schema(), odd: !seed.is_multiple_of(4) }
    }

    pub(crate) fn message(&mut self) -> String {
        let mut out = String::new();
        self.space(&mut out);
        let schema = Arc::clone(&self.schema);
        self.object(&mut out, schema.fields());
        self.space(&mut out);
        out
    }

    fn sometimes(&mut self, per_mille: u32) -> bool {
        self.odd && self.random.random_ratio(per_mille, 1_000)
    }

    fn space(&mut self, out: &mut String) {
        while self.sometimes(30) {
            out.push(*b" \t\n\r".choose(&mut self.random).unwrap() as char);
        }
    }

    fn object(&mut self, out: &mut String, fields: &Fields) {
        let mut order: Vec<usize> = (0..fields.len()).collect();
        if self.sometimes(200) {
            order.shuffle(&mut self.random);
        }
        out.push('{');
        let mut first = true;
        for index in order {
            let field = &fields[index];
            if field.is_nullable() && self.sometimes(80) {
                continue;
            }
            let times = if self.sometimes(10) { 2 } else { 1 };
            for _ in 0..times {
                if self.sometimes(30) {
                    self.key(out, &mut first, "no column");
                    self.anything(out, 0);
                    self.space(out);
                }
                self.key(out, &mut first, field.name());
                if field.is_nullable() && self.sometimes(60) {
                    out.push_str("null");
                } else {
                    self.value(out, field.data_type());
                }
                self.space(out);
            }
        }
        out.push('}');
    }

    fn key(&mut self, out: &mut String, first: &mut bool, name: &str) {
        if !*first {
            out.push(',');
        }
        *first = false;
        self.space(out);
        out.push('"');
        for character in name.chars() {
            self.character(out, character);
        }
        out.push('"');
        self.space(out);
        out.push(':');
        self.space(out);
    }

    /// A character as it is, or as an escape sequence.
    fn character(&mut self, out: &mut String, character: char) {
        if self.sometimes(10) || character < ' ' || matches!(character, '"' | '\\') {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}").unwrap();
            }
        } else {
            out.push(character);
        }
    }

    fn string(&mut self, out: &mut String) {
        const ODD: [char; 12] =
            ['ä', '€', '😀', '\n', '"', '\\', '/', '\u{7f}', '\u{0}', '\u{fffd}', '}', ','];
        out.push('"');
        let most = if self.sometimes(20) { 400 } else { 20 };
        for _ in 0..self.random.random_range(0..most) {
            let character = if self.sometimes(60) {
                *ODD.choose(&mut self.random).unwrap()
            } else {
                self.random.random_range('a'..='z')
            };
            self.character(out, character);
        }
        out.push('"');
    }

    fn value(&mut self, out: &mut String, data_type: &DataType) {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 => self.string(out),
            DataType::Boolean => out.push_str(["true", "false"].choose(&mut self.random).unwrap()),
            DataType::Int8 => self.integer(out, i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => self.integer(out, i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => self.integer(out, i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => self.integer(out, i64::MIN.into(), i64::MAX.into()),
            DataType::UInt8 => self.integer(out, 0, u8::MAX.into()),
            DataType::UInt16 => self.integer(out, 0, u16::MAX.into()),
            DataType::UInt32 => self.integer(out, 0, u32::MAX.into()),
            DataType::UInt64 => self.integer(out, 0, u64::MAX.into()),
            DataType::Float32 => self.float(out, 30),
            DataType::Float64 => self.float(out, 300),
            DataType::Date32 => self.date(out),
            DataType::Timestamp(unit, _) => self.timestamp(out, *unit),
            DataType::Decimal128(..) => self.decimal(out),
            DataType::Struct(fields) => self.object(out, fields),
            DataType::List(item) => {
                out.push('[');
                self.space(out);
                for index in 0..self.random.random_range(0..5) {
                    if index > 0 {
                        out.push(',');
                        self.space(out);
                    }
                    if self.sometimes(50) {
                        out.push_str("null");
                    } else {
                        self.value(out, item.data_type());
                    }
                    self.space(out);
                }
                out.push(']');
            }
            other => panic!("no values of {other}"),
        }
    }

    fn integer(&mut self, out: &mut String, least: i128, most: i128) {
        let value = match self.random.random_range(0..10) {
            0 => least,
            1 => most,
            2 => 0,
            3..6 => self.random.random_range(least.max(-1_000)..=most.min(1_000)),
            _ => self.random.random_range(least..=most),
        };
        if self.sometimes(30) {
            // arrow-json takes other spellings through floats.
            let value = value.clamp(-(1 << 50), 1 << 50);
            let spelling =
                ["{}.0", "{}e0", "{}.0E-0", "{}.00e+0"].choose(&mut self.random).unwrap();
            out.push_str(&spelling.replace("{}", &value.to_string()));
        } else if self.sometimes(30) {
            write!(out, "\"{value}\"").unwrap();
        } else {
            write!(out, "{value}").unwrap();
        }
    }

    fn float(&mut self, out: &mut String, most: i32) {
        let unit: f64 = self.random.random_range(-1.0..1.0);
        let power = self.random.random_range(-most..most);
        match self.random.random_range(0..8) {
            0 => write!(out, "{}", self.random.random_range(-1_000_000..1_000_000)),
            1 => write!(out, "{unit}"),
            2 => write!(out, "{:e}", unit * 10_f64.powi(power)),
            3 => write!(out, "{}", unit * 10_f64.powi(power.clamp(-30, 30))),
            4 => write!(out, "\"{unit}\""),
            5 => write!(out, "{:.25}", unit * 1e3),
            _ => write!(out, "{:.*}", self.random.random_range(1..9), unit * 1e4),
        }
        .unwrap();
    }

    fn decimal(&mut self, out: &mut String) {
        let value: i64 = self.random.random_range(-99_999_999_999_999..=99_999_999_999_999);
        let digits = self.random.random_range(0..=4);
        let fraction = &format!("{:04}", self.random.random_range(0..10_000))[..digits];
        let point = if digits > 0 { "." } else { "" };
        if self.sometimes(50) {
            write!(out, "\"{value}{point}{fraction}\"").unwrap();
        } else {
            write!(out, "{value}{point}{fraction}").unwrap();
        }
    }

    fn date(&mut self, out: &mut String) {
        let (year, month, day) = self.civil();
        match self.random.random_range(0..10) {
            0 if self.odd => write!(out, "{}", self.random.random_range(-800_000..800_000)),
            1 if self.odd => write!(out, "\"{year:04}-{month}-{day}\""),
            2 if self.odd => write!(out, "\"{year:04}-{month:02}-{day:02}T01:02:03Z\""),
            _ => write!(out, "\"{year:04}-{month:02}-{day:02}\""),
        }
        .unwrap();
    }

    fn civil(&mut self) -> (u32, u32, u32) {
        let year = self.random.random_range(1_700..2_200);
        (year, self.random.random_range(1..=12), self.random.random_range(1..=28))
    }

    fn timestamp(&mut self, out: &mut String, unit: TimeUnit) {
        if self.sometimes(100) {
            let most = if unit == TimeUnit::Second { 1 << 33 } else { i64::MAX };
            write!(out, "{}", self.random.random_range(-most..most)).unwrap();
            return;
        }
        let (year, month, day) = self.civil();
        let [hour, minute, second] = [24, 60, 60].map(|most| self.random.random_range(0..most));
        let mark = if self.sometimes(100) { ' ' } else { 'T' };
        write!(out, "\"{year:04}-{month:02}-{day:02}{mark}{hour:02}:{minute:02}:{second:02}")
            .unwrap();
        let digits = self.random.random_range(0..=if self.odd { 12 } else { 3 });
        if digits > 0 {
            write!(
                out,
                ".{}",
                &format!("{:012}", self.random.random_range(0..1_000_000_000_000_u64))[..digits]
            )
            .unwrap();
        }
        let zone =
            if self.odd { ["Z", "", "+02:00", "-0330", "z", " +01"].as_slice() } else { &["Z"] };
        out.push_str(zone.choose(&mut self.random).unwrap());
        out.push('"');
    }

    /// A value that no column wants.
    fn anything(&mut self, out: &mut String, depth: usize) {
        match self.random.random_range(0..if depth < 6 { 8 } else { 6 }) {
            0 => out.push_str("null"),
            1 => out.push_str("true"),
            2 => self.integer(out, i64::MIN.into(), i64::MAX.into()),
            3 => self.float(out, 300),
            4 | 5 => self.string(out),
            6 => {
                out.push('[');
                for index in 0..self.random.random_range(0..4) {
                    out.push_str(if index > 0 { "," } else { "" });
                    self.space(out);
                    self.anything(out, depth + 1);
                    self.space(out);
                }
                out.push(']');
            }
            _ => {
                out.push('{');
                let mut first = true;
                for _ in 0..self.random.random_range(0..4) {
                    self.key(out, &mut first, "id");
                    self.anything(out, depth + 1);
                    self.space(out);
                }
                out.push('}');
            }
        }
    }
}
