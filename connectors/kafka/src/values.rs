//! How single values of the configuration are read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::config::Threshold;

/// `"45s"`, `"50ms"`, `"5m"`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|error| de::Error::custom(format!("{text:?} is not a duration: {error}")))
}

/// RFC 3339.
pub(crate) fn timestamp<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(deserializer)?;
    DateTime::parse_from_rfc3339(&text).map(Into::into).map_err(|_| {
        de::Error::custom(format!("{text:?} is not a time like \"2026-11-21T08:00:00Z\""))
    })
}

/// Offsets by topic and partition; TOML and JSON know only text as keys.
pub(crate) fn offsets<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, BTreeMap<i32, i64>>, D::Error> {
    let topics = BTreeMap::<String, BTreeMap<String, i64>>::deserialize(deserializer)?;
    let partition = |(key, offset): (String, i64)| match key.parse::<i32>() {
        Ok(number) if number >= 0 && offset >= 0 => Ok((number, offset)),
        _ => Err(de::Error::custom(format!("\"{key}\" = {offset} is no partition and offset"))),
    };
    topics
        .into_iter()
        .map(|(topic, parts)| {
            Ok((topic, parts.into_iter().map(partition).collect::<Result<_, D::Error>>()?))
        })
        .collect()
}

/// `"a:1, b:2"`.
pub(crate) fn split_brokers(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// `"a:1,b:2"` or `["a:1", "b:2"]`.
pub(crate) fn brokers<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    struct Brokers;

    impl<'de> Visitor<'de> for Brokers {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("brokers as \"host:port,host:port\" or a list of them")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(split_brokers(text))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = list.next_element::<String>()? {
                all.extend(split_brokers(&one));
            }
            Ok(all)
        }
    }

    d.deserialize_any(Brokers)
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Threshold;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of messages, or bytes as in \"4MiB\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Threshold, E> {
                usize::try_from(number)
                    .ok()
                    .filter(|number| *number > 0)
                    .map(Threshold::Messages)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Threshold, E> {
                match i64::try_from(number) {
                    Ok(number) => self.visit_i64(number),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Threshold, E> {
                parse_bytes(text)
                    .map(Threshold::Bytes)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

/// `"64KiB"`, `"4MiB"`, `"1MB"`, `"512"`.
fn parse_bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "kib" => 1 << 10,
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_bytes("64KiB"), Some(65_536));
        assert_eq!(parse_bytes("4 MiB"), Some(4 << 20));
        assert_eq!(parse_bytes("512"), Some(512));
        assert_eq!(parse_bytes("1MB"), Some(1_000_000));
        for wrong in ["", "MiB", "4 parsecs", "-1", "0"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn brokers_come_as_text_with_commas() {
        assert_eq!(split_brokers("a:1, b:2,"), ["a:1", "b:2"]);
    }
}
