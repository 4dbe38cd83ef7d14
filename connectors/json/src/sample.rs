//! Events to measure and demonstrate with: the same ones for the same seed, on
//! every machine and in every version.

use std::io::Write as _;

use arrow::datatypes::SchemaRef;

use crate::{ColumnSpec, ItemSpec, to_arrow};

const COUNTRIES: [&str; 20] = [
    "DE", "US", "FR", "GB", "IN", "BR", "JP", "CA", "IT", "ES", "NL", "SE", "PL", "AT", "CH", "AU",
    "MX", "KR", "ZA", "NO",
];

const TAGS: [&str; 8] =
    ["mobile", "web", "new-customer", "returning", "voucher", "gift", "express", "b2b"];

/// 2026-01-01T00:00:00Z in milliseconds.
const START_MS: u64 = 1_767_225_600_000;

/// Writes shop events as JSON, about 230 bytes each, with eight fields that
/// include a struct and a list.
///
/// ```
/// let mut events = tidelock_json::sample::EventGenerator::new(1);
/// let mut event = Vec::new();
/// events.write_event(&mut event);
/// assert!(event.starts_with(br#"{"id":""#));
/// ```
#[derive(Debug, Clone)]
pub struct EventGenerator {
    state: u64,
    now_ms: u64,
}

impl EventGenerator {
    /// A generator; the seed decides on everything that it writes.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, now_ms: START_MS }
    }

    /// Appends one event to `out`.
    pub fn write_event(&mut self, out: &mut Vec<u8>) {
        let (high, low) = (self.next(), self.next());
        self.now_ms += self.below(20);
        let country = COUNTRIES[self.below(20) as usize];
        // Writing into a vector cannot fail.
        let _ = write!(
            out,
            r#"{{"id":"{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}","ts":"{}","user":"customer-{:06}@mail.example.com","#,
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0xfff,
            low & 0xffff_ffff_ffff,
            timestamp(self.now_ms),
            self.below(200_000),
        );
        let (euros, cents) = (self.below(500), self.below(100));
        let _ = write!(
            out,
            r#""country":"{country}","amount":{euros}.{cents:02},"quantity":{},"#,
            1 + self.below(9)
        );
        let (latitude, longitude) = (self.below(180_000_000), self.below(360_000_000));
        let _ = write!(
            out,
            r#""geo":{{"lat":{},"lon":{}}},"tags":["#,
            degrees(latitude, 90),
            degrees(longitude, 180)
        );
        for index in 0..1 + self.below(3) {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(out, r#"{comma}"{}""#, TAGS[self.below(8) as usize]);
        }
        out.extend_from_slice(b"]}");
    }

    /// The next number of Steele, Lea and Flood's SplitMix64: not for secrets,
    /// and the same for ever.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Millionths of degrees from 0 on as degrees from `-zero` on.
fn degrees(millionths: u64, zero: u64) -> String {
    let zero = zero * 1_000_000;
    let (sign, absolute) =
        if millionths < zero { ("-", zero - millionths) } else { ("", millionths - zero) };
    format!("{sign}{}.{:06}", absolute / 1_000_000, absolute % 1_000_000)
}

/// RFC 3339 of a moment.
fn timestamp(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    // Howard Hinnant's `civil_from_days`: an era has 400 years, and the year
    // begins in March, so that the leap day is its last one.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1_000)
}

/// The columns of the events, as a pipeline file declares them.
pub const COLUMNS: &str = r#"[
    { name = "id", type = "utf8", nullable = false },
    { name = "ts", type = "timestamp(us, UTC)", nullable = false },
    { name = "user", type = "utf8", nullable = false },
    { name = "country", type = "utf8" },
    { name = "amount", type = "float64" },
    { name = "quantity", type = "int32" },
    { name = "geo", type = "struct", fields = [{ name = "lat", type = "float64" }, { name = "lon", type = "float64" }] },
    { name = "tags", type = "list", item = { type = "utf8" } },
]"#;

/// The columns of the events.
pub fn columns() -> Vec<ColumnSpec> {
    vec![
        column("id", "utf8", false),
        column("ts", "timestamp(us, UTC)", false),
        column("user", "utf8", false),
        column("country", "utf8", true),
        column("amount", "float64", true),
        column("quantity", "int32", true),
        ColumnSpec {
            fields: Some(vec![column("lat", "float64", true), column("lon", "float64", true)]),
            ..column("geo", "struct", true)
        },
        ColumnSpec {
            item: Some(Box::new(ItemSpec {
                type_name: "utf8".into(),
                nullable: true,
                fields: None,
                item: None,
            })),
            ..column("tags", "list", true)
        },
    ]
}

/// The Arrow schema of the events.
pub fn schema() -> SchemaRef {
    to_arrow(&columns()).expect("the columns above are well-formed")
}

fn column(name: &str, type_name: &str, nullable: bool) -> ColumnSpec {
    ColumnSpec {
        name: name.into(),
        type_name: type_name.into(),
        nullable,
        fields: None,
        item: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{JsonDecoder, JsonOptions};

    #[test]
    fn the_events_of_a_seed_never_change() {
        let mut events = EventGenerator::new(1);
        for expected in [
            r#"{"id":"910a2dec-8902-4cc1-aeeb-8da1658eec67","ts":"2026-01-01T00:00:00.010Z","user":"customer-168761@mail.example.com","country":"AU","amount":48.45,"quantity":4,"geo":{"lat":42.356520,"lon":26.636950},"tags":["express"]}"#,
            r#"{"id":"7476cf8a-4baa-4dc0-a7b3-41d690d7a28a","ts":"2026-01-01T00:00:00.026Z","user":"customer-059555@mail.example.com","country":"NO","amount":241.14,"quantity":1,"geo":{"lat":58.901446,"lon":-168.544356},"tags":["voucher"]}"#,
        ] {
            let mut event = Vec::new();
            events.write_event(&mut event);
            assert_eq!(String::from_utf8_lossy(&event), expected);
        }
    }

    #[test]
    fn the_events_fit_the_schema() {
        let mut events = EventGenerator::new(2);
        let mut decoder = JsonDecoder::new(schema(), JsonOptions::default()).unwrap();
        let mut bytes = 0;
        for _ in 0..10_000 {
            let mut event = Vec::new();
            events.write_event(&mut event);
            decoder.decode(&event).unwrap();
            bytes += event.len();
        }
        let batch = decoder.finish().unwrap();
        assert_eq!(batch.num_rows(), 10_000);
        assert!(batch.columns().iter().all(|column| column.null_count() == 0));
        assert!((225..240).contains(&(bytes / 10_000)), "{bytes}");
    }

    #[test]
    fn a_pipeline_file_declares_the_same_columns() {
        let text = format!("columns = {COLUMNS}");
        let mut read: BTreeMap<String, Vec<ColumnSpec>> = toml::from_str(&text).unwrap();
        assert_eq!(read.remove("columns"), Some(columns()));
    }

    #[test]
    fn moments_are_written_as_dates() {
        for (ms, expected) in [
            (START_MS, "2026-01-01T00:00:00.000Z"),
            (START_MS + 59 * 86_400_000 - 1, "2026-02-28T23:59:59.999Z"),
            (START_MS + 59 * 86_400_000, "2026-03-01T00:00:00.000Z"),
            (1_835_395_200_000, "2028-02-29T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(ms), expected);
        }
    }
}
