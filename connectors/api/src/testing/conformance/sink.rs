//! The contract of [`Sink`] and [`SinkWriter`](crate::SinkWriter).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::reading::Row;
use super::writing::{Order, World, batch, commit_first, evolved, rows_of};
use super::{PATIENCE, committer, forgive, insist};
use crate::{Guarantee, Incarnation, Sink, SinkContext};

/// Checks a sink and, if it promises exactly once, its committer.
///
/// `make` gives a sink that writes to the named place, which is empty when the
/// name is used for the first time. Each call gives a new sink, as another
/// process would make it; two sinks of the same name write to the same place.
///
/// `visible` reads the coordinates of all rows that a reader of that place
/// sees, from the columns [`TOPIC`](crate::testing::TOPIC),
/// [`PARTITION`](crate::testing::PARTITION) and
/// [`OFFSET`](crate::testing::OFFSET), in any order; what is there twice is
/// twice in the answer.
///
/// # Panics
/// When a part of the contract does not hold.
pub async fn sink(
    make: impl AsyncFn(&str) -> Arc<dyn Sink>,
    visible: impl AsyncFn(&str) -> Vec<Row>,
) {
    sink_within(PATIENCE, make, visible).await;
}

/// [`sink()`], waiting up to `patience` for a call that has nothing to wait
/// for.
///
/// # Panics
/// When a part of the contract does not hold.
pub async fn sink_within(
    patience: Duration,
    make: impl AsyncFn(&str) -> Arc<dyn Sink>,
    visible: impl AsyncFn(&str) -> Vec<Row>,
) {
    let world = World { make, visible, patience };
    if let Guarantee::AtLeastOnce = world.sink("guarantee").await.guarantee() {
        flushed_rows_are_visible(&world).await;
        return;
    }
    for order in [Order::OneByOne, Order::LastFirst, Order::Together] {
        sets_hold_what_stood_before_their_barrier(&world, order).await;
    }
    nothing_to_prepare(&world).await;
    schemas_change(&world).await;
    discarded_rows_are_gone(&world).await;
    incarnations_do_not_collide(&world).await;
    committer::check(&world).await;
}

async fn sets_hold_what_stood_before_their_barrier<M, V>(world: &World<M, V>, order: Order)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = &format!("sets-{order:?}").to_lowercase();
    let sink = world.sink(place).await;
    let one = [batch("t", 0, 10), batch("t", 10, 15)];
    let two = [batch("t", 15, 40)];
    let three = [batch("t", 40, 41), batch("u", 0, 30)];
    let sets: [&[_]; 3] = [&one, &two, &three];
    let prepared = world.prepare(&*sink, &sets, 5, order).await;
    world.expect(place, &[], "after prepare, before any commit").await;
    for (set, committables) in sets.iter().zip(&prepared.sets) {
        let rows: u64 = committables.iter().map(|committable| committable.rows).sum();
        let expected = rows_of(&[set]).len() as u64;
        assert!(
            rows == expected,
            "a set holds {rows} rows, {expected} were written before its barrier ({order:?})"
        );
    }
    // Committing is not bound to the order of the sets.
    let committer = world.committer(place).await;
    for (set, expect) in [(1, &sets[1..2]), (2, &sets[1..]), (0, &sets[..])] {
        commit_first(&*committer, &prepared.sets[set]).await;
        world.expect(place, expect, "after the commit of a set").await;
    }
    prepared.writer.discard().await;
    world.expect(place, &sets, "after the writer was discarded").await;
}

async fn nothing_to_prepare<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = "nothing";
    let empty = [batch("t", 0, 0)];
    let some = [batch("t", 0, 3)];
    let sink = world.sink(place).await;
    let prepared = world.prepare(&*sink, &[&[], &some, &empty, &[]], 1, Order::OneByOne).await;
    for set in [0, 2, 3] {
        let committables = &prepared.sets[set];
        assert!(committables.is_empty(), "a set without rows prepares {committables:?}");
    }
    commit_first(&*world.committer(place).await, &prepared.sets[1]).await;
    world.expect(place, &[&some], "after sets without rows").await;
}

