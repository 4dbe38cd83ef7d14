//! The names of files: where they are staged, and what they are called.
//!
//! ```text
//! <hive folders>/<stream>-<incarnation>-<checkpoint>-<n>.parquet       data
//! _tidelock/<pipeline>/staging/<incarnation>/<checkpoint>-<n>.staged   staged data
//! _tidelock/<pipeline>/footers/<key of the data file>.json             sidecars
//! ```

use std::fmt::Write;

use tidelock_connector::Incarnation;

/// The folder of everything that is not data.
pub(crate) const RESERVED: &str = "_tidelock";

/// Encodes what would break a key, a file name or a reader; letters of all
/// languages stay as they are.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() || matches!(c, '_' | '-' | '.') {
            escaped.push(c);
        } else {
            let mut utf8 = [0; 4];
            for byte in c.encode_utf8(&mut utf8).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    // A part of a path must not be "." or "..", and hidden files are skipped.
    if escaped.starts_with('.') {
        escaped.replace_range(..1, "%2E");
    }
    escaped
}

/// The longest file name that common file systems take, less our own parts.
const MAX_STREAM_BYTES: usize = 150;

/// The key of a data file.
pub(crate) fn data_key(
    folders: &str,
    stream: &str,
    incarnation: Incarnation,
    checkpoint: u64,
    file: u32,
    extension: &str,
) -> String {
    let mut name = escape(stream);
    while name.len() > MAX_STREAM_BYTES {
        name.pop();
    }
    let slash = if folders.is_empty() { "" } else { "/" };
    format!("{folders}{slash}{name}-{incarnation}-{checkpoint:08}-{file:04}.{extension}")
}

/// The folder with one folder per incarnation that has staged something.
pub(crate) fn staging(pipeline: &str) -> String {
    format!("{RESERVED}/{}/staging", escape(pipeline))
}

/// The folder of everything that an incarnation has staged.
pub(crate) fn staged_by(pipeline: &str, incarnation: Incarnation) -> String {
    format!("{}/{incarnation}", staging(pipeline))
}

/// Where a data file is staged.
pub(crate) fn staged_data(
    pipeline: &str,
    incarnation: Incarnation,
    checkpoint: u64,
    file: u32,
) -> String {
    format!("{}/{checkpoint:08}-{file:04}.staged", staged_by(pipeline, incarnation))
}

/// Where the sidecar of a staged data file is staged.
pub(crate) fn staged_sidecar(staged_data: &str) -> String {
    format!("{}-footer.staged", staged_data.trim_end_matches(".staged"))
}

/// The sidecar of a data file.
pub(crate) fn sidecar(pipeline: &str, key: &str) -> String {
    format!("{RESERVED}/{}/footers/{key}.json", escape(pipeline))
}

/// Whether a path is a data file's rather than one of ours.
pub(crate) fn is_data(path: &str) -> bool {
    path.split('/').next() != Some(RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_astray() {
        assert_eq!(escape("a/b c%"), "a%2Fb%20c%25");
        assert_eq!(escape(".."), "%2E.");
        assert_eq!(escape("Zürich_東京-1.5"), "Zürich_東京-1.5");
        assert_eq!(escape("a=b:c"), "a%3Db%3Ac");
        let long = data_key("", &"ü".repeat(300), Incarnation::from_u128(1), 3, 2, "parquet");
        assert!(long.len() <= 255, "{}", long.len());
    }

    #[test]
    fn keys_tell_whose_they_are() {
        let key = data_key("day=2026-11-21", "orders", Incarnation::from_u128(1), 3, 2, "parquet");
        assert_eq!(
            key,
            "day=2026-11-21/orders-00000000000000000000000000000001-00000003-0002.parquet"
        );
        assert!(is_data(&key) && !is_data(&sidecar("p", &key)));
        let staged = staged_data("a/b", Incarnation::from_u128(1), 3, 2);
        assert_eq!(
            staged,
            "_tidelock/a%2Fb/staging/00000000000000000000000000000001/00000003-0002.staged"
        );
        assert!(staged_sidecar(&staged).ends_with("/00000003-0002-footer.staged"));
    }
}
