//! librdkafka is made to fetch what is wanted, from where we are.
//!
//! [`Slot`]s say what is wanted; [`Poller::resync`] brings librdkafka there
//! whenever the two may differ, and a partition is served only where they do
//! not. So an answer to a claim, a seek, the end of a partition and a rebalance
//! all come down to changing slots.
//!
//! # Rebalances
//! librdkafka goes back to positions of its own when it resumes the partitions
//! that were kept, and those may be one too far (`ffi`). So every partition
//! that is read is sought to where we are while it is still paused. Doing it
//! afterwards is too late: a fetch from behind the end fails, and a partition
//! whose fetching has failed takes no seek.
//!
//! When the rebalance is acknowledged, they are resumed, which wakes nobody:
//! the thread that fetches from a broker may be asleep for up to a second
//! (`rd_kafka_broker_serve`), and rebalances that follow one another add up. So
//! they are sought once more, which does wake it
//! (`rd_kafka_toppar_set_fetch_state`); nothing was fetched yet.
//!
//! All that is about the member of the group. The other client (`express`)
//! knows of no rebalances, and what it fetches is where we left it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{Consumer as _, RebalanceProtocol};
use tidelock_connector::{Error, ErrorKind, Result, TopicPartition};

use crate::context::Consumer;
use crate::errors;
use crate::ffi::Queue;
use crate::poller::Poller;
use crate::slot::{self, Client, Slot, State};

/// How long librdkafka may take to seek.
const SEEK_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause before librdkafka is asked again to do what it refused.
const SYNC_PAUSE: Duration = Duration::from_secs(1);

/// The pause before a partition whose fetching has failed is assigned again.
const ASSIGN_PAUSE: Duration = Duration::from_millis(100);

impl Poller {
    /// Makes librdkafka fetch exactly what is wanted, from where we are.
    pub(crate) fn resync(&mut self) {
        let due = self.sync_at.is_none_or(|at| at <= Instant::now());
        // While librdkafka waits for a revocation to end, any unassignment
        // would count as that; and everything is paused anyhow.
        if !self.unsynced || !due || self.group.is_leaving() {
            return;
        }
        // What one client refuses keeps the other from nothing.
        let (member, express) = (self.bring(Client::Member), self.bring(Client::Express));
        if let Err(error) = member.and(express) {
            tracing::debug!(%error, "not in place yet");
            self.sync_at = Some(Instant::now() + SYNC_PAUSE);
            if self.errors.pass(Instant::now()).is_some() {
                self.outbox.error(error);
            }
        } else if self.slots.iter().any(|slot| slot.is_wanted() && !slot.is_served()) {
            self.sync_at = Some(Instant::now() + ASSIGN_PAUSE);
        } else {
            self.unsynced = false;
            self.sync_at = None;
        }
    }

    /// The same for one of the clients.
    fn bring(&mut self, client: Client) -> Result<()> {
        let Some(fetcher) = self.fetcher(client).cloned() else { return Ok(()) };
        match client == Client::Member && self.is_eager() {
            true => self.reassign()?,
            false => self.assign_new(client, &fetcher)?,
        }
        self.pause_and_resume(client, &fetcher)?;
        self.reposition(client, &fetcher)
    }

    /// Assigns what the client does not have yet.
    fn assign_new(&mut self, client: Client, fetcher: &Arc<Consumer>) -> Result<()> {
        let is_new = |slot: &Slot| slot.client == client && slot.is_wanted() && !slot.assigned;
        if !self.slots.iter().any(is_new) {
            return Ok(());
        }
        self.detach(fetcher, is_new)?;
        let list = slot::positions(self.slots.iter().filter(|slot| is_new(slot)));
        fetcher
            .incremental_assign(&list)
            .map_err(|error| errors::failed("assigning partitions", error).retryable(true))?;
        if client == Client::Member {
            self.rebalance_may_have_begun();
        }
        self.slots.iter_mut().filter(|slot| is_new(slot)).for_each(Slot::is_in_place);
        Ok(())
    }

