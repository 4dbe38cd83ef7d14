//! The consumer thread: one per reader, and the only one that polls.
//!
//! ```text
//! librdkafka ──▶ a queue per partition ──▶ turns (fair) ──▶ open rows ──▶ channel ──▶ next()
//!                P × (queue + fetch) ≤ M/2                  ≤ M/8         ≤ M/4
//! ```
//!
//! The thread goes round: serve callbacks, commands, the group, then one turn
//! per partition. When nothing is there, or the channel is full, it parks. It
//! is woken by commands and by `next`, and never sleeps for longer than
//! `poll_interval`, so that a lost wake-up costs no more than that.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use tidelock_connector::{ErrorKind, Identity, Rejected, SourceContext, Start, Stream};

use crate::client::{Limits, Shares};
use crate::context::{Consumer, Notes};
use crate::errors::{self, Limit};
use crate::express::Express;
use crate::fair::Fair;
use crate::ffi::{Queue, Room};
use crate::group::Group;
use crate::outbox::Outbox;
use crate::reader::Command;
use crate::rows::Rows;
use crate::serve::Served;
use crate::settings::Settings;
use crate::slot::{Client, Slot, State};
use crate::stats::{LIVELY, Pace, Report};

/// How many events are served per round, so that a flood of log lines does not
/// hold up the data.
const EVENTS_PER_ROUND: usize = 64;

/// The first pause when nothing is there; after [`LIVELY`] it doubles, up to
/// `poll_interval`.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);

/// What the first pause grows by with each partition, so that going round a
/// thousand quiet ones does not cost more than their few messages.
const WAIT_PER_PARTITION: Duration = Duration::from_micros(3);

/// After a pause, a partition that has had nothing for [`LIVELY`] is looked at
/// again only after so long for each partition: looking into an empty queue
/// takes a lock, a three-hundredth of that.
const LULL_PER_PARTITION: Duration = Duration::from_micros(25);

/// While an answer of the runtime is awaited, which wakes nobody.
const ANSWER_WAIT: Duration = Duration::from_millis(5);

/// How often the same error about the connection is passed on.
const ERROR_INTERVAL: Duration = Duration::from_secs(5);

/// Everything the thread works with.
pub(crate) struct Poller {
    pub(crate) consumer: Arc<Consumer>,
    main: Option<Queue<Notes>>,
    pub(crate) express: Express,
    pub(crate) settings: Arc<Settings>,
    pub(crate) identity: Identity,
    pub(crate) outbox: Outbox,
    pub(crate) slots: Vec<Slot>,
    pub(crate) fair: Fair,
    pub(crate) topics: Vec<Topic>,
    pub(crate) group: Group,
    pub(crate) budget: Budget,
    pub(crate) limits: Limits,
    pub(crate) room: Room,
    pub(crate) report: Report,
    pub(crate) pace: Pace,
    /// Something was found that ends the run; nothing more is read.
    pub(crate) halted: bool,
    /// Slots and librdkafka may differ.
    pub(crate) unsynced: bool,
    /// Not before then.
    pub(crate) sync_at: Option<Instant>,
    pub(crate) errors: Limit,
    pub(crate) bad_records: Limit,
    commands: Receiver<Command>,
    wait: Duration,
    /// The last round found everything empty.
    pub(crate) rested: bool,
    /// When something was there for the last time.
    lively_at: Instant,
    idle_at: Option<Instant>,
}

/// The open batch of one topic.
pub(crate) struct Topic {
    pub(crate) rows: Rows,
    /// Since when there is something to report.
    pub(crate) since: Option<Instant>,
    pub(crate) rejected: Vec<Rejected>,
}

/// How much of the reader's memory is for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Bytes in the channel, from which on nothing more is read.
    pub(crate) channel: usize,
    /// Bytes in all open rows, from which on all are cut.
    pub(crate) open: usize,
    /// Bytes in the rows of one topic, from which on they are cut.
    pub(crate) batch: usize,
}

impl Budget {
    pub(crate) fn new(memory: usize) -> Self {
        Self {
            channel: (memory / 4).max(1 << 20),
            open: (memory / 8).max(1 << 20),
            // A quiet topic's batch waits for the one that a slow sink is at.
            batch: (memory / 32).clamp(256 << 10, 4 << 20),
        }
    }
}

