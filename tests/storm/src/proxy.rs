//! A proxy between worker and store that lies by a seed.
//!
//! A proxy for bytes can delay, cut and throttle. The faults that break commit
//! protocols are of another kind: *the request was applied, and the client was
//! told that it failed*. This one understands requests, so it can do that.
//!
//! Every request is forwarded byte for byte, the `Host` header too, which is
//! part of an S3 signature. Each client connection has a connection of its own
//! to the store, and when it cuts one it cuts both: a store that minds a
//! client's death must notice it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelock_connector::{Error, ErrorKind, Result};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::http::{self, Message};

/// How many requests are remembered.
const LOG_MAX: usize = 100_000;

const ERROR: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing unusual.
    Pass,
    /// It is forwarded after a while.
    Delay,
    /// The connection ends, and the store never hears of it.
    CutBefore,
    /// The store gets half of it.
    CutMidway,
    /// The store does it; the client is told 500.
    AppliedThenError,
    /// The store does it; the client's connection ends.
    AppliedThenCut,
    /// The client's connection ends; the store gets it a while later.
    CutThenLate,
}

impl Fault {
    /// Every one that is not [`Pass`](Self::Pass).
    pub const ALL: [Self; 6] = [
        Self::Delay,
        Self::CutBefore,
        Self::CutMidway,
        Self::AppliedThenError,
        Self::AppliedThenCut,
        Self::CutThenLate,
    ];
}

/// How often each fault happens, in requests of a thousand; the rest passes.
#[derive(Debug, Clone, Default)]
pub struct Rates(pub BTreeMap<Fault, u32>);

impl Rates {
    /// Nothing happens.
    pub fn none() -> Self {
        Self::default()
    }

    /// Every fault equally often.
    pub fn each(per_thousand: u32) -> Self {
        Self(Fault::ALL.into_iter().map(|fault| (fault, per_thousand)).collect())
    }

    fn choose(&self, random: &mut StdRng) -> Fault {
        let mut left = random.random_range(0..1000);
        for (fault, rate) in &self.0 {
            if left < *rate {
                return *fault;
            }
            left -= rate;
        }
        Fault::Pass
    }
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    seed: u64,
    requests: AtomicU64,
    rates: Mutex<Rates>,
    counts: Mutex<BTreeMap<Fault, u64>>,
    log: Mutex<Vec<Asked>>,
}

/// One request, as far as it tells what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query, as they were sent.
    pub target: String,
    /// The server copies from there.
    pub copied_from: Option<String>,
}

/// A running proxy; it ends when this is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: String,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl FaultProxy {
    /// Starts a proxy on a free loopback port, in front of `upstream`
    /// (`host:port`).
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn start(upstream: &str, seed: u64, rates: Rates) -> Result<Self> {
        let failed =
            |e: io::Error| Error::new(ErrorKind::Other, "cannot start the fault proxy").source(e);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("fault-proxy")
            .build()
            .map_err(failed)?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?.to_string();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            seed,
            requests: AtomicU64::new(0),
            rates: Mutex::new(rates),
            counts: Mutex::default(),
            log: Mutex::default(),
        });
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, runtime: Some(runtime) })
    }

    /// The address as a URL, for S3 clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes how often faults happen, from the next request on.
    pub fn set_rates(&self, rates: Rates) {
        *self.shared.rates.lock().unwrap_or_else(PoisonError::into_inner) = rates;
    }

    /// How often each fault has happened.
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every request since the last call. The oldest are forgotten when nobody
    /// asks for long.
    pub fn take_log(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let shared = Arc::clone(&shared);
                // A connection that breaks is one more fault to live with.
                tokio::spawn(async move { serve(client, &shared).await.ok() });
            }
            // Out of descriptors, perhaps: somebody will close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One client, request by request.
async fn serve(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = BufReader::new(from_client);
    let mut store = None;
    while let Some(request) = http::request(&mut from_client).await? {
        let (fault, wait) = shared.decide();
        shared.note(&request);
        match fault {
            Fault::CutBefore => return Ok(()),
            Fault::CutMidway => {
                let half = [request.head.as_slice(), &request.body].concat();
                let store = connect(&mut store, shared).await?;
                store.write_all(&half[..half.len() / 2]).await?;
                return Ok(());
            }
            Fault::CutThenLate => {
                drop((from_client, to_client));
                tokio::time::sleep(wait).await;
                let mut store = None;
                forward(&mut store, &request, shared).await?;
                return Ok(());
            }
            Fault::Delay => tokio::time::sleep(wait).await,
            Fault::Pass | Fault::AppliedThenError | Fault::AppliedThenCut => {}
        }
        let response = forward(&mut store, &request, shared).await?;
        match fault {
            Fault::AppliedThenCut => return Ok(()),
            Fault::AppliedThenError => to_client.write_all(ERROR).await?,
            _ => {
                to_client.write_all(&response.head).await?;
                to_client.write_all(&response.body).await?;
            }
        }
        if request.closes() || response.closes() {
            return Ok(());
        }
    }
    Ok(())
}

async fn connect<'a>(
    store: &'a mut Option<BufReader<TcpStream>>,
    shared: &Shared,
) -> io::Result<&'a mut BufReader<TcpStream>> {
    match store {
        Some(open) => Ok(open),
        None => {
            let fresh = TcpStream::connect(&shared.upstream).await?;
            fresh.set_nodelay(true)?;
            Ok(store.insert(BufReader::new(fresh)))
        }
    }
}

