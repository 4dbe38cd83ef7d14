//! Committing offsets to the group, from any thread, beside the reading.

use std::sync::Weak;

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tidelock_connector::{
    CommittedOffset, CommittedOffsets, Error, ErrorKind, OffsetCommitter, Result, async_trait,
};

use crate::context::Consumer;
use crate::errors;

/// Commits for one member of the group.
pub(crate) struct KafkaCommitter {
    /// The consumer belongs to its thread; a committer that somebody keeps does
    /// not keep the member in the group.
    pub(crate) consumer: Weak<Consumer>,
}

#[async_trait]
impl OffsetCommitter for KafkaCommitter {
    async fn commit(&self, offsets: &CommittedOffsets) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let gone = || Error::new(ErrorKind::Other, "the reader of this committer is closed");
        let consumer = self.consumer.upgrade().ok_or_else(gone)?;
        let offsets = offsets.clone();
        // librdkafka waits for the coordinator's answer, which does not pass
        // through the consumer thread: that one may be in the middle of a
        // revocation.
        tokio::task::spawn_blocking(move || commit(&consumer, &offsets))
            .await
            .map_err(|error| Error::new(ErrorKind::Panic, "committing offsets").source(error))?
    }
}

/// Commits, and waits for the answer. A consumer that is no member of the group
/// may do so while the group has no members.
pub(crate) fn commit(consumer: &Consumer, offsets: &CommittedOffsets) -> Result<()> {
    let doing = "committing offsets";
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, CommittedOffset { offset, hint }) in offsets {
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*offset))
            .map_err(|error| errors::failed(doing, error).at(partition).offset(*offset))?;
        if !hint.is_empty()
            && let Some(mut element) = list.find_partition(&partition.topic, partition.partition)
        {
            element.set_metadata(hint);
        }
    }
    match consumer.commit(&list, CommitMode::Sync) {
        Ok(()) => Ok(()),
        // Nothing had changed.
        Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) => Ok(()),
        Err(error) => Err(errors::failed(doing, error)),
    }
}
