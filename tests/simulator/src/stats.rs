//! What happened, counted: a run in which nothing happens proves nothing.

use std::ops::AddAssign;

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident: $shown:literal,)*) => {
        /// How often what happened.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Stats {
            /// The figures with their names.
            pub fn table(&self) -> Vec<(&'static str, u64)> {
                vec![$(($shown, self.$name),)*]
            }
        }

        impl AddAssign<&Stats> for Stats {
            fn add_assign(&mut self, other: &Stats) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

stats! {
    /// Steps of the trace.
    steps: "steps",
    /// Calls to the store.
    calls: "store calls",
    /// Requests that never arrived.
    lost: "requests lost",
    /// Requests that were applied and reported as failed.
    ambiguous: "applied, reported failed",
    /// Requests that were applied long after they were reported as failed.
    late: "applied late",
    /// Versions of the record that landed.
    swaps: "swaps landed",
    /// Conditional writes whose condition did not hold.
    fenced: "swaps fenced",
    /// Swaps whose answer was an error although they landed.
    ambiguous_swaps: "swaps landed, reported failed",
    /// Claims among the landed versions.
    claims: "partitions claimed",
    /// Commit sets that became pending.
    sets: "commit sets",
    /// Files that became visible.
    files: "files published",
    /// Copies onto a file that was there already.
    republished: "files published again",
    /// Staged objects that were deleted.
    deleted: "staged objects deleted",
    /// Staged objects that were uploaded in parts.
    uploads: "uploads in parts",
    /// Uploads that can never be completed, for their sender died in the
    /// middle of it.
    wedged: "uploads wedged",
    /// Processes that were killed.
    kills: "kills",
    /// Kills in the middle of a call to the store.
    kills_in_call: "kills inside a store call",
    /// Processes that were stopped and went on.
    stops: "stops (SIGSTOP)",
    /// Stops that were longer than the session time-out.
    zombies: "zombies",
    /// Processes that were asked to stop, with a last checkpoint.
    graceful: "graceful stops",
    /// Times that the group shared partitions out anew.
    rebalances: "rebalances",
    /// Partitions taken from a live owner without asking it.
    stolen: "partitions stolen",
    /// Revocations that the owner did not finish in time.
    overdue: "revocations overdue",
    /// Rows delivered again after a seek.
    stale: "stale deliveries",
    /// Rows delivered.
    rows: "rows read",
    /// Rows of the log that are to be visible.
    expected: "rows in the log",
    /// Offset commits.
    commits: "offset commits",
    /// Offset commits that failed.
    commit_failures: "offset commits failed",
}