impl Drop for Poller {
    /// Leaves the group, after a panic too: whoever drops the consumer last
    /// waits until its partitions are given up, which nobody but the context
    /// does from now on.
    fn drop(&mut self) {
        tracing::debug!("leaving the group");
        self.slots.iter_mut().for_each(|slot| self.report.retire(slot));
        self.group.cancel();
        for client in [Client::Member, Client::Express] {
            if let Some(consumer) = self.fetcher(client) {
                consumer.context().close();
            }
        }
    }
}

impl Poller {
    pub(crate) fn new(
        consumer: Arc<Consumer>,
        settings: Arc<Settings>,
        identity: Identity,
        outbox: Outbox,
        commands: Receiver<Command>,
        shares: Shares,
        ctx: &SourceContext,
    ) -> Self {
        let fair = Fair::new(settings.config.max_poll_records);
        let report = Report::new(settings.fairness.clone(), ctx.worker);
        Self {
            main: Queue::main(&consumer),
            express: Express::new(shares.express, ctx.worker),
            consumer,
            settings,
            identity,
            outbox,
            slots: Vec::new(),
            fair,
            topics: Vec::new(),
            group: Group::default(),
            budget: Budget::new(ctx.memory),
            limits: shares.member,
            room: Room::default(),
            report,
            pace: Pace::new(),
            halted: false,
            unsynced: false,
            sync_at: None,
            errors: Limit::every(ERROR_INTERVAL),
            bad_records: Limit::every(ERROR_INTERVAL),
            commands,
            wait: SHORTEST_WAIT,
            rested: false,
            lively_at: Instant::now(),
            idle_at: None,
        }
    }

    /// Runs until it is told to stop, then leaves the group.
    pub(crate) fn run(mut self) {
        while self.obey() {
            self.poll();
            self.serve_group();
            self.resync();
            let served = self.round();
            self.cut_due(Instant::now());
            self.tell();
            self.rest(served);
        }
    }

    /// Serves callbacks, log lines and errors.
    fn poll(&mut self) {
        for _ in 0..EVENTS_PER_ROUND {
            match self.consumer.poll(Duration::ZERO) {
                // Nothing, or something that the context has taken note of:
                // errors come with their reasons only there.
                None | Some(Err(_)) => {}
                Some(Ok(message)) => {
                    go_back_for(&message, &mut self.slots);
                    self.unsynced = true;
                }
            }
            if self.main.as_ref().is_none_or(|main| main.len() == 0) {
                break;
            }
        }
        let mut reported = self.consumer.context().take_errors();
        if let (Some(express), Some(main)) = (self.express.consumer(), &self.express.main) {
            for _ in 0..EVENTS_PER_ROUND.min(main.len()) {
                if let Some(Ok(message)) = express.poll(Duration::ZERO) {
                    go_back_for(&message, &mut self.slots);
                    self.unsynced = true;
                }
            }
            reported.append(&mut express.context().take_errors());
        }
        for (code, reason) in reported {
            self.pass_on(code, &reason);
        }
    }

    /// Once a second: hands on the figures, and acts on them.
    fn tell(&mut self) {
        let (member, express) = (&self.consumer, self.express.consumer());
        let client = |slot: &Slot| match slot.client {
            Client::Member => Some(&**member),
            Client::Express => express.map(|consumer| &**consumer),
        };
        if self.report.publish(client, &mut self.slots, &self.outbox, &self.pace) {
            self.give_seats();
        }
    }

    /// Passes an error of the connection or the group on to the runtime.
    fn pass_on(&mut self, code: RDKafkaErrorCode, reason: &str) {
        metrics::counter!("tidelock_source_errors_total", "code" => format!("{code:?}"))
            .increment(1);
        if errors::is_passing(code) {
            tracing::debug!(?code, reason, "passing trouble");
            return;
        }
        let mut error = errors::of_code(code, reason);
        // Credentials that worked once may be on their way to being renewed.
        if error.kind() == ErrorKind::Denied && self.group.has_joined() {
            error = error.retryable(true);
        }
        if error.is_retryable() {
            match self.errors.pass(Instant::now()) {
                None => return,
                Some(0) => {}
                Some(more) => error = error.with("repeated", more),
            }
        } else {
            self.halted = true;
        }
        self.outbox.error(error);
    }

