//! What people write under `[source]`, and what they are told about mistakes.

use std::time::Duration;

use tidelock_connector::{ErrorKind, Source};
use tidelock_kafka::{
    Assignor, Coordinate, Isolation, KafkaConfig, KafkaSource, OnBadRecord, Protocol, StartAt,
    Threshold,
};

const LEAST: &str = r#"
    brokers = "localhost:9092"
    topics = ["orders"]
    format = { type = "json", schema = [ { name = "id", type = "utf8" } ] }
"#;

fn parse(more: &str) -> Result<KafkaConfig, toml::de::Error> {
    toml::from_str(&format!("{LEAST}{more}"))
}

fn refused(more: &str) -> String {
    let config = parse(more).expect("parses");
    let error = KafkaSource::new(config, "pipeline").expect_err("is refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

#[test]
fn the_least_is_enough() {
    let config = parse("").expect("parses");
    assert_eq!(config.brokers, ["localhost:9092"]);
    assert_eq!(config.start, StartAt::Earliest);
    assert_eq!(config.on_bad_record, OnBadRecord::Stop);
    assert_eq!(config.assignor, Assignor::CooperativeSticky);
    assert_eq!(config.isolation, Isolation::ReadCommitted);
    assert_eq!(config.poll_interval, Duration::from_millis(50));
    assert_eq!(config.max_poll_records, 500);
    let source = KafkaSource::new(config, "orders-to-lake").expect("valid");
    assert_eq!(source.group_id(), "orders-to-lake");
    let streams = source.streams();
    assert_eq!(&*streams[0].name, "orders");
    let names: Vec<&str> =
        streams[0].schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", "_partition", "_offset", "_timestamp"]);
}

#[test]
fn everything_can_be_said() {
    let text = r#"
        brokers = ["a:1", "b:2,c:3"]
        group_id = "lake"
        topics = ["orders", "^audit-.*"]
        start = { offsets = { orders = { "0" = 5, "1" = 7 } } }
        format = { type = "raw" }
        on_bad_record = "skip"
        coordinates = ["_topic", "_key", "_headers"]
        group_instance_id = "lake-1"
        assignor = "range"
        session_timeout = "10s"
        max_poll_interval = "2m"
        isolation = "read_uncommitted"
        poll_interval = "20ms"
        max_poll_records = 100
        partition_pause_threshold = "4MiB"
        weights = { alerts = 4 }
        librdkafka = { "fetch.message.max.bytes" = "10485760" }
    "#;
    let config: KafkaConfig = toml::from_str(text).expect("parses");
    assert_eq!(config.brokers, ["a:1", "b:2", "c:3"]);
    let StartAt::Offsets(offsets) = &config.start else { panic!("{:?}", config.start) };
    assert_eq!(offsets["orders"][&1], 7);
    let expected = [Coordinate::Topic, Coordinate::Key, Coordinate::Headers];
    assert_eq!(config.coordinates(), expected);
    assert_eq!(config.partition_pause_threshold, Some(Threshold::Bytes(4 << 20)));
    assert_eq!(config.max_poll_interval, Duration::from_secs(120));
    KafkaSource::new(config, "pipeline").expect("valid");
}

#[test]
fn starts_are_words_or_tables() {
    let start = |text: &str| parse(&format!("start = {text}")).map(|config| config.start);
    assert_eq!(start("\"latest\""), Ok(StartAt::Latest));
    assert_eq!(start("\"committed\""), Ok(StartAt::Committed));
    let time = start("{ timestamp = \"2026-11-21T08:00:00+01:00\" }").expect("a time");
    let StartAt::Timestamp(time) = time else { panic!("{time:?}") };
    assert_eq!(time.to_rfc3339(), "2026-11-21T07:00:00+00:00");
    for wrong in ["\"sometimes\"", "{ timestamp = \"noon\" }", "{ offsets = { a = { x = 1 } } }"] {
        assert!(start(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn unknown_keys_are_mistakes() {
    let error = parse("topic = \"orders\"").expect_err("no such key").to_string();
    assert!(error.contains("unknown field `topic`") && error.contains("`topics`"), "{error}");
    assert!(parse("session_timeout = \"soon\"").is_err());
    assert!(parse("partition_pause_threshold = 0").is_err());
}

#[test]
fn settings_that_would_break_the_promise_are_refused_with_the_reason() {
    let told = refused("librdkafka = { \"enable.auto.commit\" = \"true\" }");
    assert!(told.contains("enable.auto.commit") && told.contains("checkpoints"), "{told}");
    assert!(refused("librdkafka = { \"group.id\" = \"x\" }").contains("`group_id`"));
    assert!(refused("weights = { orders = 0 }").contains("never be read"));
    assert!(refused("max_poll_interval = \"5s\"").contains("session_timeout"));
    let clash = r#"
        brokers = "a:1"
        topics = ["orders"]
        format = { type = "json", schema = [ { name = "_offset", type = "int64" } ] }
    "#;
    let config: KafkaConfig = toml::from_str(clash).expect("parses");
    let error = KafkaSource::new(config, "pipeline").expect_err("two columns of one name");
    assert!(error.to_string().contains("_offset"), "{error}");
}

#[test]
fn secrets_are_never_shown() {
    let config = parse(
        r#"
        security = { protocol = "sasl_ssl", mechanism = "PLAIN", username = "u", password = "hunter2" }
        librdkafka = { "sasl.oauthbearer.client.secret" = "hunter2" }
        "#,
    )
    .expect("parses");
    assert_eq!(config.security.as_ref().expect("given").protocol, Protocol::SaslSsl);
    let shown = format!("{config:?}");
    assert!(shown.contains("SaslSsl") && !shown.contains("hunter2"), "{shown}");
    #[cfg(feature = "tls")]
    {
        let source = KafkaSource::new(config, "pipeline").expect("valid");
        assert!(!format!("{source:?}").contains("hunter2"));
    }
    #[cfg(not(feature = "tls"))]
    {
        let error = KafkaSource::new(config, "pipeline").expect_err("no TLS in this build");
        assert!(error.to_string().contains("`tls`"), "{error}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn contradictions_in_security_are_found() {
    let told = |text: &str| refused(&format!("security = {text}"));
    assert!(told("{ protocol = \"sasl_ssl\" }").contains("mechanism"));
    let unknown = "{ protocol = \"sasl_ssl\", mechanism = \"SCRAM\", username = \"u\" }";
    assert!(told(unknown).contains("SCRAM-SHA-512"));
    assert!(told("{ protocol = \"sasl_ssl\", mechanism = \"PLAIN\" }").contains("password"));
    assert!(told("{ protocol = \"ssl\", username = \"u\" }").contains("sasl_ssl"));
    assert!(told("{ protocol = \"ssl\", certificate = \"a.pem\" }").contains("go together"));
    assert!(told("{ protocol = \"ssl\", ca = \"/nowhere/ca.pem\" }").contains("/nowhere/ca.pem"));
}
