//! Rebalances: what the group gives and takes, and the runtime's word on it.
//!
//! # Assigned
//! The assignment is acknowledged *at once and empty*, which brings librdkafka
//! back to its steady state, so that the partitions that were kept go on being
//! read while the new ones are looked up and claimed. When the runtime has
//! answered, exactly the partitions that it named are assigned with explicit
//! offsets. librdkafka takes `incremental_assign` in any state
//! (`rd_kafka_cgrp_incremental_assign` changes the state only where it was
//! being waited for). An answer that never comes, or that names fewer
//! partitions, leaves the rest owned and unread.
//!
//! If the group moves on before the answer is there, the partitions are gone
//! from the slots and the answer is ignored. In the window in which a
//! revocation is queued but not yet seen, a partition may still be assigned;
//! it is unassigned again with the revocation, and the claim's epoch, not the
//! group, is what keeps its rows from counting twice.
//!
//! # Revoked
//! librdkafka has paused everything and waits for `incremental_unassign`. What
//! was decoded goes out, then [`Event::Revoking`], and the thread goes on
//! polling (nothing can arrive) until the runtime is done or the deadline has
//! passed. Commits run on other threads meanwhile.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use tidelock_connector::{Assignment, Event, Revocation, Start, TopicPartition};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::context::{Change, Rebalance};
use crate::errors;
use crate::lookup::Lookup;
use crate::poller::Poller;
use crate::slot::{self, Client, Slot, State};

/// The longest that a revocation may take.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Rebalances under way.
#[derive(Default)]
pub(crate) struct Group {
    claims: Vec<Claim>,
    /// Claims are counted, so that an answer finds only its own partitions.
    last_claim: u64,
    leaving: Option<Leaving>,
    joined: bool,
}

/// An assignment that was not answered yet.
struct Claim {
    id: u64,
    step: Step,
}

enum Step {
    LookingUp(Lookup),
    Asked(oneshot::Receiver<Vec<Start>>),
}

/// A revocation that was not answered yet.
struct Leaving {
    deadline: Instant,
    done: oneshot::Receiver<()>,
}

impl Group {
    /// Whether partitions were ever assigned.
    pub(crate) fn has_joined(&self) -> bool {
        self.joined
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.claims.is_empty() || self.leaving.is_some()
    }

    /// Whether partitions are being given up.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Stops looking things up.
    pub(crate) fn cancel(&mut self) {
        self.claims.clear();
    }
}

impl Poller {
    /// Handles rebalances and the runtime's answers.
    pub(crate) fn serve_group(&mut self) {
        self.hear_claims();
        if let Some(leaving) = &mut self.group.leaving {
            let answered = !matches!(leaving.done.try_recv(), Err(TryRecvError::Empty));
            let late = Instant::now() >= leaving.deadline;
            if !answered && !late {
                return;
            }
            if !answered {
                tracing::warn!("the last checkpoint before a rebalance took too long");
            }
            self.group.leaving = None;
            self.give_up();
        }
        while self.group.leaving.is_none() {
            let Some(Rebalance { change, partitions }) = self.consumer.context().next_rebalance()
            else {
                return;
            };
            let partitions: Vec<TopicPartition> = partitions
                .into_iter()
                .map(|(topic, number)| TopicPartition::new(topic, number))
                .collect();
            tracing::info!(?change, partitions = %shown(&partitions), "rebalance");
            metrics::counter!("tidelock_source_rebalances_total").increment(1);
            match change {
                Change::Assigned => self.assigned(partitions),
                Change::Revoked => self.revoked(&partitions, false),
                Change::Lost => self.revoked(&partitions, true),
            }
        }
    }

    /// Acknowledges new partitions and begins to look them up.
    fn assigned(&mut self, partitions: Vec<TopicPartition>) {
        self.hold_positions();
        let none = TopicPartitionList::new();
        let acknowledged = match self.is_eager() {
            true => self.consumer.assign(&none),
            false => self.consumer.incremental_assign(&none),
        };
        self.after_rebalance(acknowledged);
        if partitions.is_empty() {
            return;
        }
        self.group.joined = true;
        self.group.last_claim += 1;
        let id = self.group.last_claim;
        for partition in &partitions {
            // The group may give again what we never saw it take.
            if let Some(lane) = self.slots.iter().position(|slot| slot.partition == *partition) {
                self.cut_all();
                self.forget(lane);
            }
            if let Err(error) = self.add(partition, id) {
                self.outbox.error(error);
                self.halted = true;
                return;
            }
        }
        let start = &self.settings.config.start;
        match Lookup::start(&self.consumer, &self.outbox, start, partitions) {
            Ok(lookup) => self.group.claims.push(Claim { id, step: Step::LookingUp(lookup) }),
            Err(error) => self.outbox.error(error),
        }
    }

    fn add(&mut self, partition: &TopicPartition, claim: u64) -> tidelock_connector::Result<()> {
        let topic = self.topic(&partition.topic)?;
        let weight = self.settings.config.weights.get(&*partition.topic).copied().unwrap_or(1);
        self.slots.push(Slot::new(partition.clone(), topic, weight, claim));
        self.fair.add(weight);
        Ok(())
    }

    /// For what is no longer assigned. Lanes behind it move up, so nothing may
    /// be open.
    fn remove(&mut self, lane: usize) {
        let mut slot = self.slots.remove(lane);
        self.fair.remove(lane);
        // Whoever gets it fetches that again.
        slot.throw_away();
        slot.empty(&mut self.room);
        self.report.retire(&mut slot);
    }