    /// Does what it was told; whether to go on.
    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Seek(starts, reply)) => {
                    self.seek(&starts);
                    let _gone = reply.send(());
                }
                Ok(Command::Stop) | Err(std::sync::mpsc::TryRecvError::Disconnected) => {
                    return false;
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
            }
        }
    }

    /// Throws away what was read and goes elsewhere. Partitions that are not
    /// named stay unread; those that are being given up stay what they are.
    fn seek(&mut self, starts: &[Start]) {
        self.outbox.next_generation();
        self.discard();
        self.halted = false;
        for slot in &mut self.slots {
            match slot.state {
                State::Reading | State::Unread => slot.state = State::Unread,
                State::Claiming(_) | State::Leaving => {}
            }
        }
        for start in starts {
            self.begin(start, |state| matches!(state, State::Unread | State::Claiming(_)));
        }
        self.unsynced = true;
        self.sync_at = None;
    }

    /// Reads a partition from `start` on, if it is ours and `allowed`.
    pub(crate) fn begin(&mut self, start: &Start, allowed: impl Fn(State) -> bool) {
        let slot = self.slots.iter_mut().find(|slot| slot.partition == start.partition);
        match slot {
            Some(slot) if allowed(slot.state) && start.offset >= 0 => {
                tracing::debug!(partition = %slot.partition, offset = start.offset, end = start.end, "start");
                slot.begin(start);
                self.unsynced = true;
            }
            Some(slot) if start.offset < 0 => {
                let error = crate::lookup::nothing_committed(&slot.partition);
                self.outbox.error(error);
                self.halted = true;
            }
            // It was taken away while the answer was on its way.
            _ => tracing::debug!(partition = %start.partition, "start of a partition that is gone"),
        }
    }

    /// The number of a topic, which is opened if it is new.
    pub(crate) fn topic(&mut self, name: &str) -> tidelock_connector::Result<usize> {
        if let Some(index) = self.topics.iter().position(|t| &*t.rows.stream().name == name) {
            return Ok(index);
        }
        let Settings { format, coordinates, schema, .. } = &*self.settings;
        let stream = Stream::new(name, Arc::clone(schema));
        let rows = Rows::new(stream, format, coordinates)?;
        self.topics.push(Topic { rows, since: None, rejected: Vec::new() });
        Ok(self.topics.len() - 1)
    }

    /// Waits, if there is nothing to do.
    fn rest(&mut self, served: Served) {
        let longest = self.settings.config.poll_interval;
        let shortest = SHORTEST_WAIT.max(self.per_partition(WAIT_PER_PARTITION));
        self.rested = matches!(served, Served::Drained { .. });
        match served {
            Served::More => {}
            // `next` wakes us when it has made room.
            Served::Full => {
                let since = Instant::now();
                thread::park_timeout(longest);
                self.pace.blocked += since.elapsed();
            }
            Served::Drained { any } => {
                if any {
                    self.lively_at = Instant::now();
                    self.idle_at = None;
                } else {
                    self.say_idle();
                }
                self.wait = match self.lively_at.elapsed() < LIVELY {
                    true => shortest,
                    false => (self.wait * 2).min(longest),
                };
                let open = self.topics.iter().filter_map(|topic| topic.since).min();
                let due = open.map_or(longest, |since| longest.saturating_sub(since.elapsed()));
                let answer = if self.group.is_waiting() { ANSWER_WAIT } else { longest };
                thread::park_timeout(self.wait.min(due).min(answer).max(SHORTEST_WAIT));
            }
        }
    }

    /// How long a partition that has had nothing for a while is left alone.
    pub(crate) fn lull(&self) -> Duration {
        self.per_partition(LULL_PER_PARTITION)
    }

    fn per_partition(&self, time: Duration) -> Duration {
        let lanes = u32::try_from(self.fair.len()).unwrap_or(u32::MAX);
        time.saturating_mul(lanes).min(self.settings.config.poll_interval)
    }

    /// Says once a second that there is nothing to read.
    fn say_idle(&mut self) {
        let open = self.topics.iter().any(|topic| topic.since.is_some());
        let recently = self.idle_at.is_some_and(|at| at.elapsed() < Duration::from_secs(1));
        if !self.halted && !open && !recently && self.outbox.held() == 0 {
            self.idle_at = Some(Instant::now());
            self.outbox.idle();
        }
    }
}

/// A message has come outside of the queue of its partition. It cannot, as every
/// queue is detached before its partition is assigned; nothing is lost if it does.
#[cold]
fn go_back_for(message: &BorrowedMessage<'_>, slots: &mut [Slot]) {
    let (topic, number) = (message.topic(), message.partition());
    tracing::warn!(topic, number, "message outside of its partition's queue");
    let is_its =
        |slot: &&mut Slot| &*slot.partition.topic == topic && slot.partition.partition == number;
    if let Some(slot) = slots.iter_mut().find(is_its) {
        slot.astray = true;
    }
}
