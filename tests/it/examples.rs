//! The examples run as they stand.

use std::process::Command;

use crate::support::{Target, assert_exactly_once, example, files, read_parquet, topic};

fn run(name: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(example(name)).args(arguments).output().expect("the example is built");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn custom_sink() {
    assert!(run("custom_sink", &[]).contains("3 records"));
}

#[test]
fn custom_source() {
    assert!(run("custom_source", &[]).contains("1000 rows collected"));
}

/// Ten seconds of it, on the broker that it brings along.
#[test]
fn fair_polling() {
    let folder = tempfile::tempdir().unwrap();
    let said =
        run("fair_polling", &["--seconds", "10", "--folder", folder.path().to_str().unwrap()]);
    assert!(said.contains("the low volume's worst wait"), "{said}");
    for (name, line, least) in [("high_vol", "high volume: ", 100), ("low_vol", "low volume:  ", 2)]
    {
        let said = said.lines().find_map(|it| it.strip_prefix(line)).unwrap();
        let numbers: Vec<usize> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert_eq!(numbers[0], numbers[1], "everything that was sent is there: {said}");
        assert!(numbers[1] >= least, "{said}");
        let target = Target::Folder(folder.path().join(name));
        let lines: usize = files(&target, ".jsonl")
            .iter()
            .map(|(_, bytes)| bytes.iter().filter(|byte| **byte == b'\n').count())
            .sum();
        assert_eq!(lines, numbers[1]);
    }
}

#[test]
fn kafka_to_parquet() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let topic = topic(kafka, "example", 2, 3_000);
    let target = Target::Folder(folder.path().to_owned());
    let url = target.url();
    let said = run("kafka_to_parquet", &[kafka.client().bootstrap(), &topic, &url, "--until-end"]);
    assert!(said.contains("3000 rows out"), "{said}");
    assert_exactly_once(&read_parquet(&target), &kafka.client().end_offsets(&topic).unwrap());
}
