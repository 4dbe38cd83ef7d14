//! Whose turn it is: deficit round robin in bytes, with weights.
//!
//! Plain data without a queue, a clock or I/O. A *lane* is a partition; a
//! *round* gives every lane one turn, in an order that rotates.
//!
//! # What it promises
//! * A lane with data is served in every round: no lane waits for more than
//!   one turn of every other.
//! * In the long run lanes that always have data get bytes in proportion to
//!   their weights, whatever the sizes of their messages, as long as
//!   `max_records` does not cut their turns short.
//! * A turn takes at most `max_records` × weight messages.
//!
//! Sizes are known only after a message was taken, so a turn may overdraw: the
//! deficit goes below zero and the next grant is smaller (surplus round
//! robin). How many messages to take at once is judged by the largest that the
//! lane had lately, so the overdraft is less than one of them as long as sizes
//! do not jump. The quantum grows to the largest message seen, and a debt that
//! would still swallow a whole grant is forgiven: the first promise comes
//! before the second.

/// Bytes per round and unit of weight that a new scheduler grants.
const QUANTUM_BYTES: u64 = 64 * 1024;

/// What a message is taken for before the lane's first one was seen.
const FIRST_MESSAGE_BYTES: u64 = 4 * 1024;

/// Serves the lanes in turns.
#[derive(Debug)]
pub(crate) struct Fair {
    lanes: Vec<Lane>,
    /// The lane that the next turn belongs to.
    next: usize,
    quantum: u64,
    max_records: usize,
}

#[derive(Debug, Clone)]
struct Lane {
    weight: u32,
    deficit: i64,
    /// The largest message lately, in bytes; it decays.
    largest: u64,
}

/// What a lane may take in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Whose turn it is.
    pub(crate) lane: usize,
    records: usize,
}

/// What was taken in one go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Messages.
    pub(crate) records: usize,
    /// Bytes of them.
    pub(crate) bytes: usize,
    /// The largest message.
    pub(crate) largest: usize,
    /// Nothing is left in the lane.
    pub(crate) drained: bool,
}

impl Fair {
    /// A scheduler without lanes.
    pub(crate) fn new(max_records: usize) -> Self {
        Self { lanes: Vec::new(), next: 0, quantum: QUANTUM_BYTES, max_records: max_records.max(1) }
    }

    /// Adds a lane behind all others.
    pub(crate) fn add(&mut self, weight: u32) {
        self.lanes.push(Lane { weight: weight.max(1), deficit: 0, largest: FIRST_MESSAGE_BYTES });
    }

    /// Removes a lane; those behind it move up by one.
    pub(crate) fn remove(&mut self, lane: usize) {
        self.lanes.remove(lane);
        if lane < self.next {
            self.next -= 1;
        }
        if self.next >= self.lanes.len() {
            self.next = 0;
        }
    }

    /// How many lanes.
    pub(crate) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Begins the next turn. A lane that turns out to have nothing is told so
    /// by [`took`](Self::took) with `drained`.
    pub(crate) fn begin(&mut self) -> Option<Turn> {
        let index = self.next;
        let grant = self.grant(self.lanes.get(index)?);
        self.next = (index + 1) % self.lanes.len();
        let lane = &mut self.lanes[index];
        // What is left over of a turn that `max_records` ended is not saved up
        // without bound: a burst later would starve the others.
        lane.deficit = (lane.deficit + grant).clamp(1, grant);
        let records = self.max_records.saturating_mul(lane.weight as usize);
        Some(Turn { lane: index, records })
    }

    /// How many messages to take next in this turn; 0 ends it.
    pub(crate) fn want(&self, turn: &Turn) -> usize {
        let lane = &self.lanes[turn.lane];
        let left = u64::try_from(lane.deficit).unwrap_or(0);
        let fit = left.div_ceil(lane.largest.max(1));
        usize::try_from(fit).unwrap_or(usize::MAX).min(turn.records)
    }