async fn forward(
    store: &mut Option<BufReader<TcpStream>>,
    request: &Message,
    shared: &Shared,
) -> io::Result<Message> {
    let store = connect(store, shared).await?;
    store.write_all(&request.head).await?;
    store.write_all(&request.body).await?;
    http::response(store, request.method()).await
}

impl Shared {
    fn note(&self, request: &Message) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let asked = Asked {
            method: text(request.method()),
            target: text(request.target()),
            copied_from: request.header("x-amz-copy-source").map(str::to_owned),
        };
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() >= LOG_MAX {
            log.drain(..LOG_MAX / 2);
        }
        log.push(asked);
    }

    /// The fault of the next request, and how long it waits if it does.
    fn decide(&self) -> (Fault, Duration) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut random =
            StdRng::seed_from_u64(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let fault = self.rates.lock().unwrap_or_else(PoisonError::into_inner).choose(&mut random);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(fault).or_default() += 1;
        (fault, Duration::from_millis(random.random_range(20..1_500)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// A server that counts the complete requests that it gets, and answers
    /// with the request's `Host` header.
    fn upstream() -> (String, Arc<AtomicU64>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let applied = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&applied);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let count = Arc::clone(&count);
                std::thread::spawn(move || answer(client.unwrap(), &count));
            }
        });
        (address, applied)
    }

    fn answer(mut client: std::net::TcpStream, count: &AtomicU64) {
        let mut seen = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = client.read(&mut bytes) {
            seen.extend_from_slice(&bytes[..read]);
            while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(seen[..end].to_vec()).unwrap();
                let length: usize =
                    head.split("content-length: ").nth(1).map_or(0, |n| n.trim().parse().unwrap());
                if seen.len() < end + 4 + length {
                    break;
                }
                seen.drain(..end + 4 + length);
                count.fetch_add(1, Ordering::SeqCst);
                let host = head.lines().find(|line| line.starts_with("host")).unwrap();
                let text =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{host}", host.len());
                client.write_all(text.as_bytes()).unwrap();
            }
        }
    }

    /// What a client sees of one request, and how often it was applied.
    fn one(fault: Option<Fault>) -> (String, u64) {
        let (address, applied) = upstream();
        let rates = Rates(fault.into_iter().map(|fault| (fault, 1000)).collect());
        let proxy = FaultProxy::start(&address, 7, rates).unwrap();
        let mut client = std::net::TcpStream::connect(&proxy.address).unwrap();
        client
            .write_all(b"PUT /a HTTP/1.1\r\nhost: signed\r\ncontent-length: 200000\r\n\r\n")
            .unwrap();
        // The proxy may be gone before all of it was sent.
        let _ = client.write_all(&vec![b'x'; 200_000]);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let mut seen = String::new();
        let _ = client.read_to_string(&mut seen);
        crate::pause(Duration::from_millis(if fault == Some(Fault::CutThenLate) {
            2_000
        } else {
            200
        }));
        assert_eq!(proxy.counts().get(&fault.unwrap_or(Fault::Pass)), Some(&1));
        (seen, applied.load(Ordering::SeqCst))
    }

    #[test]
    fn each_fault_is_what_it_says() {
        for fault in [None, Some(Fault::Delay)] {
            let (seen, applied) = one(fault);
            assert!(seen.starts_with("HTTP/1.1 200") && seen.ends_with("host: signed"), "{seen}");
            assert_eq!(applied, 1);
        }
        assert_eq!(one(Some(Fault::CutBefore)), (String::new(), 0));
        assert_eq!(one(Some(Fault::CutMidway)), (String::new(), 0));
        let (seen, applied) = one(Some(Fault::AppliedThenError));
        assert!(seen.starts_with("HTTP/1.1 500"), "{seen}");
        assert_eq!(applied, 1);
        assert_eq!(one(Some(Fault::AppliedThenCut)), (String::new(), 1));
        assert_eq!(one(Some(Fault::CutThenLate)), (String::new(), 1));
    }

    #[test]
    fn one_connection_serves_many_requests() {
        let (address, applied) = upstream();
        let proxy = FaultProxy::start(&address, 7, Rates::none()).unwrap();
        let mut client = std::net::TcpStream::connect(&proxy.address).unwrap();
        for _ in 0..20 {
            client.write_all(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
            let mut answer = [0; 45];
            client.read_exact(&mut answer).unwrap();
            assert!(answer.ends_with(b"host: h"), "{}", String::from_utf8_lossy(&answer));
        }
        assert_eq!(applied.load(Ordering::SeqCst), 20);
        let (method, target) = ("GET".to_owned(), "/a".to_owned());
        let asked = Asked { method, target, copied_from: None };
        assert_eq!(proxy.take_log(), vec![asked; 20]);
        assert!(proxy.take_log().is_empty());
    }

    #[test]
    fn a_seed_chooses_the_same_faults_again() {
        let choices = |seed| {
            let shared = Shared {
                upstream: String::new(),
                seed,
                requests: AtomicU64::new(0),
                rates: Mutex::new(Rates::each(100)),
                counts: Mutex::default(),
                log: Mutex::default(),
            };
            (0..200).map(|_| shared.decide().0).collect::<Vec<_>>()
        };
        assert_eq!(choices(1), choices(1));
        assert_ne!(choices(1), choices(2));
        let passed = choices(1).iter().filter(|fault| **fault == Fault::Pass).count();
        assert!((40..120).contains(&passed), "400 of 1000 pass: {passed} of 200");
    }
}
