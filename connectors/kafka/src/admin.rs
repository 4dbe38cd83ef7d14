//! What operators ask of a group and its topics, without being a member.

use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tidelock_connector::{
    AssignedPartition, CommittedOffsets, Error, ErrorKind, Identity, Result, TopicPartition,
};

use crate::commit;
use crate::config::StartAt;
use crate::errors;
use crate::ffi;
use crate::lookup::look_up;
use crate::probe::Probe;
use crate::settings::Settings;

/// How long the group's coordinator may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks and tells what a consumer group is about; see
/// [`KafkaSource::admin`](crate::KafkaSource::admin).
///
/// Each call makes a client of its own, which is never a member of the group,
/// and answers within some tens of seconds.
#[derive(Debug, Clone)]
pub struct GroupAdmin {
    settings: Arc<Settings>,
}

impl GroupAdmin {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        Self { settings }
    }

    /// The consumer group.
    pub fn group_id(&self) -> &str {
        &self.settings.group
    }

    /// The cluster and the group.
    ///
    /// # Errors
    /// When no client can be made.
    pub async fn identity(&self) -> Result<Identity> {
        self.with(|probe, settings| {
            Ok(Identity { cluster: probe.cluster(), group: Some(settings.group.clone()) })
        })
        .await
    }

    /// How many members the group has now; a group that does not exist has
    /// none.
    ///
    /// # Errors
    /// When its coordinator does not answer.
    pub async fn members(&self) -> Result<usize> {
        self.with(|probe, settings| {
            let doing = "asking for the members of the group";
            let name = CString::new(settings.group.as_str())
                .map_err(|error| Error::config("`group_id` is not a name").source(error))?;
            match ffi::group_members(&probe.into_consumer(), &name, TIMEOUT) {
                Some(Ok(members)) => Ok(members),
                Some(Err(RDKafkaErrorCode::GroupIdNotFound)) => Ok(0),
                Some(Err(code)) => Err(errors::of_code(code, doing)),
                None => Err(Error::new(ErrorKind::Unavailable, doing)),
            }
        })
        .await
    }

    /// Every partition of the source's topics: what is committed, where the log
    /// begins and ends, and, as `start`, the offset that `at` means.
    ///
    /// # Errors
    /// When the cluster does not answer, or a topic does not exist.
    pub async fn partitions(&self, at: StartAt) -> Result<Vec<AssignedPartition>> {
        self.with(move |probe, _| {
            let partitions: Vec<TopicPartition> = probe
                .topics()?
                .into_iter()
                .flat_map(|topic| {
                    let name: Arc<str> = topic.name.into();
                    let count = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
                    (0..count).map(move |n| TopicPartition::new(Arc::clone(&name), n))
                })
                .collect();
            look_up(&probe.into_consumer(), &at, &partitions)
        })
        .await
    }

    /// Commits offsets and hints. Brokers take them from outside only while the
    /// group has no members.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] while it has members.
    pub async fn commit(&self, offsets: CommittedOffsets) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        self.with(move |probe, _| commit::commit(&probe.into_consumer(), &offsets)).await
    }

    async fn with<T: Send + 'static>(
        &self,
        ask: impl FnOnce(Probe<'_>, &Settings) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let settings = Arc::clone(&self.settings);
        let asked = tokio::task::spawn_blocking(move || {
            ask(Probe::new(&settings.config, &settings.group)?, &settings)
        });
        asked.await.map_err(|e| Error::new(ErrorKind::Panic, "asking the cluster").source(e))?
    }
}
