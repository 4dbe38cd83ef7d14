//! Bugs to plant: each takes one safeguard of the protocol away, so that the
//! simulator can show that it would be missed.
//!
//! Without the feature `testing` the switches are constants, and the compiler
//! removes what stands behind them.

/// A safeguard that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mutation {
    /// After an error the record is taken for ours if it has changed, without
    /// a look at the swap number.
    NoSwapNumber,
    /// Cursors move whatever the partition's epoch is.
    NoEpochCheck,
    /// Nobody holds the beginning of a coverage against the cursor.
    NoCursorCheck,
    /// Checkpoint *k+1* is sent while the outcome of *k* is unknown.
    NextBeforeKnown,
    /// A life that ends deletes what it has staged although the outcome of the
    /// swap that lists it is unknown.
    DiscardAfterAmbiguous,
    /// Reading starts while the claim is under way.
    ReadBeforeClaim,
    /// A set leaves the record as soon as it is in there, published or not.
    ClearBeforePublished,
    /// The next life of a worker takes the names of the one before.
    KeyUsedTwice,
    /// Where the group has a committed offset, cursors go there.
    CommittedOffsetTrusted,
    /// The record is written without a condition.
    BlindOverwrite,
    /// Orphans are judged by a record that was read before they were listed.
    CollectReadsFirst,
    /// A worker that was forgotten claims again under the same name.
    ForgottenClaims,
    /// Files are published while the swap that lists them is under way.
    PublishBeforeSwap,
    /// Offsets are committed to the group while the swap is under way.
    CommitBeforeSwap,
    /// A claim whose answer was lost is taken for ours once it has landed,
    /// whoever has claimed since.
    StolenClaim,
    /// Nobody publishes what a dead worker left pending.
    NoRecovery,
}

impl Mutation {
    /// Every one of them.
    pub const ALL: [Self; 16] = [
        Self::NoSwapNumber,
        Self::NoEpochCheck,
        Self::NoCursorCheck,
        Self::NextBeforeKnown,
        Self::DiscardAfterAmbiguous,
        Self::ReadBeforeClaim,
        Self::ClearBeforePublished,
        Self::KeyUsedTwice,
        Self::CommittedOffsetTrusted,
        Self::BlindOverwrite,
        Self::CollectReadsFirst,
        Self::ForgottenClaims,
        Self::PublishBeforeSwap,
        Self::CommitBeforeSwap,
        Self::StolenClaim,
        Self::NoRecovery,
    ];
}

#[cfg(feature = "testing")]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static PLANTED: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Plants a bug, or none, in everything that this thread runs.
    pub fn plant(mutation: Option<Mutation>) {
        PLANTED.set(mutation);
    }

    /// Whether a bug is planted.
    pub fn planted(mutation: Mutation) -> bool {
        PLANTED.get() == Some(mutation)
    }
}

#[cfg(feature = "testing")]
pub use switch::{plant, planted};

/// Whether a bug is planted: never.
#[cfg(not(feature = "testing"))]
pub const fn planted(_mutation: Mutation) -> bool {
    false
}
