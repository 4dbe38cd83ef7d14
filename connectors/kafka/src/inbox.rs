//! What has left the channel and was not asked for yet: topics take turns.
//!
//! Behind a slow sink the channel is full of a busy topic's batches. A quiet
//! topic's batch does not wait for all of them: each topic that has something
//! is served before any is served again.
//!
//! # Contract
//! * What concerns one partition stays in order: it is of one topic, and within
//!   a topic nothing overtakes.
//! * Nothing overtakes, or is overtaken by, an assignment, a revocation, an
//!   error or the like.
//! * A topic's share is not decided here, but where messages are taken; this
//!   moves what was taken by less than the channel holds.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::outbox::Item;

/// Items that wait, in the order of their sending.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    items: VecDeque<Item>,
    /// Topics in the order in which they were served, the latest one last.
    served: Vec<Arc<str>>,
}

impl Inbox {
    pub(crate) fn push(&mut self, item: Item) {
        self.items.push_back(item);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The next item to deliver.
    pub(crate) fn pop(&mut self) -> Option<Item> {
        let index = self.choose();
        let item = self.items.remove(index)?;
        if let Some(topic) = item.topic() {
            let topic = Arc::clone(topic);
            self.served.retain(|served| *served != topic);
            self.served.push(topic);
        }
        Some(item)
    }

    /// The first item of the topic that was served longest ago, or never; the
    /// first one of all where that is no topic's.
    fn choose(&self) -> usize {
        let mut best = (usize::MAX, 0);
        let mut seen: Vec<&Arc<str>> = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            let Some(topic) = item.topic() else { break };
            if seen.contains(&topic) {
                continue;
            }
            seen.push(topic);
            let turn = self.served.iter().position(|served| served == topic);
            let turn = turn.map_or(0, |turn| turn + 1);
            if turn < best.0 {
                best = (turn, index);
            }
            if turn == 0 {
                // None can be before one that was never served.
                break;
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use tidelock_connector::{Coverage, Event, TopicPartition};

    use super::*;

    fn covered(topic: &str, from: i64) -> Item {
        let partition = TopicPartition::new(topic, 0);
        Item::for_tests(Ok(Event::Covered(Coverage::of(partition, from, from + 1))))
    }

    fn names(inbox: &mut Inbox) -> String {
        let name = |item: Item| match item.event {
            Ok(Event::Covered(coverage)) => {
                let (partition, set) = coverage.iter().next().expect("one");
                format!("{}{}", partition.topic, set.first().expect("one"))
            }
            _ => "|".to_owned(),
        };
        std::iter::from_fn(|| inbox.pop()).map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn topics_take_turns_and_nothing_passes_a_fence() {
        let mut inbox = Inbox::default();
        for number in 0..4 {
            inbox.push(covered("a", number));
        }
        inbox.push(covered("b", 0));
        inbox.push(Item::for_tests(Ok(Event::Idle)));
        inbox.push(covered("c", 0));
        inbox.push(covered("a", 4));
        inbox.push(covered("b", 1));
        assert_eq!(names(&mut inbox), "a0 b0 a1 a2 a3 | c0 b1 a4");
        inbox.push(covered("a", 5));
        inbox.push(covered("a", 6));
        inbox.push(covered("c", 1));
        assert_eq!(names(&mut inbox), "c1 a5 a6");
    }
}
