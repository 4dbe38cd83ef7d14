//! Wrong files, and exactly what is said about them.

use std::path::Path;
use std::time::Duration;

use super::*;

const GOOD: &str = r#"name = "orders-to-lake"
[source]
type = "kafka"
brokers = "localhost:9092"
topics = ["orders"]
format = { type = "json", schema = [ { name = "id", type = "utf8" } ] }
[[sink]]
name = "lake"
type = "parquet"
url = "memory:///lake"
compression = "zstd(1)"
[checkpoint]
interval = "10s"
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "BROKERS" => Some("one:1,two:2".to_owned()),
        "PASSWORD" => Some("hunter2-hunter2".to_owned()),
        "SHORT" => Some("s".to_owned()),
        _ => None,
    }
}

fn load(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(Path::new("p.toml"), text, &env)
}

/// The good file with a part of it replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replace(from, to)
}

#[track_caller]
fn says(text: &str, expected: &[&str]) {
    match load(text) {
        Ok(_) => panic!("this was accepted:\n{text}"),
        Err(errors) => {
            let said = errors.to_string();
            let said: Vec<&str> = said.lines().collect();
            assert_eq!(said, expected, "\n{}", errors.render(false));
        }
    }
}

#[test]
fn a_good_file_says_what_it_says() {
    let config = load(GOOD).unwrap();
    assert_eq!(config.name, "orders-to-lake");
    assert_eq!(config.source.topics, ["orders"]);
    assert_eq!(config.sinks.len(), 1);
    assert_eq!(config.checkpoint.interval, Duration::from_secs(10));
    assert_eq!(config.guarantee, Promise::ExactlyOnce);
    assert_eq!(config.state(), State::WithSink);
    assert!(config.into_builder().build().is_ok());
}

#[test]
fn every_general_key_is_understood() {
    let text = with(
        "interval = \"10s\"",
        "interval = \"500ms\"\nbytes = \"64 MiB\"\nstate = \"memory:///state\"\n\
         storage = { region = \"x\" }\n\
         [runtime]\nworkers = 3\nmemory = \"1GB\"\nretry_limit = 7\n\
         on_external_reset = \"follow\"\nmetrics = \"127.0.0.1:9464\"",
    );
    let config = load(&text).unwrap();
    assert_eq!(config.checkpoint.interval, Duration::from_millis(500));
    assert_eq!(config.checkpoint.bytes, 64 << 20);
    assert!(matches!(config.state(), State::Store(store) if store.url == "memory:///state"));
    assert_eq!(config.runtime.workers.get(), 3);
    assert_eq!(config.runtime.memory, 1_000_000_000);
    assert_eq!(config.runtime.retry_limit, Some(7));
    assert_eq!(config.runtime.metrics.map(|address| address.port()), Some(9464));
    let text = format!("guarantee = \"at_least_once\"\n{GOOD}");
    assert_eq!(load(&text).unwrap().state(), State::None);
}

#[test]
fn unknown_keys_come_with_the_likely_right_one() {
    says(
        &with("compression", "comression"),
        &["p.toml:11:1: unknown key \"comression\" in [[sink]] \"lake\"; \
           did you mean \"compression\"?"],
    );
    says(
        &with("[checkpoint]", "[checkpoints]"),
        &[
            "p.toml:12:2: unknown key \"checkpoints\" at the top level; did you mean \"checkpoint\"?",
        ],
    );
    says(
        &with("interval", "pause"),
        &["p.toml:13:1: unknown key \"pause\" in [checkpoint]; \
           known: interval, bytes, state, storage"],
    );
    says(
        &with("type = \"utf8\"", "type = \"utf8\", nulable = true"),
        &["p.toml:6:68: unknown key \"nulable\" in [source.format.schema] \"id\"; \
           did you mean \"nullable\"?"],
    );
    says(
        &with("interval", "parquet = { row_groups = 1 }\ninterval"),
        &["p.toml:13:1: unknown key \"parquet\" in [checkpoint]; \
           known: interval, bytes, state, storage"],
    );
    says(
        &with("compression = \"zstd(1)\"", "parquet = { row_group_row = 1 }"),
        &["p.toml:11:13: unknown key \"row_group_row\" in [sink.parquet] \"lake\"; \
           did you mean \"row_group_rows\"?"],
    );
}

