//! Why a message was refused.

use std::fmt;
use std::sync::Arc;

use tidelock_connector::ErrorKind;

/// What a column is called and what it takes, for messages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The path of the column, as in `geo.lat` or `tags[]`.
    pub(crate) path: String,
    /// The type, as it is written in a declaration.
    pub(crate) type_name: String,
}

/// Why one message was refused, and where.
///
/// It is one pointer wide and its text is put together only when it is
/// displayed: a topic full of bad messages must not be slow because of prose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    position: usize,
    label: Option<Arc<Label>>,
    reason: Reason,
}

/// What was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Something else than what the column takes.
    Type(Found),
    /// Something else than what JSON wants here.
    Syntax(&'static str, Found),
    /// A value of the right type that the column cannot hold.
    Range,
    /// A number that would lose digits.
    Inexact,
    /// Text that does not say what the column takes.
    Text,
    /// A column that must not be null is not there.
    Missing,
    /// A column that must not be null is null.
    Null,
    /// Bytes of a string are not UTF-8.
    Utf8,
    /// A backslash with something unknown behind it.
    Escape,
    /// Half a surrogate pair.
    Surrogate,
    /// A control character within a string.
    Control,
    /// More levels than [`MAX_DEPTH`](crate::MAX_DEPTH).
    Depth,
    /// A field that the schema does not have.
    Unknown,
    /// The columns cannot take more before the batch is finished.
    Full,
}

/// What stood in the message instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    End,
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
    Byte(u8),
}

impl Found {
    /// What begins with this byte.
    pub(crate) fn at(bytes: &[u8], position: usize) -> Self {
        match bytes.get(position) {
            None => Self::End,
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::String,
            Some(b'-' | b'0'..=b'9') => Self::Number,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'n') => Self::Null,
            Some(&byte) => Self::Byte(byte),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the end of the message"),
            Self::Object => f.write_str("object"),
            Self::Array => f.write_str("array"),
            Self::String => f.write_str("string"),
            Self::Number => f.write_str("number"),
            Self::Boolean => f.write_str("boolean"),
            Self::Null => f.write_str("null"),
            Self::Byte(byte @ 0x21..=0x7e) => write!(f, "`{}`", char::from(*byte)),
            Self::Byte(byte) => write!(f, "byte 0x{byte:02x}"),
        }
    }
}

impl DecodeError {
    #[cold]
    pub(crate) fn new(position: usize, reason: Reason) -> Self {
        Self(Box::new(Inner { position, label: None, reason }))
    }

    /// Says which column it was; the innermost one counts.
    #[cold]
    pub(crate) fn within(mut self, label: &Arc<Label>) -> Self {
        self.0.label.get_or_insert_with(|| Arc::clone(label));
        self
    }

    /// Where in the message, in bytes from its start.
    pub fn position(&self) -> usize {
        self.0.position
    }

    /// The path of the column, as in `geo.lat` or `tags[]`; none when the
    /// message as a whole is not what it should be.
    pub fn column(&self) -> Option<&str> {
        self.0.label.as_ref().map(|label| label.path.as_str())
    }

    /// Nothing is wrong with the message: the batch has to be finished before
    /// it can be taken.
    pub fn is_full(&self) -> bool {
        self.0.reason == Reason::Full
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { position, label, reason } = &*self.0;
        if let Some(label) = label {
            write!(f, "column {:?}: ", label.path)?;
        }
        let kind = label.as_ref().map_or("an object", |label| label.type_name.as_str());
        match reason {
            Reason::Type(found) => write!(f, "expected {kind}, found {found}")?,
            Reason::Syntax(expected, found) => write!(f, "expected {expected}, found {found}")?,
            Reason::Range => write!(f, "out of range for {kind}")?,
            Reason::Inexact => write!(f, "{kind} cannot hold the number without loss")?,
            Reason::Text => write!(f, "expected {kind}, found text that is none")?,
            Reason::Missing => f.write_str("missing, and not nullable")?,
            Reason::Null => f.write_str("null, and not nullable")?,
            Reason::Utf8 => f.write_str("invalid UTF-8")?,
            Reason::Escape => f.write_str("invalid escape sequence")?,
            Reason::Surrogate => f.write_str("unpaired surrogate in an escape sequence")?,
            Reason::Control => f.write_str("control character within a string")?,
            Reason::Depth => write!(f, "nested deeper than {} levels", crate::MAX_DEPTH)?,
            Reason::Unknown => f.write_str("field that the schema does not have")?,
            Reason::Full => f.write_str("the batch is full and has to be finished first")?,
        }
        write!(f, " at byte {position}")
    }
}

impl std::error::Error for DecodeError {}

impl From<DecodeError> for tidelock_connector::Error {
    /// A bad record; whoever knows its partition and offset adds them.
    fn from(error: DecodeError) -> Self {
        Self::new(ErrorKind::BadRecord, "message cannot be decoded").source(error)
    }
}
