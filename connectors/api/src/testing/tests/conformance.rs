//! The suites pass on what is right and find what is wrong.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;

use super::{broken_sink, broken_source};
use crate::testing::faulty::{Faults, FaultySink, FaultySource};
use crate::testing::{CollectSink, MemorySink, MemorySource, conformance, lock};
use crate::{Committable, Guarantee, Sink, Source, TopicPartition};

const PATIENCE: Duration = Duration::from_secs(2);

/// Two topics, holes in the middle and at the end, small batches.
fn log() -> MemorySource {
    let source = MemorySource::new().topic("a", 3).topic("b", 1).batch_rows(6);
    let log = source.log();
    for number in 0..3 {
        log.fill("a", number, 20);
        log.hole("a", number, 3);
        log.fill("a", number, 10);
    }
    log.fill("b", 0, 15);
    log.hole("b", 0, 2);
    log.expire("a", 2, 5);
    source
}

/// Sinks by the name of their place.
struct Places<S>(Mutex<BTreeMap<String, S>>);

impl<S: Clone + Default> Places<S> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn at(&self, place: &str) -> S {
        lock(&self.0).entry(place.to_owned()).or_default().clone()
    }
}

async fn check_sink(wrap: impl Fn(MemorySink) -> Arc<dyn Sink>) {
    let places = Places::<MemorySink>::new();
    conformance::sink_within(
        PATIENCE,
        async |place: &str| wrap(places.at(place)),
        async |place: &str| places.at(place).files().rows(),
    )
    .await;
}

/// The message of the panic that `check` ends with.
async fn panic_of(check: impl Future<Output = ()>) -> Option<String> {
    let panic = AssertUnwindSafe(check).catch_unwind().await.err()?;
    let message = panic.downcast::<String>().map(|message| *message);
    Some(message.unwrap_or_else(|other| match other.downcast::<&str>() {
        Ok(message) => (*message).to_owned(),
        Err(_) => "no message".to_owned(),
    }))
}

#[tokio::test]
async fn memory_source_conforms() {
    conformance::source(async || Arc::new(log()) as _).await;
    conformance::source(async || Arc::new(log().bounded()) as _).await;
    conformance::source(async || Arc::new(log().one_partition_per_batch()) as _).await;
}

#[tokio::test]
async fn faulty_source_conforms() {
    for seed in 0..3 {
        let faults = Faults::seeded(seed).delays(Duration::from_micros(500));
        let wrap = |source| FaultySource::new(Arc::new(source), faults.clone());
        conformance::source(async || Arc::new(wrap(log())) as _).await;
        assert!(faults.injected() > 50, "only {} faults", faults.injected());
    }
}

#[tokio::test]
async fn memory_sink_conforms() {
    check_sink(|sink| Arc::new(sink)).await;
    check_sink(|sink| Arc::new(sink.parts(3))).await;
}

#[tokio::test]
async fn faulty_sink_conforms() {
    for seed in 0..20 {
        let faults = Faults::seeded(seed);
        check_sink(|sink| Arc::new(FaultySink::new(Arc::new(sink), faults.clone()))).await;
        assert!(faults.injected() > 20, "only {} faults", faults.injected());
    }
}

#[tokio::test]
async fn collect_sink_conforms() {
    let places = Places::<CollectSink>::new();
    let visible = async |place: &str| places.at(place).rows().unwrap();
    conformance::sink(async |place: &str| Arc::new(places.at(place)) as _, visible).await;
    let faults = Faults::seeded(1);
    let wrap = |sink| Arc::new(FaultySink::new(Arc::new(sink), faults.clone())) as _;
    let places = Places::<CollectSink>::new();
    let visible = async |place: &str| places.at(place).rows().unwrap();
    conformance::sink(async |place: &str| wrap(places.at(place)), visible).await;
}

#[tokio::test]
async fn every_planted_bug_of_a_source_is_found() {
    for (bug, says) in broken_source::Bug::ALL {
        let make =
            async || Arc::new(broken_source::BrokenSource { inner: log(), bug }) as Arc<dyn Source>;
        let message = panic_of(conformance::source_within(PATIENCE, make)).await;
        let message = message.unwrap_or_else(|| panic!("{bug:?} was not found"));
        assert!(says.iter().any(|text| message.contains(text)), "{bug:?}: {message}");
    }
}

#[tokio::test]
async fn every_planted_bug_of_a_sink_is_found() {
    for (bug, says) in broken_sink::Bug::ALL {
        let check = check_sink(|sink| Arc::new(broken_sink::BrokenSink::new(sink, bug)));
        let message = panic_of(check).await.unwrap_or_else(|| panic!("{bug:?} was not found"));
        assert!(says.iter().any(|text| message.contains(text)), "{bug:?}: {message}");
    }
}

#[tokio::test]
async fn an_at_least_once_sink_that_does_not_flush_is_found() {
    let places = Places::<CollectSink>::new();
    let nothing = async |_: &str| Vec::<(TopicPartition, i64)>::new();
    let check = conformance::sink(async |place: &str| Arc::new(places.at(place)) as _, nothing);
    let message = panic_of(check).await.unwrap();
    assert!(message.contains("was acknowledged and is not visible"), "{message}");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let run = async |seed: u64| {
        let faults = Faults::seeded(seed);
        let source = FaultySource::new(Arc::new(log()), faults.clone());
        let mut fates = Vec::new();
        for worker in 0..40 {
            let opened = source.open(crate::SourceContext::new("p", worker, 0)).await;
            fates.push(opened.err().map(|error| error.to_string()));
        }
        faults.stop();
        assert!(source.open(crate::SourceContext::new("p", 0, 0)).await.is_ok());
        fates
    };
    let fates = run(7).await;
    assert_eq!(fates, run(7).await);
    assert_ne!(fates, run(8).await);
    for happened in ["happened=true", "happened=false"] {
        assert!(fates.iter().flatten().any(|error| error.contains(happened)), "no {happened}");
    }
}

#[tokio::test]
async fn deletions_are_forgotten_only_on_request() {
    let unsaid = async |faults: Faults| {
        let sink = FaultySink::new(Arc::new(MemorySink::new()), faults);
        let Guarantee::ExactlyOnce(committer) = sink.guarantee() else { panic!("no committer") };
        // A committable of another sink is refused by whoever looks at it.
        let stranger =
            Committable { name: String::new(), rows: 0, bytes: 0, detail: serde_json::Value::Null };
        let mut forgotten = 0;
        for _ in 0..50 {
            forgotten +=
                usize::from(committer.discard(std::slice::from_ref(&stranger)).await.is_ok());
        }
        forgotten
    };
    assert_eq!(unsaid(Faults::seeded(1).rate(1.0)).await, 0);
    assert!(unsaid(Faults::seeded(1).rate(1.0).forget_deletes()).await > 0);
}
