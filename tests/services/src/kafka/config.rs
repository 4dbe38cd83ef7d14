//! What a broker is started with: its properties and its certificate.

use std::fs;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::distr::Alphanumeric;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tidelock_connector::Result;

use crate::watch::failed;

/// The SCRAM user that every broker knows.
pub(super) const USER: (&str, &str) = ("alice", "alice-secret");

/// The ports of one broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) plain: u16,
    pub(super) sasl: u16,
    pub(super) controller: u16,
}

/// The properties file of a single KRaft node.
///
/// `bind` is the address to listen on, `dir` the folder of the broker as the
/// broker sees it.
pub(super) fn properties(ports: Ports, bind: &str, dir: &Path) -> String {
    let Ports { plain, sasl, controller } = ports;
    let dir = dir.display();
    format!(
        "\
node.id=1
process.roles=broker,controller
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://{bind}:{plain},SASL_SSL://{bind}:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{sasl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
log.dirs={dir}/data

# Clients meet TLS and SCRAM as they do in production.
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={dir}/server.pem

# One node.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# Tests join groups at once, and kill members that must be missed soon.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=300
# With the newer group protocol it is the broker that says.
group.consumer.session.timeout.ms=1500
group.consumer.heartbeat.interval.ms=300

# A misspelt topic is an error.
auto.create.topics.enable=false
"
    )
}

/// Makes a certificate authority and a certificate for this machine's loopback
/// addresses: `server.pem` (key and certificate) and `ca.pem` in `dir`.
pub(super) fn certificates(dir: &Path) -> Result<PathBuf> {
    let crypto = |e: rcgen::Error| failed("cannot make a certificate").source(e);
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "Tidelock test authority");
    let authority_key = KeyPair::generate().map_err(crypto)?;
    let authority_cert = authority.self_signed(&authority_key).map_err(crypto)?;
    let issuer = Issuer::new(authority, authority_key);

    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let mut server = CertificateParams::new(names).map_err(crypto)?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    let key = KeyPair::generate().map_err(crypto)?;
    let cert = server.signed_by(&key, &issuer).map_err(crypto)?;

    let ca = dir.join("ca.pem");
    write(&ca, &authority_cert.pem())?;
    let chain = format!("{}{}{}", key.serialize_pem(), cert.pem(), authority_cert.pem());
    write(&dir.join("server.pem"), &chain)?;
    Ok(ca)
}

/// A cluster id as Kafka wants it: 16 bytes in URL-safe base 64.
pub(super) fn cluster_id() -> String {
    let mut id: String = rand::rng().sample_iter(Alphanumeric).take(21).map(char::from).collect();
    // The last of 22 digits has only two bits left to say.
    id.push('A');
    id
}

pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .map_err(|e| failed("cannot write a file of the broker").object(path.display()).source(e))
}
