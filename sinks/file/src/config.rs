//! What a user may say about a file sink.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use tidelock_connector::{Error, Result};
use tidelock_store::StorageOptions;

/// A file sink, as it stands under `[[sink]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The format of the files.
    #[serde(default)]
    pub format: Format,
    /// The folder or the prefix that the files go to, `s3://bucket/prefix`.
    pub url: String,
    /// How to reach the store.
    #[serde(default)]
    pub storage: StorageOptions,
    /// The codec; without one `zstd(1)` for Parquet and none for JSON lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Columns whose values become folders, `country=DE`; and `day`, `hour`,
    /// `day(column)`, `hour(column)`, in UTC.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
    /// The size from which a file is closed before the checkpoint is due.
    #[serde(default = "target_file_size")]
    pub target_file_size: Size,
    /// How many files one worker keeps open.
    #[serde(default = "max_open_files")]
    pub max_open_files: usize,
    /// What only Parquet has.
    #[serde(default)]
    pub parquet: ParquetConfig,
}

fn target_file_size() -> Size {
    Size(128 << 20)
}

fn max_open_files() -> usize {
    512
}

/// S3 copies no more than 5 GB at once, and a file may exceed its target by one
/// batch and one row group.
const MAX_FILE_SIZE: Size = Size(4 << 30);

impl FileConfig {
    /// The defaults.
    pub fn new(format: Format, url: impl Into<String>) -> Self {
        Self {
            format,
            url: url.into(),
            storage: StorageOptions::default(),
            compression: None,
            partition_by: Vec::new(),
            target_file_size: target_file_size(),
            max_open_files: max_open_files(),
            parquet: ParquetConfig::default(),
        }
    }

    /// The codec that applies.
    pub fn codec(&self) -> Compression {
        self.compression.unwrap_or(match self.format {
            Format::Parquet => Compression::Zstd(1),
            Format::Json => Compression::None,
        })
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let codec = self.codec();
        if self.format == Format::Json && matches!(codec, Compression::Snappy | Compression::Lz4) {
            return Err(Error::config(format!(
                "json lines cannot be compressed with {codec}; use none, gzip or zstd"
            )));
        }
        if !(1..=MAX_FILE_SIZE.0).contains(&self.target_file_size.0) {
            return Err(Error::config(format!(
                "target_file_size must be more than 0 and at most {MAX_FILE_SIZE}"
            )));
        }
        if self.max_open_files == 0 {
            return Err(Error::config("max_open_files must be at least 1"));
        }
        if self.parquet.row_group_rows == 0 || self.parquet.row_group_size.0 == 0 {
            return Err(Error::config("row groups of no size cannot hold rows"));
        }
        Ok(())
    }
}

/// The format of the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Apache Parquet.
    #[default]
    Parquet,
    /// JSON, one object per line.
    Json,
}

/// What only Parquet has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParquetConfig {
    /// The most rows of a row group.
    pub row_group_rows: usize,
    /// The encoded size from which a row group is closed. Less when the sink's
    /// memory is small.
    pub row_group_size: Size,
    /// Which columns are dictionary encoded.
    pub dictionary: Dictionary,
    /// Which statistics are written.
    pub statistics: Statistics,
}

impl Default for ParquetConfig {
    fn default() -> Self {
        Self {
            row_group_rows: 1 << 20,
            row_group_size: Size(32 << 20),
            dictionary: Dictionary::Auto,
            statistics: Statistics::Auto,
        }
    }
}

/// Which Parquet columns are dictionary encoded: `"auto"`, `true`, `false` or
/// a list of columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Dictionary {
    /// Those of which the first rows repeat values.
    #[default]
    Auto,
    /// All, until a dictionary grows too large.
    All,
    /// None.
    Never,
    /// These columns, with everything below them; `geo.country` names a leaf.
    Columns(Vec<String>),
}

impl Serialize for Dictionary {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => s.serialize_str("auto"),
            Self::All => s.serialize_bool(true),
            Self::Never => s.serialize_bool(false),
            Self::Columns(columns) => columns.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Dictionary {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Dictionary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\", true, false or a list of columns")
            }

            fn visit_bool<E: de::Error>(self, all: bool) -> Result<Dictionary, E> {
                Ok(if all { Dictionary::All } else { Dictionary::Never })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Dictionary, E> {
                match text {
                    "auto" => Ok(Dictionary::Auto),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dictionary, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = seq.next_element()? {
                    columns.push(column);
                }
                Ok(Dictionary::Columns(columns))
            }
        }
        d.deserialize_any(Either)
    }
}

