//! What librdkafka's errors mean, and what to do about them.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tidelock_connector::{Error, ErrorKind};

/// The error for a failed call.
pub(crate) fn failed(doing: &str, error: KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(code) => of_code(code, doing).source(error),
        None => match &error {
            KafkaError::ClientConfig(_, reason, key, value) => {
                let value = if crate::security::is_secret(key) { "…" } else { value };
                Error::config(format!("librdkafka does not take {key:?} = {value:?}: {reason}"))
            }
            KafkaError::ClientCreation(reason) => Error::config(format!("{doing}: {reason}")),
            _ => Error::new(ErrorKind::Other, doing).retryable(true).source(error),
        },
    }
}

/// The error for a code, with what to do about it.
pub(crate) fn of_code(code: Code, doing: &str) -> Error {
    let kind = kind_of(code);
    let advice = match code {
        Code::TopicAuthorizationFailed => {
            "; the user may not read the topic: allow READ and DESCRIBE"
        }
        Code::GroupAuthorizationFailed => "; the user may not use the group: allow READ on it",
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "; the broker refused the credentials: look at `security`"
        }
        Code::SSL => "; TLS failed: look at `security.ca` and at the broker's listener",
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            "; there is no such topic: look at `topics`"
        }
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
            "; the next offset to read is not in the log any more: raise the topic's retention, \
             or decide where to go on with `tidelock offsets`"
        }
        Code::MessageSizeTooLarge => {
            "; a message is larger than a fetch may be: raise `fetch.message.max.bytes` \
             in `librdkafka`"
        }
        Code::FencedInstanceId => "; another process uses the same `group_instance_id`",
        Code::InconsistentGroupProtocol => {
            "; other members of the group use another assignor: look at `assignor`"
        }
        Code::InvalidSessionTimeout => {
            "; the broker does not allow this `session_timeout`: see its \
             group.min.session.timeout.ms and group.max.session.timeout.ms"
        }
        Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve => {
            "; no broker answers: look at `brokers`, the network, and whether the listener wants TLS"
        }
        _ => "",
    };
    Error::new(kind, format!("{doing}: {code}{advice}")).retryable(is_retryable(code, kind))
}

fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::SSL => ErrorKind::Denied,
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            ErrorKind::NotFound
        }
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => ErrorKind::DataLoss,
        Code::Fatal
        | Code::Fenced
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::StaleMemberEpoch
        | Code::UnknownMemberId
        | Code::IllegalGeneration
        | Code::AssignmentLost => ErrorKind::Fenced,
        Code::InvalidConfig
        | Code::InvalidArgument
        | Code::InvalidGroupId
        | Code::InvalidTopic
        | Code::InconsistentGroupProtocol
        | Code::InvalidSessionTimeout
        | Code::OffsetMetadataTooLarge
        | Code::MessageSizeTooLarge
        | Code::UnsupportedSASLMechanism => ErrorKind::Config,
        Code::NotImplemented
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion
        | Code::UnsupportedCompressionType
        | Code::UnsupportedAssignor => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    }
}

/// Everything that is nobody's fault passes; and a member that the group has
/// thrown out joins again by itself.
fn is_retryable(code: Code, kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Unavailable => true,
        ErrorKind::Fenced => !matches!(code, Code::Fatal | Code::Fenced | Code::FencedInstanceId),
        _ => false,
    }
}

/// What only says that a single broker or connection came or went; librdkafka
/// goes on by itself, and says so louder when no broker is left.
pub(crate) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::PollExceeded
            | Code::NetworkException
    )
}

/// Lets one of a kind through per interval.
#[derive(Debug)]
pub(crate) struct Limit {
    interval: Duration,
    last: Option<Instant>,
    held_back: u64,
}

impl Limit {
    pub(crate) fn every(interval: Duration) -> Self {
        Self { interval, last: None, held_back: 0 }
    }

    /// Whether this one goes through, and how many were held back before it.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < self.interval) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

/// The name closest to `wanted`, for "did you mean".
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = wanted.to_lowercase();
    let mut close: Vec<(usize, &str)> = names
        .map(|name| (distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 2 + wanted.len().min(name.len()) / 4)
        .collect();
    close.sort_unstable();
    close.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_lets_one_through_per_interval() {
        let mut limit = Limit::every(Duration::from_secs(5));
        let start = Instant::now();
        assert_eq!(limit.pass(start), Some(0));
        assert_eq!(limit.pass(start + Duration::from_secs(1)), None);
        assert_eq!(limit.pass(start + Duration::from_secs(2)), None);
        assert_eq!(limit.pass(start + Duration::from_secs(6)), Some(2));
    }

    #[test]
    fn the_nearest_names_come_first() {
        let names = ["orders", "order-events", "payments", "Orders2"];
        assert_eq!(nearest("ordes", names.into_iter()), ["orders", "Orders2"]);
        assert!(nearest("zzz", names.into_iter()).is_empty());
    }

    #[test]
    fn kinds_and_retries() {
        let error = of_code(Code::AllBrokersDown, "reading");
        assert!(error.is_retryable());
        assert_eq!(of_code(Code::SaslAuthenticationFailed, "x").kind(), ErrorKind::Denied);
        assert!(!of_code(Code::SaslAuthenticationFailed, "x").is_retryable());
        assert!(of_code(Code::UnknownMemberId, "x").is_retryable());
        assert!(!of_code(Code::FencedInstanceId, "x").is_retryable());
    }
}
