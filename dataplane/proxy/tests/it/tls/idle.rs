//! What an idle session costs where TLS is spoken. The proxy runs in a process of its own: the tests of
//! this one would be measured with it.

use std::{
    env::{self, var},
    fs,
    io::{BufRead, BufReader, Lines, Write, stdin},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proxy::tls::ClientTls;

use super::support::{Authority, HOST, connect, echo, listener, trusting_client};
use crate::support::{self, Rig, round_trip};

const BACKEND: &str = "WSHA_TEST_IDLE_BACKEND";
const CA: &str = "WSHA_TEST_IDLE_CA";
const SIDES: &str = "WSHA_TEST_IDLE_SIDES";

/// Before what that process says.
const MARK: &str = "idle: ";

/// Sessions that are there before it is measured, and those that are measured.
const WARM: usize = 100;
const MEASURED: usize = 400;

/// Bytes that TLS on one side may add, so that a buffer which is kept shows.
const MOST: usize = 10 * 1024;

fn raise_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// The proxy, which says where it listens, and how much memory it has for each line that it reads.
fn proxy_alone(backend: &str) {
    let backend = backend.parse().unwrap();
    let (ca, sides) = (var(CA).unwrap(), var(SIDES).unwrap());
    let rig = Rig::with(&[backend], |pool| {
        if sides != "none" {
            pool.listeners[0].tls = Some(listener(&[Authority::new().identity(&[HOST])]));
        }
        if sides == "both" {
            pool.upstreams[0].tls = Some(ClientTls::new(HOST, ca.as_bytes(), None).unwrap());
        }
    });
    println!("{MARK}{}", rig.address);
    for _ in stdin().lines() {
        println!("{MARK}{}", resident());
    }
}

struct Alone {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Alone {
    fn start(backend: SocketAddr, ca: &str, sides: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "tls::idle::an_idle_session_owns_no_buffer",
                "--exact",
                "--nocapture",
            ])
            .env(BACKEND, backend.to_string())
            .env(CA, ca)
            .env(SIDES, sides)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            input,
            output: BufReader::new(output).lines(),
        }
    }

    fn says(&mut self) -> String {
        loop {
            let line = self.output.next().expect("the proxy ended").unwrap();
            if let Some((_, says)) = line.split_once(MARK) {
                return says.to_owned();
            }
        }
    }

    fn resident(&mut self) -> usize {
        self.input.write_all(b"\n").unwrap();
        self.says().parse().unwrap()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Bytes that a session costs, after it had something to do.
async fn cost(backend: SocketAddr, ca: &str, sides: &str) -> usize {
    let mut proxy = Alone::start(backend, ca, sides);
    let address = proxy.says().parse().unwrap();
    let message = "x".repeat(100_000);
    let client = Arc::new(trusting_client());
    let (mut plain, mut secure) = (Vec::new(), Vec::new());
    let mut before = 0;
    for n in 0..WARM + MEASURED {
        if n == WARM {
            before = proxy.resident();
        }
        if sides == "none" {
            plain.push(support::connect(address).await);
            round_trip(plain.last_mut().unwrap(), &message).await;
        } else {
            secure.push(connect(address, &client).await);
            round_trip(secure.last_mut().unwrap(), &message).await;
        }
    }
    proxy.resident().saturating_sub(before) / MEASURED
}

#[tokio::test]
async fn an_idle_session_owns_no_buffer() {
    raise_limit();
    // Started by itself it is the proxy.
    if let Ok(backend) = var(BACKEND) {
        return proxy_alone(&backend);
    }
    let authority = Authority::new();
    let plain_backend = support::echo().await;
    let secure_backend = echo(Authority::server(&authority.identity(&[HOST]))).await;
    let plain = cost(plain_backend, "", "none").await;
    let client = cost(plain_backend, "", "client").await;
    let both = cost(secure_backend, &authority.pem, "both").await;
    println!(
        "bytes per idle session: {plain} plain, {client} TLS to clients, {both} on both sides"
    );
    assert!(client < plain + MOST && both < plain + 2 * MOST);
}
