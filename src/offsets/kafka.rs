//! The group of a Kafka source.

use async_trait::async_trait;
use tidelock_connector::{AssignedPartition, CommittedOffsets, Identity, Result};
use tidelock_kafka::{GroupAdmin, StartAt};

use super::{Group, Position};

#[async_trait]
impl Group for GroupAdmin {
    async fn identity(&self) -> Result<Identity> {
        Self::identity(self).await
    }

    async fn members(&self) -> Result<usize> {
        Self::members(self).await
    }

    async fn partitions(&self, at: Position) -> Result<Vec<AssignedPartition>> {
        let at = match at {
            Position::Earliest => StartAt::Earliest,
            Position::Latest => StartAt::Latest,
            Position::Time(time) => StartAt::Timestamp(time),
        };
        Self::partitions(self, at).await
    }

    async fn commit(&self, offsets: &CommittedOffsets) -> Result<()> {
        Self::commit(self, offsets.clone()).await
    }
}
