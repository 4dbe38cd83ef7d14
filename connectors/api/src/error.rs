//! The one error type that crosses Tidelock's interfaces.
//!
//! An [`Error`] answers three questions without anybody matching text: what
//! kind of thing went wrong ([`ErrorKind`]), may the same call be tried again
//! ([`Error::is_retryable`]), and where did it happen (topic, partition,
//! offset, object, … as context).

use std::error::Error as StdError;
use std::fmt;

use crate::TopicPartition;

/// The result of every fallible call of the connector API.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is wrong; nothing will help but changing it.
    Config,
    /// A broker, store or endpoint cannot be reached or does not answer.
    Unavailable,
    /// Credentials are missing or wrong, or a right is missing.
    Denied,
    /// A topic, bucket, folder or object does not exist.
    NotFound,
    /// One record cannot be decoded or does not fit the schema.
    BadRecord,
    /// The schema of a batch does not fit what the receiver can take.
    Schema,
    /// Another worker owns the partition, or the record has moved on.
    Fenced,
    /// What was found contradicts what must hold: another writer under our
    /// key, another cluster behind the same name.
    Conflict,
    /// Going on would lose data; somebody has to decide.
    DataLoss,
    /// The other side cannot do what is asked of it.
    Unsupported,
    /// Code panicked.
    Panic,
    /// Anything else.
    Other,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "configuration",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::NotFound => "not found",
            Self::BadRecord => "bad record",
            Self::Schema => "schema",
            Self::Fenced => "fenced",
            Self::Conflict => "conflict",
            Self::DataLoss => "data loss",
            Self::Unsupported => "unsupported",
            Self::Panic => "panic",
            Self::Other => "error",
        })
    }
}

/// An error with its kind, whether a retry can help, its context and its cause.
///
/// Messages are lowercase and end without a full stop. `Display` prints the
/// message, then the context as `key=value`, then the chain of causes.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    retryable: bool,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A new error. [`ErrorKind::Unavailable`] is retryable from the start,
    /// every other kind is not; [`Error::retryable`] overrides that.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            retryable: kind == ErrorKind::Unavailable,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// A configuration error.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Says whether the same call may succeed when it is tried again.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Adds one piece of context.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Adds topic and partition.
    #[must_use]
    pub fn at(self, partition: &TopicPartition) -> Self {
        self.with("topic", &partition.topic).with("partition", partition.partition)
    }

    /// Adds an offset.
    #[must_use]
    pub fn offset(self, offset: i64) -> Self {
        self.with("offset", offset)
    }

    /// Adds the object or file that the call was about.
    #[must_use]
    pub fn object(self, object: impl fmt::Display) -> Self {
        self.with("object", object)
    }

    /// Sets the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed when it is tried again.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// The message alone, without context and causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The context, in the order in which it was added.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(k, v)| (*k, v.as_str()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (index, (key, value)) in self.0.context.iter().enumerate() {
            let open = if index == 0 { " (" } else { ", " };
            write!(f, "{open}{key}={value}")?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        let mut cause: Option<&(dyn StdError + 'static)> =
            self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static));
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            // Our own errors print their causes themselves.
            if error.is::<Error>() {
                break;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::new(ErrorKind::Schema, "arrow").source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_context_and_every_cause_once() {
        let io = std::io::Error::other("disk on fire");
        let inner = Error::new(ErrorKind::Unavailable, "put failed").object("a/b").source(io);
        let outer = Error::new(ErrorKind::Other, "checkpoint failed")
            .at(&TopicPartition::new("orders", 3))
            .offset(42)
            .source(inner);
        assert_eq!(
            outer.to_string(),
            "checkpoint failed (topic=orders, partition=3, offset=42): \
             put failed (object=a/b): disk on fire"
        );
    }

    #[test]
    fn only_unavailable_is_retryable_unless_said() {
        assert!(Error::new(ErrorKind::Unavailable, "x").is_retryable());
        assert!(!Error::config("x").is_retryable());
        assert!(Error::config("x").retryable(true).is_retryable());
    }
}
