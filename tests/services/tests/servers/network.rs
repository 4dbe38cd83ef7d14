//! Toxics do what they say, and go when they are removed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use tidelock_services::{Direction, Toxic};

/// A server that sends every byte back.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut byte = [0];
                while connection.read_exact(&mut byte).is_ok() {
                    if connection.write_all(&byte).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn ping(address: &str) -> std::io::Result<Duration> {
    let begun = Instant::now();
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.write_all(b"x")?;
    connection.read_exact(&mut [0])?;
    Ok(begun.elapsed())
}

#[test]
fn a_proxy_delays_resets_cuts_and_mends() {
    let Some(toxiproxy) = tidelock_services::toxiproxy() else { return };
    let proxy = toxiproxy.proxy(&echo()).unwrap();
    ping(proxy.address()).unwrap();

    let delay = Duration::from_millis(300);
    let slow = Toxic::Latency { delay, jitter: Duration::ZERO };
    let toxic = proxy.add(Direction::Downstream, slow, 1.0).unwrap();
    assert!(ping(proxy.address()).unwrap() >= delay);
    toxic.remove().unwrap();
    assert!(ping(proxy.address()).unwrap() < delay);

    let toxic = proxy.add(Direction::Upstream, Toxic::Reset(Duration::ZERO), 1.0).unwrap();
    ping(proxy.address()).unwrap_err();
    toxic.remove().unwrap();

    proxy.cut().unwrap();
    assert!(TcpStream::connect(proxy.address()).is_err());
    proxy.mend().unwrap();
    ping(proxy.address()).unwrap();

    let address = proxy.address().to_owned();
    drop(proxy);
    assert!(TcpStream::connect(address).is_err());
}
