//! `wsha-dataplane proxy --listen A:P --upstream A:P`.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures_util::{SinkExt, StreamExt};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, Message},
};

use crate::support::{Process, SOON, WORKERS, close_code, connect, echo, round_trip, try_connect};

pub(crate) fn start() -> (Process, SocketAddr) {
    start_with(&[])
}

fn start_with(words: &[&str]) -> (Process, SocketAddr) {
    let upstream = echo().to_string();
    let all = [&["--listen", "127.0.0.1:0", "--upstream", &upstream], words].concat();
    let process = Process::start(&all);
    let event = process.logged("accepting");
    let address = event["address"].as_str().unwrap().parse().unwrap();
    (process, address)
}

/// A directory with `tls.crt` and `tls.key` for loopback; removed when dropped.
struct Certified {
    dir: PathBuf,
    connector: TlsConnector,
}

impl Certified {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsha-standalone-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
        fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        Self { dir, connector }
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Certified {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

impl Certified {
    /// A proxy that serves it, and listens where these words say.
    fn serve(&self, listen: &[&str]) -> Process {
        let (certificate, key) = (self.file("tls.crt"), self.file("tls.key"));
        let upstream = echo().to_string();
        let files = ["--certificate", &certificate, "--key", &key];
        Process::start(&[listen, &files, &["--upstream", &upstream]].concat())
    }

    async fn round_trip(&self, secure: SocketAddr) {
        let session = async {
            let stream = TcpStream::connect(secure).await.unwrap();
            let name = ServerName::from(secure.ip());
            let tls = self.connector.connect(name, stream).await.unwrap();
            let (mut ws, _) = client_async("wss://127.0.0.1/", tls).await.unwrap();
            ws.send(Message::text("sealed")).await.unwrap();
            assert_eq!(ws.next().await.unwrap().unwrap(), Message::text("sealed"));
        };
        timeout(SOON, session).await.unwrap();
    }
}

/// Where a proxy says next that it accepts clients.
fn accepting(process: &Process) -> SocketAddr {
    let event = process.logged("accepting");
    event["address"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn with_a_certificate_it_speaks_tls_beside() {
    let certified = Certified::new();
    let process = certified.serve(&["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"]);
    let (plain, secure) = (accepting(&process), accepting(&process));
    round_trip(&mut connect(plain).await, "in the clear").await;
    certified.round_trip(secure).await;
}

#[tokio::test]
async fn with_a_certificate_it_may_speak_tls_alone() {
    let certified = Certified::new();
    let process = certified.serve(&["--listen-tls", "127.0.0.1:0"]);
    certified.round_trip(accepting(&process)).await;
}

#[test]
fn tls_without_its_files_is_refused_in_words() {
    for (words, missing) in [
        ("--listen-tls 127.0.0.1:0", "--certificate"),
        ("--listen-tls 127.0.0.1:0 --certificate none", "--key"),
        (
            "--listen-tls 127.0.0.1:0 --certificate none --key none",
            "cannot read none",
        ),
        ("--certificate none --key none", "--listen-tls"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_wsha-dataplane"))
            .args("proxy --listen 127.0.0.1:0 --upstream 127.0.0.1:1".split(' '))
            .args(words.split(' '))
            .output()
            .unwrap();
        assert!(!output.status.success(), "{words}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(missing), "{words}: {message}");
    }
}

async fn told_to_end_by(signal: Signal) {
    let (process, address) = start();
    let mut clients = Vec::new();
    for i in 0..20 {
        let mut ws = connect(address).await;
        round_trip(&mut ws, &format!("hello {i}")).await;
        clients.push(ws);
    }
    process.signal(signal);
    for ws in &mut clients {
        assert_eq!(close_code(ws).await, 1001);
    }
    let left = process.logged("left");
    assert_eq!(left["sessions"], 20);
    assert!(process.ended().success());
}

#[tokio::test]
async fn sessions_are_told_when_the_service_is_stopped() {
    told_to_end_by(Signal::SIGTERM).await;
}

#[tokio::test]
async fn sessions_are_told_when_the_user_presses_ctrl_c() {
    told_to_end_by(Signal::SIGINT).await;
}

#[tokio::test]
async fn a_record_of_each_session_is_written_until_the_end() {
    let (process, address) = start_with(&["--access-log", "100"]);
    let mut ws = connect(address).await;
    round_trip(&mut ws, "noted").await;
    process.signal(Signal::SIGTERM);
    assert_eq!(close_code(&mut ws).await, 1001);
    assert_eq!(process.record()["closeCode"], 1001);
    assert!(process.ended().success());
}

#[tokio::test]
async fn it_takes_no_more_than_its_administrator_allows() {
    let (_process, address) = start_with(&["--max-sessions", "1"]);
    let mut first = connect(address).await;
    let refused = try_connect(address).await.unwrap_err();
    let Error::Http(answer) = refused else {
        panic!("{refused}");
    };
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    round_trip(&mut first, "undisturbed").await;

    let (_process, address) = start_with(&["--handshakes-per-second", "1"]);
    let _first = connect(address).await;
    // Half of the five seconds of a handshake are waited, and no more.
    let more: Vec<_> = (0..10).map(|_| try_connect(address)).collect();
    let more = futures_util::future::join_all(more).await;
    let refused = more.iter().filter(|one| one.is_err()).count();
    assert!((1..10).contains(&refused), "{refused} of 10");
}

#[test]
fn limits_that_cannot_be_are_refused_in_words() {
    for option in ["--max-sessions", "--handshakes-per-second"] {
        let output = Command::new(env!("CARGO_BIN_EXE_wsha-dataplane"))
            .args("proxy --listen 127.0.0.1:0 --upstream 127.0.0.1:1".split(' '))
            .args([option, "0"])
            .output()
            .unwrap();
        assert!(!output.status.success());
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(option), "{message}");
        assert!(message.contains("1000000"), "what is possible: {message}");
    }
}

#[tokio::test]
async fn it_serves_without_any_privilege() {
    let (process, address) = start();
    round_trip(&mut connect(address).await, "confined").await;
    let root = format!("/proc/{}", process.pid());
    let mut threads = 0;
    for thread in fs::read_dir(format!("{root}/task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(u64::from_str_radix(&value(set), 16), Ok(0), "{set}");
        }
        assert_eq!(value("NoNewPrivs:"), "1");
        assert_eq!(value("Seccomp:"), "2", "filter mode (seccomp(2))");
        threads += 1;
    }
    assert!(threads > WORKERS, "each worker was looked at");
    let limits = fs::read_to_string(format!("{root}/limits")).unwrap();
    let core = limits.lines().find(|line| line.contains("core file size"));
    let numbers: Vec<_> = core.unwrap().split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"]);
}

#[test]
fn a_number_of_workers_that_cannot_be_is_refused_in_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_wsha-dataplane"))
        .args([
            "proxy",
            "--listen",
            "127.0.0.1:0",
            "--upstream",
            "127.0.0.1:1",
        ])
        .args(["--workers", "0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("--workers"), "{message}");
    assert!(message.contains("64"), "what is possible: {message}");
}
