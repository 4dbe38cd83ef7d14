//! Where a partition stands: what was delivered of it, and where it ends.
//!
//! Offsets that arrive are not consecutive: transaction markers, aborted
//! transactions, compaction and retention leave holes. When offset *o* arrives
//! at position *p*, everything in *[p, o]* is accounted for.

/// The position of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Track {
    /// The next offset to deliver.
    position: i64,
    /// Up to where it was reported as covered.
    reported: i64,
    /// Where to stop.
    end: Option<i64>,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Deliver it.
    Take,
    /// Drop it: it is below the position.
    Below,
    /// Drop it: the partition has reached its end.
    Beyond,
}

impl Track {
    /// Begins at `offset`, and ends at `end` if there is one.
    pub(crate) fn new(offset: i64, end: Option<i64>) -> Self {
        Self { position: offset, reported: offset, end }
    }

    /// The next offset to deliver.
    pub(crate) fn position(&self) -> i64 {
        self.position
    }

    /// Whether nothing more is to be read.
    pub(crate) fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }

    /// A message has arrived. Covers the hole before it, not yet itself.
    pub(crate) fn arrive(&mut self, offset: i64) -> Step {
        if offset < self.position {
            return Step::Below;
        }
        self.reach(offset);
        if self.is_done() { Step::Beyond } else { Step::Take }
    }

    /// Everything below `offset` is accounted for: the message before it was
    /// delivered, or there is nothing more below it.
    pub(crate) fn reach(&mut self, offset: i64) {
        let offset = self.end.map_or(offset, |end| offset.min(end));
        self.position = self.position.max(offset);
    }

    /// What was covered since the last report.
    pub(crate) fn report(&mut self) -> Option<(i64, i64)> {
        let from = std::mem::replace(&mut self.reported, self.position);
        (from < self.position).then_some((from, self.position))
    }

    /// What was covered since the last report was thrown away.
    pub(crate) fn go_back(&mut self) {
        self.position = self.reported;
    }

    /// Whether something was covered since the last report.
    pub(crate) fn has_news(&self) -> bool {
        self.reported < self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(track: &mut Track, offset: i64) -> Step {
        let step = track.arrive(offset);
        if step == Step::Take {
            track.reach(offset + 1);
        }
        step
    }

    #[test]
    fn holes_are_covered_by_what_comes_after_them() {
        let mut track = Track::new(5, None);
        assert_eq!(deliver(&mut track, 8), Step::Take);
        assert_eq!(track.report(), Some((5, 9)));
        assert_eq!(track.report(), None);
        track.reach(12);
        assert_eq!(track.report(), Some((9, 12)));
    }

    #[test]
    fn what_was_thrown_away_is_not_covered() {
        let mut track = Track::new(5, None);
        assert_eq!(deliver(&mut track, 5), Step::Take);
        assert_eq!(track.report(), Some((5, 6)));
        assert_eq!(deliver(&mut track, 6), Step::Take);
        track.go_back();
        assert_eq!((track.report(), track.position()), (None, 6));
    }

    #[test]
    fn what_lies_below_the_position_is_dropped() {
        let mut track = Track::new(5, None);
        assert_eq!(deliver(&mut track, 4), Step::Below);
        assert!(!track.has_news());
        track.reach(3);
        assert_eq!(track.position(), 5, "an early end mark changes nothing");
    }

    #[test]
    fn a_refused_message_is_not_covered_but_the_hole_before_it_is() {
        let mut track = Track::new(0, None);
        assert_eq!(track.arrive(3), Step::Take);
        assert_eq!(track.report(), Some((0, 3)));
    }

    #[test]
    fn coverage_ends_exactly_at_the_end() {
        // The last message is there.
        let mut track = Track::new(0, Some(2));
        assert_eq!(deliver(&mut track, 0), Step::Take);
        assert!(!track.is_done());
        assert_eq!(deliver(&mut track, 1), Step::Take);
        assert!(track.is_done());
        assert_eq!(deliver(&mut track, 2), Step::Beyond);
        assert_eq!(track.report(), Some((0, 2)));

        // The end lies in a hole; a message behind it shows that.
        let mut track = Track::new(0, Some(5));
        assert_eq!(deliver(&mut track, 1), Step::Take);
        assert_eq!(deliver(&mut track, 9), Step::Beyond);
        assert!(track.is_done());
        assert_eq!(track.report(), Some((0, 5)));

        // So does the end of the partition.
        let mut track = Track::new(0, Some(5));
        track.reach(7);
        assert!(track.is_done());
        assert_eq!(track.report(), Some((0, 5)));

        // Nothing to read at all.
        assert!(Track::new(5, Some(5)).is_done());
    }
}