async fn schemas_change<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = "schemas";
    let mixed = [batch("t", 0, 5), evolved("t", 5, 9), evolved("u", 0, 4), batch("t", 9, 12)];
    let later = [evolved("t", 12, 20)];
    let sink = world.sink(place).await;
    let prepared = world.prepare(&*sink, &[&mixed, &later], 1, Order::OneByOne).await;
    let committer = world.committer(place).await;
    for set in &prepared.sets {
        commit_first(&*committer, set).await;
    }
    world.expect(place, &[&mixed, &later], "with two schemas in one set").await;
}

async fn discarded_rows_are_gone<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = "discarded";
    let kept = [batch("t", 0, 10)];
    let sink = world.sink(place).await;
    let mut prepared = world.prepare(&*sink, &[&kept], 1, Order::OneByOne).await;
    // The write may fail, which makes no difference to what is thrown away.
    let _ = world.write(&mut *prepared.writer, &batch("t", 10, 20)).await;
    prepared.writer.discard().await;
    world.expect(place, &[], "after discard, before any commit").await;
    commit_first(&*world.committer(place).await, &prepared.sets[0]).await;
    world.expect(place, &[&kept], "a set prepared before the writer was discarded").await;

    // A worker that dies drops its writer without a word.
    let next = [batch("t", 20, 30)];
    let prepared = world.prepare(&*sink, &[&next], 1, Order::OneByOne).await;
    drop(prepared.writer);
    commit_first(&*world.committer(place).await, &prepared.sets[0]).await;
    world.expect(place, &[&kept, &next], "a set prepared before the writer was dropped").await;
}

async fn incarnations_do_not_collide<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = "incarnations";
    let (one, two, three) = ([batch("t", 0, 10)], [batch("t", 10, 20)], [batch("t", 20, 30)]);
    // The same checkpoint numbers, from two sinks and from two lives of one.
    let first = world.prepare(&*world.sink(place).await, &[&one], 1, Order::OneByOne).await;
    let sink = world.sink(place).await;
    let second = world.prepare(&*sink, &[&two], 1, Order::OneByOne).await;
    let third = world.prepare(&*sink, &[&three], 1, Order::OneByOne).await;
    let mut names = BTreeSet::new();
    let sets = [&first.sets[0], &second.sets[0], &third.sets[0]];
    for committable in sets.iter().flat_map(|set| set.iter()) {
        assert!(names.insert(&committable.name), "the name {} is used twice", committable.name);
    }
    let committer = world.committer(place).await;
    for set in sets {
        commit_first(&*committer, set).await;
    }
    world.expect(place, &[&one, &two, &three], "after commits of three incarnations").await;
}

/// At least once: what `prepare` acknowledged is visible, whatever else is.
async fn flushed_rows_are_visible<M, V>(world: &World<M, V>)
where
    M: AsyncFn(&str) -> Arc<dyn Sink>,
    V: AsyncFn(&str) -> Vec<Row>,
{
    let place = "flushed";
    let (one, two) = ([batch("t", 0, 10)], [batch("t", 10, 20), batch("u", 0, 5)]);
    let sink = world.sink(place).await;
    let prepared = world.prepare(&*sink, &[&one, &two], 1, Order::OneByOne).await;
    for set in &prepared.sets {
        assert!(set.is_empty(), "an at-least-once sink has nothing to commit, but {set:?}");
    }
    let rows = (world.visible)(place).await;
    for row in rows_of(&[&one, &two]) {
        assert!(rows.contains(&row), "row {row:?} was acknowledged and is not visible");
    }
    prepared.writer.discard().await;
    // A further life of the same worker finds the sink usable.
    let mut errors = 0;
    loop {
        let ctx = SinkContext::new("conformance", "sink", Incarnation::new(), 8 << 20);
        let (mut writer, _) = insist("open", async || sink.open(ctx.clone()).await).await;
        match world.write(&mut *writer, &batch("t", 20, 21)).await {
            Ok(()) => return writer.discard().await,
            Err(error) => forgive(&mut errors, "write", error).await,
        }
    }
}