    /// Lets go of a partition outside of any revocation.
    fn forget(&mut self, lane: usize) {
        let list = slot::names(self.slots.iter().skip(lane).take(1).filter(|slot| slot.assigned));
        self.unassign(self.slots[lane].client, &list);
        self.remove(lane);
    }

    /// Takes partitions from a client, if any are listed.
    fn unassign(&mut self, client: Client, list: &TopicPartitionList) {
        if list.count() > 0
            && let Some(fetcher) = self.fetcher(client)
            && let Err(error) = fetcher.incremental_unassign(list)
        {
            self.outbox.error(errors::failed("giving up partitions", error).retryable(true));
        }
    }

    /// Passes on what was looked up, and takes the runtime's answers.
    fn hear_claims(&mut self) {
        let mut index = 0;
        while index < self.group.claims.len() {
            let Claim { id, step } = &mut self.group.claims[index];
            let id = *id;
            let owned = |slot: &&Slot| slot.state == State::Claiming(id);
            if !self.slots.iter().any(|slot| owned(&slot)) {
                self.group.claims.remove(index);
                continue;
            }
            match step {
                Step::LookingUp(lookup) => {
                    if let Some(mut found) = lookup.poll() {
                        // Some may have been taken away meanwhile.
                        let slots = &self.slots;
                        found.retain(|one| {
                            slots.iter().filter(owned).any(|slot| slot.partition == one.partition)
                        });
                        let (reply, answer) = oneshot::channel();
                        *step = Step::Asked(answer);
                        let identity = self.identity.clone();
                        self.outbox.partitions(Event::Assigned(Assignment {
                            partitions: found,
                            identity,
                            reply,
                        }));
                    }
                }
                Step::Asked(answer) => match answer.try_recv() {
                    Err(TryRecvError::Empty) => {}
                    outcome => {
                        self.group.claims.remove(index);
                        self.answered(id, &outcome.unwrap_or_default());
                        continue;
                    }
                },
            }
            index += 1;
        }
    }

    /// Begins to read what was named; the rest of the claim stays unread.
    fn answered(&mut self, id: u64, starts: &[Start]) {
        for start in starts {
            self.begin(start, |state| state == State::Claiming(id));
        }
        for slot in &mut self.slots {
            if slot.state == State::Claiming(id) {
                slot.state = State::Unread;
            }
        }
    }

    /// Sends off what was read of partitions, and says that they are leaving.
    fn revoked(&mut self, partitions: &[TopicPartition], lost: bool) {
        self.cut_all();
        let id_asked = |id: u64| {
            let asked = |claim: &Claim| claim.id == id && matches!(claim.step, Step::Asked(_));
            self.group.claims.iter().any(asked)
        };
        let mut announced = Vec::new();
        for slot in self.slots.iter_mut().filter(|slot| partitions.contains(&slot.partition)) {
            // What the runtime was never told of it need not give up.
            let known = match slot.state {
                State::Claiming(id) => id_asked(id),
                State::Unread | State::Reading | State::Leaving => true,
            };
            if known {
                announced.push(slot.partition.clone());
            }
            slot.state = State::Leaving;
        }
        if announced.is_empty() {
            self.give_up();
            return;
        }
        let timeout = REVOKE_TIMEOUT.min(self.settings.config.max_poll_interval / 3);
        let deadline = Instant::now() + timeout;
        let (done, answer) = oneshot::channel();
        self.outbox.partitions(Event::Revoking(Revocation {
            partitions: announced,
            lost,
            deadline,
            done,
        }));
        if lost {
            // They are somebody else's already; nothing is worth waiting for.
            self.give_up();
        } else {
            self.group.leaving = Some(Leaving { deadline, done: answer });
        }
    }

    /// Lets go of the partitions that are leaving.
    fn give_up(&mut self) {
        let leaving = |client: Client| {
            let assigned = self.slots.iter().filter(|slot| slot.assigned && slot.client == client);
            slot::names(assigned.filter(|slot| slot.state == State::Leaving))
        };
        let (list, express) = (leaving(Client::Member), leaving(Client::Express));
        self.unassign(Client::Express, &express);
        // Nobody was served until now, which is nobody's fault.
        self.slots.iter_mut().for_each(|slot| slot.stats.rest());
        self.hold_positions();
        let given = match self.is_eager() {
            true => {
                self.slots.iter_mut().for_each(|slot| slot.assigned = false);
                self.consumer.unassign()
            }
            false => self.consumer.incremental_unassign(&list),
        };
        self.after_rebalance(given);
        while let Some(lane) = self.slots.iter().position(|slot| slot.state == State::Leaving) {
            self.remove(lane);
        }
    }

    fn after_rebalance(&mut self, outcome: KafkaResult<()>) {
        if let Err(error) = outcome {
            self.outbox.error(errors::failed("acknowledging a rebalance", error).retryable(true));
        }
        if !self.is_eager() {
            // For what was resumed just now, to be fetched at once.
            self.rebalance_may_have_begun();
        }
        self.unsynced = true;
        self.sync_at = None;
    }
}

/// A list of partitions that stays readable.
fn shown(partitions: &[TopicPartition]) -> String {
    let mut text: Vec<String> = partitions.iter().take(8).map(ToString::to_string).collect();
    if partitions.len() > text.len() {
        text.push(format!("and {} more", partitions.len() - text.len()));
    }
    if text.is_empty() { "none".to_owned() } else { text.join(", ") }
}
