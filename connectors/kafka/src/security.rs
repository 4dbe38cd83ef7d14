//! TLS and SASL.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use tidelock_connector::{Error, Result};

/// How the connection is protected and who we are.
///
/// `Debug` never shows a secret. Names and passwords come from the TOML file,
/// where `${VAR}` takes them from the environment.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// What is spoken on the wire.
    pub protocol: Protocol,
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`.
    #[serde(default)]
    pub mechanism: Option<String>,
    /// The SASL user.
    #[serde(default)]
    pub username: Option<String>,
    /// The password of the SASL user.
    #[serde(default)]
    pub password: Option<String>,
    /// A PEM file with the authorities to trust; the system's unless it is given.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// A PEM file with our own certificate.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// A PEM file with the key of our certificate.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The password of the key.
    #[serde(default)]
    pub key_password: Option<String>,
}

/// What is spoken on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Neither TLS nor SASL.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL without TLS.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

impl Security {
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::config(format!("`security`: {text}")));
        if self.protocol != Protocol::Plaintext && !cfg!(feature = "tls") {
            return wrong("this build has no TLS and SASL; build with the feature `tls`");
        }
        if self.protocol.has_sasl() {
            let Some(mechanism) = self.mechanism.as_deref() else {
                return wrong("SASL needs a `mechanism`, for example \"SCRAM-SHA-512\"");
            };
            if !MECHANISMS.iter().any(|known| known.eq_ignore_ascii_case(mechanism)) {
                let known = MECHANISMS.join(", ");
                return wrong(&format!("unknown mechanism {mechanism:?}; there are {known}"));
            }
            let needs_user = !mechanism.eq_ignore_ascii_case("OAUTHBEARER");
            if needs_user && (self.username.is_none() || self.password.is_none()) {
                return wrong("this mechanism needs `username` and `password`");
            }
        } else if self.mechanism.is_some() || self.username.is_some() || self.password.is_some() {
            return wrong("`mechanism`, `username` and `password` need protocol \"sasl_ssl\"");
        }
        if self.certificate.is_some() != self.key.is_some() {
            return wrong("`certificate` and `key` go together");
        }
        for path in [&self.ca, &self.certificate, &self.key].into_iter().flatten() {
            if let Err(error) = std::fs::metadata(path) {
                let shown = path.display();
                return Err(Error::config(format!("`security`: cannot read {shown}")).source(error));
            }
        }
        Ok(())
    }

    /// The settings in librdkafka's words.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        let mechanism = self.mechanism.as_ref().map(|name| name.to_ascii_uppercase());
        let optional = [
            ("sasl.mechanisms", mechanism),
            ("sasl.username", self.username.clone()),
            ("sasl.password", self.password.clone()),
            ("ssl.ca.location", path(&self.ca)),
            ("ssl.certificate.location", path(&self.certificate)),
            ("ssl.key.location", path(&self.key)),
            ("ssl.key.password", self.key_password.clone()),
        ];
        let mut all = vec![("security.protocol", self.protocol.as_str().to_owned())];
        all.extend(optional.into_iter().filter_map(|(key, value)| Some((key, value?))));
        all
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "…");
        f.debug_struct("Security")
            .field("protocol", &self.protocol)
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .field("password", &hidden(&self.password))
            .field("ca", &self.ca)
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .field("key_password", &hidden(&self.key_password))
            .finish()
    }
}

/// Whether a setting of librdkafka must not be shown.
pub(crate) fn is_secret(key: &str) -> bool {
    ["password", "secret", "oauthbearer.config", ".pem", "ssl_key"]
        .iter()
        .any(|part| key.contains(part))
}
