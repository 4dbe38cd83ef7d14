//! Sources that break the contract in one way each.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::oneshot;

use crate::testing::MemorySource;
use crate::{
    Assignment, CommittedOffsets, Coverage, Event, OffsetCommitter, OpenSource, Result, Source,
    SourceContext, SourceReader, Start,
};

/// What is wrong with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// Takes an event, then awaits something: a dropped future loses it.
    LosesEventOnCancel,
    /// Delivers what it had read before the seek.
    SeekKeepsBuffer,
    /// Reads on in the partitions that a seek does not name.
    SeekKeepsTheRest,
    /// Starts to read without waiting for the answer.
    ReadsBeforeTheAnswer,
    /// Reads although no answer will come.
    ReadsWithoutAnAnswer,
    /// Covers the rows, not the holes between them.
    GapsOverHoles,
    /// Reads beyond the end that it was given.
    IgnoresEnds,
    /// Delivers a batch after the revocation of its partitions.
    DeliversAfterRevoking,
    /// Commits one offset more than it was told.
    CommitsOneMore,
    /// Covers the offset of a row that it does not deliver.
    SwallowsRows,
}

impl Bug {
    /// Every bug, and what the suite may say of it.
    pub(super) const ALL: [(Self, &'static [&'static str]); 10] = [
        (Self::LosesEventOnCancel, &["not contiguous", "no progress", "although next was"]),
        (Self::SeekKeepsBuffer, &["not contiguous", "nobody asked for it"]),
        (Self::SeekKeepsTheRest, &["nobody asked for it"]),
        (Self::ReadsBeforeTheAnswer, &["nobody asked for it"]),
        (Self::ReadsWithoutAnAnswer, &["nobody asked for it"]),
        (Self::GapsOverHoles, &["not contiguous", "coverage has gaps"]),
        (Self::IgnoresEnds, &["goes beyond"]),
        (Self::DeliversAfterRevoking, &["nobody asked for it"]),
        (Self::CommitsOneMore, &["what is committed"]),
        (Self::SwallowsRows, &["rows between start and end"]),
    ];
}

pub(super) struct BrokenSource {
    pub(super) inner: MemorySource,
    pub(super) bug: Bug,
}

#[async_trait]
impl Source for BrokenSource {
    async fn open(&self, ctx: SourceContext) -> Result<OpenSource> {
        let OpenSource { reader, committer } = self.inner.open(ctx).await?;
        let reader = BrokenReader {
            inner: reader,
            bug: self.bug,
            held: VecDeque::new(),
            owned: Vec::new(),
            asked: Vec::new(),
            batches: 0,
        };
        let committer: Arc<dyn OffsetCommitter> = match self.bug {
            Bug::CommitsOneMore => Arc::new(OneMore(committer)),
            _ => committer,
        };
        Ok(OpenSource { reader: Box::new(reader), committer })
    }
}

struct OneMore(Arc<dyn OffsetCommitter>);

#[async_trait]
impl OffsetCommitter for OneMore {
    async fn commit(&self, offsets: &CommittedOffsets) -> Result<()> {
        let mut more = offsets.clone();
        more.values_mut().for_each(|committed| committed.offset += 1);
        self.0.commit(&more).await
    }
}

/// An assignment whose answer passes through our hands.
struct Asked {
    answer: oneshot::Receiver<Vec<Start>>,
    forward: oneshot::Sender<Vec<Start>>,
    lows: Vec<Start>,
}

struct BrokenReader {
    inner: Box<dyn SourceReader>,
    bug: Bug,
    /// Read ahead.
    held: VecDeque<Event>,
    owned: Vec<Start>,
    asked: Vec<Asked>,
    batches: usize,
}

#[async_trait]
impl SourceReader for BrokenReader {
    async fn next(&mut self) -> Result<Event> {
        self.forward_answers();
        let event = match self.held.pop_front() {
            Some(event) => event,
            None => self.inner.next().await?,
        };
        if self.bug == Bug::LosesEventOnCancel {
            tokio::task::yield_now().await;
        }
        self.read_ahead();
        Ok(match event {
            Event::Assigned(assignment) => Event::Assigned(self.intercept(assignment)),
            Event::Batch(mut batch) => {
                self.batches += 1;
                if self.bug == Bug::GapsOverHoles {
                    let mut coverage = Coverage::new();
                    for run in &batch.runs {
                        let to = run.first + i64::from(run.count);
                        coverage.insert(&run.partition, run.first, to);
                    }
                    batch.coverage = coverage;
                }
                if self.bug == Bug::SwallowsRows && self.batches.is_multiple_of(3) {
                    batch.records = batch.records.slice(0, batch.num_rows() - 1);
                    batch.runs.clear();
                }
                Event::Batch(batch)
            }
            event => event,
        })
    }

    async fn seek(&mut self, to: &[Start]) -> Result<()> {
        let mut to = to.to_vec();
        match self.bug {
            Bug::SeekKeepsBuffer => {}
            Bug::SeekKeepsTheRest => {
                let named = |start: &&Start| to.iter().any(|s| s.partition == start.partition);
                let rest: Vec<_> =
                    self.owned.iter().filter(|start| !named(start)).cloned().collect();
                to.extend(rest);
            }
            _ => self.held.clear(),
        }
        self.inner.seek(&to).await
    }
}

impl BrokenReader {
    fn intercept(&mut self, assignment: Assignment) -> Assignment {
        let Assignment { partitions, identity, reply: forward } = assignment;
        let low = |p: &crate::AssignedPartition| Start {
            partition: p.partition.clone(),
            offset: p.low,
            end: None,
        };
        let lows: Vec<_> = partitions.iter().map(low).collect();
        self.owned.extend_from_slice(&lows);
        let (reply, answer) = oneshot::channel();
        if self.bug == Bug::ReadsBeforeTheAnswer {
            forward.send(lows).unwrap();
        } else {
            self.asked.push(Asked { answer, forward, lows });
        }
        Assignment { partitions, identity, reply }
    }

    fn forward_answers(&mut self) {
        for mut asked in std::mem::take(&mut self.asked) {
            match asked.answer.try_recv() {
                Ok(mut starts) => {
                    if self.bug == Bug::IgnoresEnds {
                        starts.iter_mut().for_each(|start| start.end = None);
                    }
                    let _ = asked.forward.send(starts);
                }
                Err(oneshot::error::TryRecvError::Empty) => self.asked.push(asked),
                Err(oneshot::error::TryRecvError::Closed)
                    if self.bug == Bug::ReadsWithoutAnAnswer =>
                {
                    let _ = asked.forward.send(asked.lows);
                }
                Err(oneshot::error::TryRecvError::Closed) => {}
            }
        }
    }

    fn read_ahead(&mut self) {
        if !matches!(self.bug, Bug::SeekKeepsBuffer | Bug::DeliversAfterRevoking) {
            return;
        }
        while self.held.len() < 2
            && let Some(Ok(event)) = self.inner.next().now_or_never()
        {
            if matches!(event, Event::Revoking(_)) {
                self.held.push_front(event);
            } else {
                self.held.push_back(event);
            }
        }
    }
}
