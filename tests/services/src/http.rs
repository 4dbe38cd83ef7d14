//! The few plain requests that the servers' own interfaces need.

use std::time::Duration;

use serde_json::Value;
use tidelock_connector::{Error, ErrorKind, Result};
use ureq::Agent;
use ureq::http::Response;

/// Gets a page; any answer but success is an error.
pub(crate) fn get(url: &str) -> Result<()> {
    agent().get(url).call().map(drop).map_err(|e| failed(url, e))
}

/// Posts JSON, reads JSON.
pub(crate) fn post(url: &str, body: &Value) -> Result<Value> {
    let answer = agent().post(url).content_type("application/json").send(body.to_string());
    let text = answer.and_then(read).map_err(|e| failed(url, e))?;
    serde_json::from_str(&text).map_err(|e| failed(url, e))
}

/// Deletes what is under `url`.
pub(crate) fn delete(url: &str) -> Result<()> {
    agent().delete(url).call().map(drop).map_err(|e| failed(url, e))
}

fn read(mut answer: Response<ureq::Body>) -> std::result::Result<String, ureq::Error> {
    answer.body_mut().read_to_string()
}

fn agent() -> Agent {
    // A proxy for the internet does not know our loopback interface.
    Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).proxy(None).build().into()
}

fn failed(url: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, "an HTTP request failed").with("url", url).source(error)
}
