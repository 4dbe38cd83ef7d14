//! The exactly-once protocol under every fault, in virtual time, from one seed.
//!
//! # What is real
//! Pipelines, workers, coordinators, claims, the swap loop, the publisher, the
//! collector, the record and its codec, the file sink with its staging and its
//! committer: the code that the binary runs, unchanged. Three to five
//! processes, each a whole [`Pipeline`](tidelock::Pipeline) with one or two
//! workers, are one consumer group over one topic and write to one store.
//!
//! # What is simulated
//! | port | by |
//! |---|---|
//! | time | tokio's paused clock, on one thread |
//! | the object store | a strict map with conditional writes (`objects`), behind requests that are lost, applied and reported failed, applied late, slow, or the last thing that their sender did (`store`) |
//! | the log and the group | rows and holes (`log`); cooperative rebalances, partitions given away over their owner's head, members that are thrown out, zombies that read and commit on until they find out (`group`, `source`) |
//! | a crash | the process is dropped, and whatever is left of it reaches the world no more (`world`) |
//! | SIGSTOP | every call of the process waits until it goes on |
//! | chance | incarnations, jitter, fates and blows follow from the seed |
//!
//! # What is checked
//! Every landed version of the record and every request to the store, as it is
//! applied, against the invariants of the protocol ([`Invariant`]); then, when
//! faults have stopped and everything has come to rest within a bounded time
//! (L1), a reader lists, reads and counts.
//!
//! # How to replay
//! A failure prints its seed. `simulate --seed N` prints every step of that
//! run; the same seed gives the same steps, on any machine.

mod dice;
mod group;
mod invariants;
mod judge;
mod log;
mod objects;
mod plan;
mod process;
mod run;
mod source;
mod stats;
mod store;
mod trace;
mod watcher;
mod world;

pub use invariants::Invariant;
pub use plan::{Plan, Weather};
pub use run::{Outcome, run};
pub use stats::Stats;
pub use store::Fate;
pub use tidelock::checkpoint::mutation::Mutation;
pub use watcher::Violation;
