//! The contract of [`Committer`].

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join;

use super::reading::Row;
use super::writing::{Order, PIPELINE, World, batch, commit, commit_again, commit_first};
use super::{PATIENCE, insist};
use crate::{Committable, Committer, Incarnation, Outcome, Sink};

/// Checks the committer of an exactly-once sink; [`sink`](super::sink()) does
/// so too. The arguments are the same.
///
/// # Panics
/// When a part of the contract does not hold.
pub async fn committer(
    make: impl AsyncFn(&str) -> Arc<dyn Sink>,
    visible: impl AsyncFn(&str) -> Vec<Row>,
) {
    check(&World { make, visible, patience: PATIENCE }).await;
}

pub(super) async fn check<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    anybody_commits_once(world).await;
    racing_commits_agree(world).await;
    discarding_is_idempotent(world).await;
    discarded_bytes_are_missing(world).await;
    collecting_spares_the_others(world).await;
}

/// As the record keeps it.
fn through_serde(set: &[Committable]) -> Vec<Committable> {
    let text = match serde_json::to_string(set) {
        Ok(text) => text,
        Err(error) => panic!("a committable cannot be serialised: {error}"),
    };
    match serde_json::from_str::<Vec<Committable>>(&text) {
        Ok(read) => {
            assert!(read == set, "a committable changes when it is serialised: {text}");
            read
        }
        Err(error) => panic!("a committable cannot be read back from {text}: {error}"),
    }
}

async fn anybody_commits_once<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = "anybody";
    let rows = [batch("t", 0, 20)];
    let sink = world.sink(place).await;
    let own = world.committer(place).await;
    let prepared = world.prepare(&*sink, &[&rows], 1, Order::OneByOne).await;
    let read = through_serde(&prepared.sets[0]);
    // The process that wrote them is gone.
    drop((prepared.writer, sink));
    let fresh = world.committer(place).await;
    commit_first(&*fresh, &read).await;
    world.expect(place, &[&rows], "after a commit by a fresh committer").await;
    for committer in [fresh, own, world.committer(place).await] {
        commit_again(&*committer, &read, Outcome::AlreadyCommitted).await;
    }
    world.expect(place, &[&rows], "after four commits of one set").await;
}

async fn racing_commits_agree<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = "racing";
    let rows = [batch("t", 0, 20)];
    let sink = world.sink(place).await;
    let set = &world.prepare(&*sink, &[&rows], 1, Order::OneByOne).await.sets[0];
    let (one, two) = (world.committer(place).await, world.committer(place).await);
    let ((one, _), (two, _)) = join(commit(&*one, set), commit(&*two, set)).await;
    for outcome in one.into_iter().chain(two) {
        assert!(outcome != Outcome::Missing, "a commit that races another finds nothing");
    }
    world.expect(place, &[&rows], "after two commits at once").await;
}

async fn discard(committer: &dyn Committer, set: &[Committable]) {
    insist("discard", async || committer.discard(set).await).await;
}

async fn discarding_is_idempotent<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = "discarding";
    let rows = [batch("t", 0, 20)];
    let sink = world.sink(place).await;
    let prepared = world.prepare(&*sink, &[&rows], 1, Order::OneByOne).await;
    let set = &prepared.sets[0];
    let committer = world.committer(place).await;
    commit_first(&*committer, set).await;
    for again in ["once", "twice"] {
        discard(&*committer, set).await;
        world.expect(place, &[&rows], &format!("after a commit and a discard, {again}")).await;
    }
    discard(&*committer, &[]).await;
    commit_again(&*world.committer(place).await, set, Outcome::AlreadyCommitted).await;
    world.expect(place, &[&rows], "after a commit that followed the discard").await;
    assert!(
        !staged(&*committer).await.contains(&prepared.incarnation),
        "prepared bytes lie about after everything was discarded"
    );
}

async fn discarded_bytes_are_missing<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = "missing";
    let (gone, kept) = ([batch("t", 0, 20)], [batch("t", 20, 30)]);
    let sink = world.sink(place).await;
    let prepared = world.prepare(&*sink, &[&gone, &kept], 1, Order::OneByOne).await;
    let committer = world.committer(place).await;
    discard(&*committer, &prepared.sets[0]).await;
    discard(&*committer, &prepared.sets[0]).await;
    for _ in 0..2 {
        commit_again(&*committer, &prepared.sets[0], Outcome::Missing).await;
        world.expect(place, &[], "after a commit of discarded bytes").await;
    }
    commit_first(&*committer, &prepared.sets[1]).await;
    world.expect(place, &[&kept], "a set beside a discarded one").await;
}

async fn staged(committer: &dyn Committer) -> BTreeSet<Incarnation> {
    let (found, _) = insist("staged", async || committer.staged(PIPELINE).await).await;
    let set: BTreeSet<_> = found.iter().copied().collect();
    assert!(set.len() == found.len(), "staged names an incarnation twice: {found:?}");
    set
}

async fn collecting_spares_the_others<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = "collecting";
    let (shown, dead, alive) = ([batch("t", 0, 5)], [batch("t", 5, 20)], [batch("t", 20, 30)]);
    let sink = world.sink(place).await;
    let one = world.prepare(&*sink, &[&shown, &dead], 1, Order::OneByOne).await;
    let two = world.prepare(&*sink, &[&alive], 1, Order::OneByOne).await;
    drop((one.writer, two.writer));
    let committer = world.committer(place).await;
    commit_first(&*committer, &one.sets[0]).await;
    let found = staged(&*committer).await;
    for incarnation in [one.incarnation, two.incarnation] {
        assert!(found.contains(&incarnation), "staged does not name {incarnation}");
    }
    let collect = async |pipeline: &str, incarnation: Incarnation| {
        insist("collect", async || committer.collect(pipeline, incarnation).await).await;
    };
    collect("another-pipeline", two.incarnation).await;
    collect(PIPELINE, Incarnation::new()).await;
    collect(PIPELINE, one.incarnation).await;
    collect(PIPELINE, one.incarnation).await;
    let found = staged(&*committer).await;
    assert!(!found.contains(&one.incarnation), "an incarnation is staged after its collection");
    assert!(found.contains(&two.incarnation), "collect took the bytes of another incarnation");
    world.expect(place, &[&shown], "after a collection, what was committed").await;
    commit_again(&*committer, &one.sets[1], Outcome::Missing).await;
    commit_first(&*committer, &two.sets[0]).await;
    world.expect(place, &[&shown, &alive], "after a collection").await;
    let (strange, _) = insist("staged", async || committer.staged("another-pipeline").await).await;
    assert!(strange.is_empty(), "another pipeline owns staged bytes: {strange:?}");
}