    /// The member has assigned or unassigned something. If a rebalance has
    /// begun that we have not heard of, that was taken for the answer to it,
    /// and the other partitions were resumed.
    pub(crate) fn rebalance_may_have_begun(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.client == Client::Member) {
            slot.astray |= slot.assigned;
        }
    }

    /// The older protocol knows only whole assignments.
    fn reassign(&mut self) -> Result<()> {
        let is_new = |slot: &Slot| slot.is_wanted() && (!slot.assigned || slot.astray);
        if !self.slots.iter().any(is_new) {
            return Ok(());
        }
        let consumer = Arc::clone(&self.consumer);
        self.detach(&consumer, Slot::is_wanted)?;
        let list = slot::positions(self.slots.iter().filter(|slot| slot.is_wanted()));
        self.consumer
            .assign(&list)
            .map_err(|error| errors::failed("assigning partitions", error).retryable(true))?;
        for slot in &mut self.slots {
            slot.assigned = false;
            if slot.is_wanted() {
                slot.is_in_place();
            }
        }
        Ok(())
    }

    /// Detaches the queues of partitions that are about to be assigned.
    fn detach(&mut self, fetcher: &Arc<Consumer>, which: impl Fn(&Slot) -> bool) -> Result<()> {
        for slot in self.slots.iter_mut().filter(|slot| which(slot)) {
            let TopicPartition { topic, partition } = &slot.partition;
            slot.queue = Queue::detach(fetcher, topic, *partition);
            if slot.queue.is_none() {
                let text = "librdkafka has no queue for the partition";
                return Err(Error::new(ErrorKind::Unavailable, text).at(&slot.partition));
            }
        }
        Ok(())
    }

    /// Fetching stops where nothing is wanted, and goes on where it is again.
    fn pause_and_resume(&mut self, client: Client, fetcher: &Consumer) -> Result<()> {
        let has = |slot: &Slot| slot.client == client && slot.assigned;
        let to_pause = |slot: &Slot| {
            has(slot) && !slot.paused && !slot.is_wanted() && slot.state != State::Leaving
        };
        let to_resume = |slot: &Slot| has(slot) && slot.paused && slot.is_wanted();
        let failed = |error| errors::failed("pausing partitions", error).retryable(true);
        if self.slots.iter().any(to_pause) {
            let list = slot::names(self.slots.iter().filter(|slot| to_pause(slot)));
            fetcher.pause(&list).map_err(failed)?;
            for slot in self.slots.iter_mut().filter(|slot| to_pause(slot)) {
                slot.paused = true;
                slot.throw_away();
            }
        }
        if self.slots.iter().any(to_resume) {
            let list = slot::names(self.slots.iter().filter(|slot| to_resume(slot)));
            fetcher.resume(&list).map_err(failed)?;
            for slot in self.slots.iter_mut().filter(|slot| to_resume(slot)) {
                slot.paused = false;
                slot.astray = true;
            }
        }
        Ok(())
    }

    /// Seeks where librdkafka is somewhere else. What it fetched before is
    /// never handed out after that; what takes no seek stays astray.
    fn seek_astray(&mut self, client: Client, fetcher: &Consumer) -> Result<()> {
        let is_astray = |slot: &Slot| slot.is_astray(client);
        if !self.slots.iter().any(is_astray) {
            return Ok(());
        }
        self.slots.iter_mut().filter(|slot| is_astray(slot)).for_each(Slot::throw_away);
        let list = slot::positions(self.slots.iter().filter(|slot| is_astray(slot)));
        let answer = fetcher
            .seek_partitions(list, SEEK_TIMEOUT)
            .map_err(|error| errors::failed("seeking", error).retryable(true))?;
        for slot in self.slots.iter_mut().filter(|slot| is_astray(slot)) {
            let TopicPartition { topic, partition } = &slot.partition;
            let element = answer.find_partition(topic, *partition);
            slot.astray = element.is_none_or(|element| element.error().is_err());
        }
        Ok(())
    }

    /// Seeks, too; a partition that takes no seek, because its fetching has
    /// failed, is unassigned here and assigned again by the next
    /// [`resync`](Self::resync).
    fn reposition(&mut self, client: Client, fetcher: &Consumer) -> Result<()> {
        let is_astray = |slot: &Slot| slot.is_astray(client);
        self.seek_astray(client, fetcher)?;
        if !self.slots.iter().any(is_astray) {
            return Ok(());
        }
        let list = slot::names(self.slots.iter().filter(|slot| is_astray(slot)));
        tracing::debug!(partitions = list.count(), "assigning again what takes no seek");
        fetcher
            .incremental_unassign(&list)
            .map_err(|error| errors::failed("giving up partitions", error).retryable(true))?;
        for slot in self.slots.iter_mut().filter(|slot| is_astray(slot)) {
            slot.assigned = false;
        }
        if client == Client::Member {
            self.rebalance_may_have_begun();
        }
        Ok(())
    }

    /// Sees to it that what is kept goes on from where we are.
    pub(crate) fn hold_positions(&mut self) {
        if self.is_eager() {
            // Nothing is kept there.
            return;
        }
        self.rebalance_may_have_begun();
        let consumer = Arc::clone(&self.consumer);
        if let Err(error) = self.seek_astray(Client::Member, &consumer) {
            // What is astray is not served until it was found again.
            tracing::warn!(%error, "positions could not be held");
        }
    }

    /// Whether a rebalance takes everything away.
    pub(crate) fn is_eager(&self) -> bool {
        matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Eager)
    }
}

impl Slot {
    fn is_astray(&self, client: Client) -> bool {
        self.client == client && self.astray && self.assigned && self.is_wanted()
    }

    /// librdkafka was just told where it begins.
    fn is_in_place(&mut self) {
        self.assigned = true;
        self.paused = false;
        self.astray = false;
    }
}
