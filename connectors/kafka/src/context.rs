//! What librdkafka calls back: log lines, errors and rebalances.
//!
//! Callbacks run within `poll`, so they only take notes; the consumer thread
//! reads the notes after `poll` has returned. That holds for rebalances too.
//! librdkafka hands them out as events and waits, in a state of its own, until
//! `incremental_assign` or `incremental_unassign` is called; nothing says that
//! this must happen within the callback (`rd_kafka_cgrp_handle_assign_op`
//! looks at the state, not at the caller). Meanwhile the group's heartbeats go
//! on, and as the thread keeps polling, a slow checkpoint is not mistaken for
//! a dead member.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

/// A consumer that takes notes.
pub(crate) type Consumer = BaseConsumer<Notes>;

/// How many errors are kept until somebody reads them.
const ERRORS_KEPT: usize = 64;

/// How many lines of one kind are logged per [`LOG_WINDOW`].
const LOG_LINES: u32 = 5;

/// For how long log lines of one kind are counted together.
const LOG_WINDOW: Duration = Duration::from_secs(30);

/// Something that the group has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rebalance {
    pub(crate) change: Change,
    pub(crate) partitions: Vec<(String, i32)>,
}

/// What happens to the partitions of a rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// They are ours.
    Assigned,
    /// They are wanted back.
    Revoked,
    /// They are gone.
    Lost,
}

/// An error that librdkafka reported, with its explanation.
pub(crate) type Reported = (RDKafkaErrorCode, String);

/// Notes of what was called back.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    rebalances: Mutex<VecDeque<Rebalance>>,
    errors: Mutex<VecDeque<Reported>>,
    log: Mutex<HashMap<String, (Instant, u32)>>,
    closing: AtomicBool,
}

impl Notes {
    /// The oldest rebalance that was not handled yet.
    pub(crate) fn next_rebalance(&self) -> Option<Rebalance> {
        lock(&self.rebalances).pop_front()
    }

    /// The errors since the last call.
    pub(crate) fn take_errors(&self) -> VecDeque<Reported> {
        std::mem::take(&mut *lock(&self.errors))
    }

    /// From now on nobody reads the notes: the consumer is being closed.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether a line of this kind may be logged now.
    fn may_log(&self, facility: &str) -> bool {
        let now = Instant::now();
        let mut log = lock(&self.log);
        let (since, count) = log.entry(facility.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) >= LOG_WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= LOG_LINES
    }
}

impl ClientContext for Notes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if !self.may_log(facility) {
            return;
        }
        // Errors that matter come as errors too, so that a line about one of
        // several brokers is no more than a warning.
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", "{facility}: {text}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", "{facility}: {text}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "{facility}: {text}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason, "reported");
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut errors = lock(&self.errors);
        if errors.len() == ERRORS_KEPT {
            errors.pop_front();
        }
        errors.push_back((code, reason.to_owned()));
    }
}

impl ConsumerContext for Notes {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        change: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::Acquire) {
            // Closing takes everything away; librdkafka reads whatever is
            // called now as that, and waits for it.
            let done = consumer.unassign();
            tracing::debug!(?done, "gave up all partitions");
            return;
        }
        let change = match change {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Change::Assigned,
            _ if consumer.assignment_lost() => Change::Lost,
            _ => Change::Revoked,
        };
        let partitions =
            list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
        lock(&self.rebalances).push_back(Rebalance { change, partitions });
    }
}

/// A panic elsewhere leaves notes that are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_log_lines_of_one_kind_is_cut_short() {
        let notes = Notes::default();
        let passed = (0..100).filter(|_| notes.may_log("FAIL")).count();
        assert_eq!(passed, LOG_LINES as usize);
        assert!(notes.may_log("SESSTMOUT"), "other kinds are counted apart");
    }

    #[test]
    fn the_newest_errors_are_kept() {
        let notes = Notes::default();
        for number in 0..100 {
            let error = KafkaError::Global(RDKafkaErrorCode::AllBrokersDown);
            notes.error(error, &number.to_string());
        }
        let errors = notes.take_errors();
        assert_eq!(errors.len(), ERRORS_KEPT);
        assert_eq!(errors.back().map(|(_, reason)| reason.as_str()), Some("99"));
        assert!(notes.take_errors().is_empty());
    }
}
