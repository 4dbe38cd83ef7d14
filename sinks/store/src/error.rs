//! How failures of stores and file systems become the one error type.

use std::fmt;
use std::io;

use object_store::Error as StoreError;
use tidelock_connector::{Error, ErrorKind};

/// Classifies what an object store answered to an *unconditional* request.
pub(crate) fn store(error: StoreError, action: &str, path: &str) -> Error {
    let kind = match &error {
        StoreError::NotFound { .. } => ErrorKind::NotFound,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            ErrorKind::Denied
        }
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            ErrorKind::Unsupported
        }
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
            ErrorKind::Config
        }
        StoreError::JoinError { .. } => ErrorKind::Panic,
        StoreError::Generic { .. } => by_code(&error),
        // Nothing was asked of the object's state here: 409 and 412 are the
        // store's own quarrels (OperationAborted), and pass.
        _ => ErrorKind::Unavailable,
    };
    // Where no keys are given the machine's own role is asked for, and on most
    // machines there is none.
    let text = match error.to_string().contains(INSTANCE_METADATA) {
        true => format!("cannot {action}, for want of credentials ({CREDENTIALS})"),
        false => format!("cannot {action}"),
    };
    Error::new(kind, text).object(path).source(Cause(error))
}

/// Where a machine in AWS finds its role.
const INSTANCE_METADATA: &str = "169.254.169.254";

const CREDENTIALS: &str = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, \
                           access_key_id and secret_access_key in `storage`, or a role";

/// Listing loses the HTTP status on its way through `object_store`; what is
/// left is the error code of the S3 protocol in the answer's body.
fn by_code(error: &StoreError) -> ErrorKind {
    match element(&error.to_string(), "Code") {
        Some("NoSuchBucket") => ErrorKind::NotFound,
        Some(
            "AccessDenied"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "ExpiredToken"
            | "RequestTimeTooSkewed"
            | "AllAccessDisabled"
            | "AccountProblem",
        ) => ErrorKind::Denied,
        _ => ErrorKind::Unavailable,
    }
}

/// Classifies what an object store answered to a *conditional* write.
pub(crate) fn conditional(error: StoreError, path: &str) -> Error {
    match error {
        StoreError::AlreadyExists { .. }
        | StoreError::Precondition { .. }
        | StoreError::NotModified { .. } => fenced(path).source(Cause(error)),
        other => store(other, "write conditionally", path),
    }
}

/// The error of a conditional write whose condition does not hold.
pub(crate) fn fenced(path: &str) -> Error {
    Error::new(ErrorKind::Fenced, "the object is not in the expected version").object(path)
}

/// Classifies what the file system answered.
pub(crate) fn io(error: io::Error, action: &str, path: impl fmt::Display) -> Error {
    use io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
        Io::NotADirectory | Io::IsADirectory | Io::InvalidFilename | Io::InvalidInput => {
            ErrorKind::Config
        }
        Io::Unsupported => ErrorKind::Unsupported,
        // A full disk, too many open files, a network folder that hangs: they
        // may pass, and waiting loses nothing.
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("cannot {action}")).object(path).source(error)
}

/// An error of `object_store` whose `Display` already tells its causes, so
/// that they are not printed twice; XML answers are shortened to what they say.
#[derive(Debug)]
pub(crate) struct Cause(pub(crate) StoreError);

impl std::error::Error for Cause {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let Some(start) = text.find("<?xml").or_else(|| text.find("<Error>")) else {
            return f.write_str(&text);
        };
        let (head, body) = text.split_at(start);
        match (element(body, "Code"), element(body, "Message")) {
            (Some(code), Some(message)) => write!(f, "{head}{code}: {message}"),
            (Some(code), None) => write!(f, "{head}{code}"),
            _ => f.write_str(&text),
        }
    }
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_credentials_are_named() {
        let source = "Error performing PUT http://169.254.169.254/latest/api/token".into();
        let error = store(StoreError::Generic { store: "S3", source }, "read", "a");
        assert!(error.is_retryable(), "a role may come back");
        assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
    }

    #[test]
    fn xml_answers_are_shortened() {
        let body = "status 403: <?xml version=\"1.0\"?><Error><Code>InvalidAccessKeyId</Code>\
                    <Message>no such key</Message><RequestId>1</RequestId></Error>";
        let source = body.into();
        let error = store(StoreError::PermissionDenied { path: "a".into(), source }, "list", "a");
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(!error.is_retryable());
        assert!(error.to_string().ends_with("InvalidAccessKeyId: no such key"), "{error}");
        assert_eq!(error.to_string().matches("InvalidAccessKeyId").count(), 1, "{error}");
    }

    #[test]
    fn generic_errors_are_told_apart_by_their_code() {
        let kind = |code: &str| {
            let source = format!("status: <Error><Code>{code}</Code></Error>").into();
            store(StoreError::Generic { store: "S3", source }, "list", "a").kind()
        };
        assert_eq!(kind("NoSuchBucket"), ErrorKind::NotFound);
        assert_eq!(kind("SignatureDoesNotMatch"), ErrorKind::Denied);
        assert_eq!(kind("SlowDown"), ErrorKind::Unavailable);
    }

    #[test]
    fn a_failed_condition_is_fenced_and_a_conflict_elsewhere_passes() {
        let conflict = || StoreError::AlreadyExists { path: "a".into(), source: "409".into() };
        assert_eq!(conditional(conflict(), "a").kind(), ErrorKind::Fenced);
        assert!(!conditional(conflict(), "a").is_retryable());
        assert!(store(conflict(), "copy", "a").is_retryable());
    }
}