    /// Accounts for what was taken.
    pub(crate) fn took(&mut self, turn: &mut Turn, taken: Taken) {
        let lane = &mut self.lanes[turn.lane];
        let bytes = i64::try_from(taken.bytes).unwrap_or(i64::MAX / 2);
        lane.deficit = lane.deficit.saturating_sub(bytes);
        turn.records = turn.records.saturating_sub(taken.records);
        if taken.records > 0 {
            lane.largest = (lane.largest - lane.largest / 8).max(taken.largest as u64);
            self.quantum = self.quantum.max(taken.largest as u64);
        }
        if taken.drained {
            // Idle time earns nothing, but a debt stays.
            lane.deficit = lane.deficit.min(0);
            turn.records = 0;
        }
    }

    fn grant(&self, lane: &Lane) -> i64 {
        let grant = self.quantum.saturating_mul(u64::from(lane.weight));
        i64::try_from(grant).unwrap_or(i64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Queues of message sizes, and what was served of each.
    struct Bench {
        fair: Fair,
        queues: Vec<VecDeque<usize>>,
        bytes: Vec<u64>,
        records: Vec<u64>,
    }

    impl Bench {
        fn new(weights: &[u32], max_records: usize) -> Self {
            let mut fair = Fair::new(max_records);
            weights.iter().for_each(|weight| fair.add(*weight));
            let lanes = weights.len();
            Self {
                fair,
                queues: vec![VecDeque::new(); lanes],
                bytes: vec![0; lanes],
                records: vec![0; lanes],
            }
        }

        /// One turn; returns the lane and how many records it got.
        fn turn(&mut self) -> (usize, usize) {
            let mut turn = self.fair.begin().expect("there are lanes");
            let (lane, mut served) = (turn.lane, 0);
            loop {
                let want = self.fair.want(&turn);
                if want == 0 {
                    return (lane, served);
                }
                let queue = &mut self.queues[lane];
                let sizes: Vec<usize> = queue.drain(..want.min(queue.len())).collect();
                let taken = Taken {
                    records: sizes.len(),
                    bytes: sizes.iter().sum(),
                    largest: sizes.iter().copied().max().unwrap_or(0),
                    drained: sizes.len() < want,
                };
                served += taken.records;
                self.records[lane] += taken.records as u64;
                self.bytes[lane] += taken.bytes as u64;
                self.fair.took(&mut turn, taken);
            }
        }

        fn round(&mut self) {
            for _ in 0..self.fair.len() {
                self.turn();
            }
        }
    }

    #[test]
    fn a_busy_lane_does_not_hold_up_a_quiet_one() {
        let mut bench = Bench::new(&[1, 1], 500);
        bench.queues[0].extend(std::iter::repeat_n(235, 1_000_000));
        bench.round();
        bench.queues[1].push_back(235);
        let before = bench.records[0];
        bench.round();
        assert_eq!(bench.records[1], 1);
        assert!(bench.records[0] - before <= 500, "one turn at most in between");
    }

    #[test]
    fn max_records_bounds_a_turn() {
        let mut bench = Bench::new(&[1, 3], 10);
        bench.queues.iter_mut().for_each(|queue| queue.extend(std::iter::repeat_n(1, 1000)));
        assert_eq!(bench.turn(), (0, 10));
        assert_eq!(bench.turn(), (1, 30));
    }

    #[test]
    fn a_lane_that_goes_keeps_the_order_of_the_others() {
        let mut fair = Fair::new(1);
        (0..4).for_each(|_| fair.add(1));
        assert_eq!(fair.begin().map(|turn| turn.lane), Some(0));
        assert_eq!(fair.begin().map(|turn| turn.lane), Some(1));
        fair.remove(0);
        assert_eq!(fair.begin().map(|turn| turn.lane), Some(1), "the one that was lane 2");
        fair.remove(2);
        assert_eq!(fair.begin().map(|turn| turn.lane), Some(0));
        fair.remove(1);
        fair.remove(0);
        assert_eq!(fair.begin(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever arrives, and however sizes jump, a lane with data is
        /// served within one round.
        #[test]
        fn no_lane_with_data_is_passed_over(
            weights in prop::collection::vec(1_u32..5, 1..8),
            arrivals in prop::collection::vec((0_usize..8, 1_usize..2_000_000, 1_usize..40), 1..60),
            max_records in 1_usize..600,
        ) {
            let mut bench = Bench::new(&weights, max_records);
            for (lane, size, count) in arrivals {
                let lane = lane % weights.len();
                bench.queues[lane].extend(std::iter::repeat_n(size, count));
                for _ in 0..weights.len() {
                    let had: Vec<bool> = bench.queues.iter().map(|q| !q.is_empty()).collect();
                    let (lane, served) = bench.turn();
                    prop_assert_eq!(served > 0, had[lane]);
                    prop_assert!(served <= max_records * weights[lane] as usize);
                }
            }
        }

        /// Whatever arrives, queues that are filled up to a bound and a channel
        /// that is looked at before each turn hold no more than their bounds,
        /// and one grant and one queue beyond them: that is what a turn takes
        /// at most, however the sizes jump.
        #[test]
        fn what_is_held_never_exceeds_the_bound(
            weights in prop::collection::vec(1_u32..5, 1..8),
            arrivals in prop::collection::vec((1_usize..200_000, 1_usize..60, 0_usize..9), 20..200),
            max_records in 1_usize..600,
        ) {
            const QUEUE: usize = 256 * 1024;
            const CHANNEL: usize = 512 * 1024;
            let largest = arrivals.iter().map(|(size, ..)| *size).max().unwrap_or(0);
            let mut bench = Bench::new(&weights, max_records);
            let (mut channel, mut waiting) = (VecDeque::new(), vec![0; weights.len()]);
            let mut quantum = QUANTUM_BYTES as usize;
            let mut served = vec![0; weights.len()];
            for (number, (size, count, drained)) in arrivals.into_iter().enumerate() {
                // A fetch goes where there is room, and no further.
                let lane = number % weights.len();
                for _ in 0..count {
                    if waiting[lane] < QUEUE {
                        bench.queues[lane].push_back(size);
                        waiting[lane] += size;
                    }
                }
                for _ in 0..weights.len() {
                    if channel.iter().sum::<usize>() >= CHANNEL {
                        break;
                    }
                    let (lane, _) = bench.turn();
                    let taken = bench.bytes[lane] as usize - served[lane];
                    served[lane] += taken;
                    waiting[lane] -= taken;
                    channel.push_back(taken);
                }
                quantum = quantum.max(size);
                let weight = *weights.iter().max().unwrap_or(&1) as usize;
                let held: usize = channel.iter().sum();
                prop_assert!(waiting.iter().all(|bytes| *bytes <= QUEUE + largest));
                prop_assert!(held <= CHANNEL + quantum * weight + QUEUE + largest, "{held}");
                channel.drain(..drained.min(channel.len()));
            }
        }

        /// Lanes that always have data share the bytes by weight.
        #[test]
        fn shares_converge_to_the_weights(
            lanes in prop::collection::vec((1_u32..5, 100_usize..20_000), 2..6),
        ) {
            let weights: Vec<u32> = lanes.iter().map(|(weight, _)| *weight).collect();
            let mut bench = Bench::new(&weights, usize::MAX);
            for _ in 0..300 {
                for (lane, (weight, size)) in lanes.iter().enumerate() {
                    let enough = 3 * QUANTUM_BYTES as usize * *weight as usize / size + 3;
                    let queue = &mut bench.queues[lane];
                    // Sizes that vary by a factor of three within one lane.
                    while queue.len() < enough {
                        queue.push_back(size / 2 + queue.len() % 3 * size / 2);
                    }
                }
                bench.round();
            }
            let total: u64 = bench.bytes.iter().sum();
            let all_weights: u32 = weights.iter().sum();
            for (bytes, weight) in bench.bytes.iter().zip(&weights) {
                let share = *bytes as f64 / total as f64;
                let due = f64::from(*weight) / f64::from(all_weights);
                prop_assert!((share / due - 1.0).abs() < 0.05, "share {share}, due {due}");
            }
        }
    }
}