#[test]
fn every_mistake_is_told_at_once_and_in_order() {
    let text = r#"nam = "x"
guarantee = "exactly-once"
[source]
type = "kafka"
brokrs = "localhost:9092"
topics = "orders"
start = "latst"
max_poll_records = -1
poll_interval = "10 parsecs"
format = { type = "json", schema = [ { name = "id", type = "string" }, { name = 5, type = "utf8" }, { nme = "b" } ] }
[[sink]]
type = "parquet"
url = 7
compression = "zip"
partition_by = ["a", 1]
[checkpoint]
interval = 10
[runtime]
workers = 0
"#;
    says(
        text,
        &[
            "p.toml:1:1: missing key \"name\" at the top level",
            "p.toml:1:1: unknown key \"nam\" at the top level; did you mean \"name\"?",
            "p.toml:2:13: `guarantee` at the top level cannot be \"exactly-once\"; \
             did you mean \"exactly_once\"?",
            "p.toml:3:2: missing key \"brokers\" in [source]",
            "p.toml:5:1: unknown key \"brokrs\" in [source]; did you mean \"brokers\"?",
            "p.toml:6:10: `topics` in [source] must be a list, not \"orders\"",
            "p.toml:7:9: `start` in [source] cannot be \"latst\"; did you mean \"latest\"?",
            "p.toml:8:20: `max_poll_records` in [source] must be a whole number from 0 on, not -1",
            "p.toml:9:17: `poll_interval` in [source]: \"10 parsecs\" is not a duration: \
             unknown time unit \"parsecs\", supported units: ns, us/µs, ms, sec, min, hours, \
             days, weeks, months, years (and few variations)",
            "p.toml:10:81: `name` in [source.format.schema] number 2 must be text in quotes, not 5",
            "p.toml:10:101: missing key \"name\" in [source.format.schema] number 3",
            "p.toml:10:101: missing key \"type\" in [source.format.schema] number 3",
            "p.toml:10:103: unknown key \"nme\" in [source.format.schema] number 3; \
             did you mean \"name\"?",
            "p.toml:11:1: missing key \"name\" in [[sink]] number 1",
            "p.toml:13:7: `url` in [[sink]] number 1 must be text in quotes, not 7",
            "p.toml:14:15: `compression` in [[sink]] number 1: unknown compression \"zip\"; known \
             are none, snappy, lz4, gzip, gzip(0) to gzip(9), zstd, zstd(1) to zstd(22)",
            "p.toml:15:22: an element of `partition_by` in [[sink]] number 1 must be text in \
             quotes, not 1",
            "p.toml:17:12: `interval` in [checkpoint] must be text in quotes, not 10",
            "p.toml:19:11: `workers` in [runtime] must be a whole number from 1 on, not 0",
        ],
    );
}

#[test]
fn the_type_decides_which_keys_there_are() {
    says(
        &with("type = \"kafka\"", "type = \"kafak\""),
        &["p.toml:3:8: unknown type \"kafak\" in [source]; did you mean \"kafka\"?"],
    );
    says(
        &with("type = \"parquet\"\n", ""),
        &["p.toml:7:1: missing key \"type\" in [[sink]] \"lake\": \"parquet\" or \"file\""],
    );
    says(
        &with("type = \"parquet\"", "type = \"parquet\"\nformat = \"json\""),
        &["p.toml:10:1: unknown key \"format\" in [[sink]] \"lake\"; type = \"parquet\" says it \
           already, other formats have type = \"file\""],
    );
    says(
        &with("type = \"parquet\"", "type = \"file\""),
        &["p.toml:7:1: missing key \"format\" in [[sink]] \"lake\": \"parquet\" or \"json\""],
    );
    says(
        &with("type = \"parquet\"", "type = \"file\"\nformat = \"json\"\nparquet = { }"),
        &["p.toml:11:1: `parquet` in [[sink]] \"lake\" needs format = \"parquet\""],
    );
    says(
        &with("type = \"json\"", "type = \"jsn\""),
        &["p.toml:6:19: unknown type \"jsn\" in [source.format]; did you mean \"json\"?"],
    );
    says(
        &with("{ type = \"json\", schema", "{ type = \"raw\", schema"),
        &["p.toml:6:26: unknown key \"schema\" in [source.format]; known: type"],
    );
    says(
        &with("[[sink]]", "[sink]"),
        &["p.toml:7:2: write [[sink]] with two brackets: there may be several"],
    );
}