/// Which statistics a Parquet file carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistics {
    /// Pages of numbers and times, row groups of short strings, and nothing of
    /// long ones that do not repeat, because no reader can skip by them.
    #[default]
    Auto,
    /// Of every page of every column.
    Page,
    /// Of every row group.
    RowGroup,
    /// None.
    None,
}

/// A codec: `"none"`, `"snappy"`, `"lz4"`, `"gzip"`, `"gzip(6)"`, `"zstd"`,
/// `"zstd(1)"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// Snappy; Parquet only.
    Snappy,
    /// LZ4 blocks (`LZ4_RAW`); Parquet only.
    Lz4,
    /// Gzip, level 0 to 9.
    Gzip(u32),
    /// Zstandard, level 1 to 22.
    Zstd(i32),
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::config(format!(
                "unknown compression {text:?}; known are none, snappy, lz4, gzip, gzip(0) to \
                 gzip(9), zstd, zstd(1) to zstd(22)"
            ))
        };
        let (name, level) = match text.split_once('(') {
            Some((name, rest)) => {
                let level = rest.strip_suffix(')').and_then(|level| level.trim().parse().ok());
                (name, Some(level.ok_or_else(wrong)?))
            }
            None => (text, None),
        };
        match (name.trim(), level) {
            ("none", None) => Ok(Self::None),
            ("snappy", None) => Ok(Self::Snappy),
            ("lz4", None) => Ok(Self::Lz4),
            ("gzip", None) => Ok(Self::Gzip(6)),
            ("gzip", Some(level)) if level <= 9 => Ok(Self::Gzip(level)),
            ("zstd", None) => Ok(Self::Zstd(1)),
            ("zstd", Some(level @ 1..=22)) => Ok(Self::Zstd(level.cast_signed())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Snappy => f.write_str("snappy"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Gzip(level) => write!(f, "gzip({level})"),
            Self::Zstd(level) => write!(f, "zstd({level})"),
        }
    }
}

impl Serialize for Compression {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(|e: Error| de::Error::custom(e.message()))
    }
}

/// A number of bytes: `134217728` or `"128MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        let factor = match unit {
            "" => Some(1),
            _ => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
        };
        number
            .parse::<u64>()
            .ok()
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| {
                Error::config(format!("{text:?} is not a size; write \"128MiB\" or \"5GB\""))
            })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        let (unit, factor) = exact.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or text such as \"128MiB\"")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                let unexpected = || E::invalid_value(de::Unexpected::Signed(bytes), &self);
                u64::try_from(bytes).map(Size).map_err(|_| unexpected())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(|e: Error| E::custom(e.message()))
            }
        }
        d.deserialize_any(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_codecs_are_read_as_they_are_shown() {
        for text in ["128MiB", "5GB", "7B", "1000kB"] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }
        assert_eq!("128 MiB".parse::<Size>().unwrap(), Size(128 << 20));
        for text in ["none", "snappy", "lz4", "gzip(9)", "zstd(22)"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        for text in ["zstd(0)", "zstd(23)", "gzip(10)", "gzip(-1)", "zip", "zstd(1", "lz4(1)"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
        for text in ["12 apples", "MiB", "", "99999999999GiB", "-1"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn toml_is_understood_and_mistakes_are_named() {
        let config: FileConfig = toml::from_str(
            "url = 's3://lake/orders'\ncompression = 'zstd(3)'\npartition_by = ['country', 'day']\n\
             target_file_size = '64MiB'\nstorage = { endpoint = 'http://h:1', allow_http = true }\n\
             [parquet]\ndictionary = ['country']\nstatistics = 'row_group'\nrow_group_size = 1048576",
        )
        .unwrap();
        assert_eq!(config.codec(), Compression::Zstd(3));
        assert_eq!(config.parquet.dictionary, Dictionary::Columns(vec!["country".into()]));
        assert_eq!(config.parquet.row_group_size, Size(1 << 20));
        let back: FileConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(back, config);

        let wrong = |text: &str| toml::from_str::<FileConfig>(text).unwrap_err().to_string();
        assert!(wrong("url = 'x'\ncompresion = 'none'").contains("compresion"));
        assert!(wrong("url = 'x'\ncompression = 'zip'").contains("unknown compression"));
        assert!(wrong("url = 'x'\n[parquet]\ndictionary = 3").contains("\"auto\", true, false"));
        assert!(wrong("url = 'x'\ntarget_file_size = 'big'").contains("is not a size"));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let mut config = FileConfig::new(Format::Json, "x");
        assert!(config.validate().is_ok());
        config.compression = Some(Compression::Snappy);
        assert!(config.validate().is_err());
        let mut config = FileConfig::new(Format::Parquet, "x");
        config.target_file_size = Size(5 << 30);
        assert!(config.validate().is_err());
    }
}
