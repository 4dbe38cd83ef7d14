//! What a newcomer runs first.

use std::process::Command;

use crate::support::{Target, read_parquet};

#[test]
fn the_demo_shows_a_crash_that_nothing_comes_of() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("demo");
    let output = Command::new(env!("CARGO_BIN_EXE_tidelock"))
        .args(["demo", "--records", "20000", "--json", "--dir"])
        .arg(&target)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (what, is) in [("records_in", 20_000), ("rows_out", 20_000), ("duplicates", 0)] {
        assert_eq!(said[what], is, "{said}");
    }
    assert_eq!((&said["missing"], &said["kills"]), (&0.into(), &1.into()), "{said}");
    assert_eq!(said["verified"], true, "{said}");
    let seen = read_parquet(&Target::Folder(target));
    let rows: u64 = seen.values().flat_map(|offsets| offsets.values()).map(|n| u64::from(*n)).sum();
    assert_eq!(rows, 20_000);
}