#[test]
fn columns_are_judged_one_by_one() {
    says(
        &with(
            "{ name = \"id\", type = \"utf8\" }",
            "{ name = \"a\", type = \"string\" }, { name = \"b\", type = \"list\", item = { type = \"flot64\" } }",
        ),
        &[
            "p.toml:6:59: column \"a\": unknown type \"string\"; did you mean \"utf8\"?",
            "p.toml:6:116: column \"b[]\": unknown type \"flot64\"; did you mean \"float64\"?",
        ],
    );
}

#[test]
fn what_does_not_fit_together_is_pointed_at() {
    says(
        &with("topics = [\"orders\"]", "topics = [\"orders\"]\nmax_poll_interval = \"1s\""),
        &["p.toml:6:1: `max_poll_interval` must not be shorter than `session_timeout`"],
    );
    says(
        &with(
            "topics = [\"orders\"]",
            "topics = [\"orders\"]\nlibrdkafka = { \"group.id\" = \"x\" }",
        ),
        &["p.toml:6:16: `librdkafka` must not set \"group.id\": use `group_id`"],
    );
    says(
        &with("memory:///lake", "ftp://lake"),
        &["p.toml:10:7: no store has the scheme \"ftp\"; known are file, s3, gs, az, abfss and \
           memory (object=ftp://lake)"],
    );
    says(
        &with("name = \"lake\"", "name = \"lake\"\ntopics = [\"ordes\"]"),
        &[
            "p.toml:5:10: no sink takes the topic \"orders\", so its records would be thrown away",
            "p.toml:9:11: the source does not read the topic \"ordes\"; did you mean \"orders\"?",
        ],
    );
    let second =
        "[[sink]]\nname = \"lake\"\ntype = \"file\"\nformat = \"json\"\nurl = \"memory:///b\"\n";
    says(
        &format!("{GOOD}{second}"),
        &[
            "p.toml:12:2: missing key \"state\" in [checkpoint]: with several sinks, or without \
             one that writes files, say where the pipeline's record is to live, for example \
             state = \"s3://bucket/_state\"",
            "p.toml:15:8: another sink is called \"lake\" already",
        ],
    );
    says(
        &with("orders-to-lake", "orders to lake"),
        &["p.toml:1:8: pipeline name \"orders to lake\" must be made of letters, digits, '-', \
           '_' and '.': it becomes part of paths"],
    );
    says(
        &format!("guarantee = \"at_least_once\"\n{GOOD}state = \"memory:///s\"\n"),
        &["p.toml:15:1: guarantee = \"at_least_once\" keeps no record; leave `state` out"],
    );
    says(
        &with("interval = \"10s\"", "interval = \"0s\"\nbytes = \"many\""),
        &[
            "p.toml:13:12: `interval` in [checkpoint]: \"0s\" is not a duration; write \"10s\", \
             \"500ms\" or \"5m\"",
            "p.toml:14:9: `bytes` in [checkpoint]: \"many\" is not a size; write \"128MiB\" or \
             \"1GB\"",
        ],
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    says(
        "",
        &[
            "p.toml:1:1: missing key \"name\" at the top level",
            "p.toml:1:1: the pipeline has no [source]",
            "p.toml:1:1: the pipeline has no [[sink]]",
        ],
    );
    let errors = load(&with("\"localhost:9092\"", "localhost:9092")).err().unwrap();
    assert_eq!(errors.mistakes()[0].line, Some(4), "{errors}");
    let errors = load("name = \"a\"\nname = \"b\"\n").err().unwrap();
    assert_eq!(errors.mistakes()[0].line, Some(2), "{errors}");
}

#[test]
fn variables_expand_and_stay_secret() {
    let config = load(&with("localhost:9092", "${BROKERS}")).unwrap();
    assert!(config.source.summary.contains(&("brokers", "one:1, two:2".to_owned())));
    load(&with("localhost:9092", "${HOST:-localhost}:9092")).unwrap();
    says(
        &with("localhost:9092", "${HOST}:9092"),
        &["p.toml:4:11: `brokers`: the environment variable HOST is not set; set it, or give a \
           default: ${HOST:-…}"],
    );
    // Whatever is wrong with it, the value of a variable is not said.
    for key in ["start", "poll_interval", "assignor", "max_poll_records", "security"] {
        for variable in ["PASSWORD", "SHORT"] {
            let text = with("[[sink]]", &format!("{key} = \"${{{variable}}}\"\n[[sink]]"));
            let errors = load(&text).err().unwrap();
            for said in [errors.to_string(), errors.render(true)] {
                assert!(!said.contains("hunter2") && !said.contains("\"s\""), "{said}");
                assert!(said.contains(&format!("${{{variable}}}")), "{said}");
            }
        }
    }
}

#[test]
fn excerpts_show_the_line_but_no_secrets() {
    let errors = load(&with("compression", "comression")).err().unwrap();
    assert_eq!(
        errors.render(false),
        "error: p.toml:11:1: unknown key \"comression\" in [[sink]] \"lake\"; did you mean \
         \"compression\"?\n   |\n11 | comression = \"zstd(1)\"\n   | ^^^^^^^^^^\n"
    );
    for wrong in [
        "security = { protocol = \"sasl_ssl\", pasword = \"hunter2\" }",
        "security = { protocol = \"x\", username = \"u\", password = \"hunter2\", key_password = 5 }",
        "security = { password = \"hunter2\" \n",
        "librdkafka = { \"sasl.password\" = \"hunter2\", a = 1 }",
    ] {
        let text = with("[[sink]]", &format!("{wrong}\n[[sink]]"));
        let errors = load(&text).err().unwrap();
        assert!(!errors.render(false).contains("hunter2"), "{}", errors.render(false));
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let errors = Config::load("no/such/pipeline.toml").err().unwrap();
    let said = errors.to_string();
    assert!(said.starts_with("no/such/pipeline.toml: cannot read the file: "), "{said}");
}

/// An unknown key is answered with those that there are.
fn keys_of(text: &str) -> Vec<String> {
    let errors = load(text).err().unwrap();
    let message = &errors.mistakes()[0].message;
    let (_, known) = message.split_once("known: ").unwrap_or_else(|| panic!("{message}"));
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_is_documented() {
    let document = include_str!("../../docs/configuration.md");
    let unknown = "qqqqqqqq = 1";
    let tables = [
        ("# Top level", format!("{unknown}\n{GOOD}")),
        ("# `[source]`", with("topics", &format!("{unknown}\ntopics"))),
        ("# `format`", with("{ type = \"json\"", &format!("{{ {unknown}, type = \"json\""))),
        ("A column:", with("{ name = \"id\"", &format!("{{ {unknown}, name = \"id\""))),
        (
            "# `security`",
            with("topics", &format!("security = {{ protocol = \"ssl\", {unknown} }}\ntopics")),
        ),
        ("# `[[sink]]`", with("url", &format!("{unknown}\nurl"))),
        ("# `storage`", with("url", &format!("storage = {{ {unknown} }}\nurl"))),
        ("# `parquet`", with("url", &format!("parquet = {{ {unknown} }}\nurl"))),
        ("# `[checkpoint]`", with("interval", &format!("{unknown}\ninterval"))),
        ("# `[runtime]`", format!("{GOOD}[runtime]\n{unknown}\n")),
    ];
    for (heading, text) in tables {
        let section = document.split_once(&format!("#{heading}")).map_or_else(
            || document.split_once(heading).unwrap_or_else(|| panic!("{heading}")).1,
            |(_, section)| section,
        );
        // A sink's keys stand in several parts.
        let end = if heading.contains("sink") { "\n## " } else { "\n#" };
        let section = section.split(end).next().unwrap_or_default();
        for key in keys_of(&text) {
            assert!(section.contains(&format!("`{key}`")), "{key} is missing under {heading}");
        }
    }
}
