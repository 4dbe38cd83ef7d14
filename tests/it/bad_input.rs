//! What users get wrong, and what they are told.

use std::process::Output;
use std::time::{Duration, Instant};

use tidelock_services::Message;

use crate::support::{Job, Target, assert_exactly_once, pipeline, read_parquet, topic};

/// The exit code and everything that was said, within half a minute.
fn told(job: &Job, verb: &str, arguments: &[&str]) -> (i32, String) {
    let began = Instant::now();
    let Output { status, stdout, stderr } = job.run(verb, arguments);
    assert!(began.elapsed() < Duration::from_secs(40), "{verb} took {:?}", began.elapsed());
    let said = String::from_utf8_lossy(&stderr) + String::from_utf8_lossy(&stdout);
    (status.code().expect("an exit code"), said.into_owned())
}

#[test]
fn a_wrong_file_names_line_key_and_the_likely_right_one() {
    let toml = "name = \"x\"\n[source]\ntype = \"kafka\"\nbrokers = \"localhost:1\"\ntopcs = [\"t\"]\n\
                topics = [\"t\"]\nformat = { type = \"raw\" }\n[[sink]]\nname = \"s\"\ntype = \"parquet\"\nurl = \"./x\"\n";
    let (code, said) = told(&Job::new(toml, None), "check", &[]);
    assert_eq!(code, 2, "{said}");
    for part in ["pipeline.toml:5", "topcs", "topics"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_broker_that_is_not_there() {
    let toml = "name = \"x\"\n[source]\ntype = \"kafka\"\nbrokers = \"127.0.0.1:1\"\n\
                topics = [\"t\"]\nformat = { type = \"raw\" }\n[[sink]]\nname = \"s\"\ntype = \"parquet\"\nurl = \"/tmp/tidelock-never\"\n";
    let (code, said) = told(&Job::new(toml, None), "run", &[]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");
}

#[test]
fn a_topic_that_is_not_there() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let there = topic(kafka, "there", 1, 1);
    let target = Target::Folder(folder.path().to_owned());
    let toml = pipeline(kafka, &there, &target, "")
        .replace(&format!("[\"{there}\"]"), &format!("[\"{there}x\"]"));
    for verb in ["check", "run"] {
        let (code, said) = told(&Job::new(&toml, None), verb, &[]);
        assert!(code == 3 || code == 1, "{verb}: {code}: {said}");
        assert!(said.contains(&format!("{there}x")), "{said}");
    }
}

#[test]
fn a_bucket_that_is_not_there_and_keys_that_are_wrong() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let Some(s3) = tidelock_services::minio() else { return };
    let topic = topic(kafka, "bucket", 1, 10);
    let nowhere = Target::S3(s3, "no-such-bucket".to_owned());
    let (code, said) =
        told(&Job::new(&pipeline(kafka, &topic, &nowhere, ""), Some(s3)), "run", &[]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("no-such-bucket"), "{said}");

    let job = Job::new(&pipeline(kafka, &topic, &Target::bucket(s3), ""), Some(s3))
        .env("AWS_SECRET_ACCESS_KEY", "not-the-key");
    let (code, said) = told(&job, "run", &[]);
    assert_eq!(code, 3, "{said}");
    assert!(!said.contains("not-the-key"), "secrets are never said: {said}");
    assert!(said.to_lowercase().contains("denied") || said.contains("credentials"), "{said}");
    assert!(kafka.client().committed_offsets(&topic, &topic).unwrap().is_empty());
}

#[test]
fn a_column_that_is_not_there() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let topic = topic(kafka, "column", 1, 10);
    let target = Target::Folder(folder.path().to_owned());
    let toml = pipeline(kafka, &topic, &target, "partition_by = [\"contry\"]");
    let (code, said) = told(&Job::new(&toml, None), "check", &[]);
    assert_ne!(code, 0, "{said}");
    assert!(said.contains("contry"), "{said}");
}

/// A record that does not decode stops the run, and nothing before it is lost;
/// told to skip it, the run goes on.
#[test]
fn a_record_that_does_not_decode() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = Target::Folder(folder.path().to_owned());
    let topic = topic(kafka, "bad", 1, 1_000);
    kafka.client().produce(&topic, [Message::new("{\"id\": \"x\", \"amount\": true}")]).unwrap();
    kafka.client().produce(&topic, crate::support::events(5, 500)).unwrap();
    let toml = pipeline(kafka, &topic, &target, "");
    let job = Job::new(&toml, None);

    let (code, said) = told(&job, "run", &["--until-end"]);
    assert_eq!(code, 3, "{said}");
    for part in [topic.as_str(), "partition=0", "offset=1000", "amount"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(read_parquet(&target)[&0].len(), 1_000, "nothing before it is lost");
    assert_eq!(kafka.client().committed_offsets(&topic, &topic).unwrap()[&0], 1_000);

    let skip = toml.replace("[source]", "[source]\non_bad_record = \"skip\"");
    let (code, said) = told(&Job::new(&skip, None), "run", &["--until-end", "--json"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("\"rejected\": 1") || said.contains("\"rejected\":1"), "{said}");
    let seen = read_parquet(&target);
    assert_eq!(seen[&0].len(), 1_500);
    assert!(!seen[&0].contains_key(&1_000));
    assert!(seen[&0].values().all(|count| *count == 1));
    job.ok("verify", &[]);
}

/// Every compression that producers use.
#[test]
fn all_codecs_are_read() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = Target::Folder(folder.path().to_owned());
    let topic = topic(kafka, "codecs", 1, 1);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
        let mut config = kafka.client().config();
        config.set("compression.type", codec);
        let producer: BaseProducer = config.create().unwrap();
        for event in crate::support::events(7, 200) {
            producer
                .send(BaseRecord::<(), [u8]>::to(&topic).payload(&event))
                .map_err(|(e, _)| e)
                .unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    }
    Job::new(&pipeline(kafka, &topic, &target, ""), None).ok("run", &["--until-end"]);
    assert_exactly_once(&read_parquet(&target), &kafka.client().end_offsets(&topic).unwrap());
}

/// TLS with a private CA and SCRAM, as production brokers have it.
#[test]
fn sasl_ssl_with_scram() {
    let Some(kafka) = tidelock_services::kafka() else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = Target::Folder(folder.path().to_owned());
    let topic = topic(kafka, "scram", 2, 1_000);
    let sasl = kafka.sasl();
    let security = format!(
        "security = {{ protocol = \"sasl_ssl\", mechanism = \"{}\", username = \"{}\", password = \"${{SCRAM_PASSWORD}}\", ca = \"{}\" }}\n[checkpoint]",
        sasl.mechanism,
        sasl.username,
        sasl.ca.display()
    );
    let toml = pipeline(kafka, &topic, &target, "")
        .replace(kafka.client().bootstrap(), &sasl.bootstrap)
        .replace("[checkpoint]", &security);
    let job = Job::new(&toml, None).env("SCRAM_PASSWORD", sasl.password);
    job.ok("run", &["--until-end"]);
    assert_exactly_once(&read_parquet(&target), &kafka.client().end_offsets(&topic).unwrap());

    let wrong = Job::new(&toml, None).env("SCRAM_PASSWORD", "not-the-password");
    let (code, said) = told(&wrong, "run", &["--until-end"]);
    assert_eq!(code, 3, "{said}");
    assert!(!said.contains("not-the-password"), "secrets are never said: {said}");
}
