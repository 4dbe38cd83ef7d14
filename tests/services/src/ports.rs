//! Free loopback ports.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use rand::RngExt;
use tidelock_connector::Result;

use crate::watch::failed;

/// A port that nobody listens on.
///
/// It is taken from below the range that the kernel hands out to outgoing
/// connections: a client that keeps dialling a server which is down would sooner
/// or later be given the server's own port, connect to itself, and keep the
/// server from coming back.
pub(crate) fn free() -> Result<u16> {
    let range = below_ephemeral();
    let mut rng = rand::rng();
    for _ in 0..200 {
        let port = rng.random_range(range.clone());
        if is_free(port) {
            return Ok(port);
        }
    }
    Err(failed("no free port on the loopback interface"))
}

/// Whether a server could listen on `port` now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn below_ephemeral() -> Range<u16> {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768);
    // Where nearly everything is ephemeral the trap cannot be avoided.
    if first > 12_000 { 10_000..first } else { 10_000..32_768 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_not_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(taken.local_addr().unwrap().port()));
        assert!(is_free(free().unwrap()));
    }
}
