//! What a double of a source waits for between an assignment and its answer.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use tokio::sync::oneshot;

use crate::{Start, TopicPartition};

/// Assignments whose answers were not acted upon yet.
#[derive(Debug, Default)]
pub struct Asked(Vec<Question>);

#[derive(Debug)]
struct Question {
    partitions: BTreeSet<TopicPartition>,
    reply: oneshot::Receiver<Vec<Start>>,
    /// Empty when the assignment was dropped without an answer.
    answer: Option<Vec<Start>>,
}

impl Question {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.answer.is_none() {
            let answer = std::task::ready!(self.reply.poll_unpin(cx));
            self.answer = Some(answer.unwrap_or_default());
        }
        Poll::Ready(())
    }
}

impl Asked {
    /// Begins to wait for an answer; what is returned belongs into the
    /// [`Assignment`](crate::Assignment).
    pub fn add(
        &mut self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> oneshot::Sender<Vec<Start>> {
        let partitions = partitions.into_iter().collect();
        let (sender, reply) = oneshot::channel();
        self.0.push(Question { partitions, reply, answer: None });
        sender
    }

    /// Whether an answer about the partition is awaited.
    pub fn awaits(&self, partition: &TopicPartition) -> bool {
        self.0.iter().any(|question| question.partitions.contains(partition))
    }

    /// The partition is gone: no answer starts it any more.
    pub fn forget(&mut self, partition: &TopicPartition) {
        self.0.retain_mut(|question| {
            !question.partitions.remove(partition) || !question.partitions.is_empty()
        });
    }

    /// Returns when some assignment was answered or dropped. Cancel safe.
    pub async fn answered(&mut self) {
        poll_fn(|cx| {
            let mut any = Poll::Pending;
            for question in &mut self.0 {
                if question.poll(cx).is_ready() {
                    any = Poll::Ready(());
                }
            }
            any
        })
        .await;
    }

    /// Takes the answers that are there: where to start reading, in the order
    /// of the assignments.
    pub fn take(&mut self) -> Vec<Start> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut starts = Vec::new();
        self.0.retain_mut(|question| {
            if question.poll(&mut cx).is_pending() {
                return true;
            }
            let mut answer = question.answer.take().unwrap_or_default();
            answer.retain(|start| question.partitions.contains(&start.partition));
            starts.append(&mut answer);
            false
        });
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was taken away and given again starts with the newer answer alone.
    #[tokio::test]
    async fn an_answer_starts_only_what_was_not_taken_away_meanwhile() {
        let tp = |number| TopicPartition::new("t", number);
        let start = |number| Start { partition: tp(number), offset: 5, end: None };
        let mut asked = Asked::default();
        let first = asked.add([tp(0), tp(1)]);
        asked.forget(&tp(0));
        let second = asked.add([tp(0)]);
        first.send(vec![start(0), start(1)]).expect("awaited");
        asked.answered().await;
        assert_eq!(asked.take(), [start(1)]);
        assert!(asked.awaits(&tp(0)) && !asked.awaits(&tp(1)));
        drop(second);
        asked.answered().await;
        assert_eq!(asked.take(), []);
        assert!(!asked.awaits(&tp(0)));
    }
}
