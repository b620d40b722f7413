//! Clients and servers that people use, each with each: by way of the proxy they see what they see without it.

mod browser;
mod rust;

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::lab::{Host, PORT, Process, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Cluster, Endpoint, Gateway, Manifest, Pool, in_lab, inside, skipped};
use e2e::{tools, wait};
use rcgen::{CertificateParams, KeyPair};

/// Where the servers listen, beside the article's.
const SERVER_PORT: u16 = 8011;

/// Where the proxy speaks TLS, and the Secret that its certificate is in.
const SECURE_PORT: u16 = 8443;
const SECRET: &str = "clients-tls";

/// Address of the third pool.
const VIP_THIRD: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 113);

/// What is tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// node's module `ws`.
    Node,
    /// Python's module `websockets`.
    Python,
    /// tungstenite, in this process.
    Rust,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Node, Self::Python, Self::Rust];

    /// Last byte of the host that has its server, and the pool that leads there.
    fn place(self) -> (u8, &'static str, Ipv4Addr) {
        match self {
            Self::Node => (16, "node", VIP_SERVER1),
            Self::Python => (17, "python", VIP_SERVER2),
            Self::Rust => (18, "rust", VIP_THIRD),
        }
    }

    fn direct(self) -> SocketAddrV4 {
        let (last, ..) = self.place();
        SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, last), SERVER_PORT)
    }

    fn proxied(self) -> SocketAddrV4 {
        let (.., address) = self.place();
        SocketAddrV4::new(address, PORT)
    }

    fn secure(self) -> SocketAddrV4 {
        SocketAddrV4::new(*self.proxied().ip(), SECURE_PORT)
    }

    /// The program with its mode and what that needs.
    fn command(self, words: &[&str]) -> Result<Command> {
        let mut command = match self {
            Self::Node | Self::Rust => {
                let mut node = Command::new("node");
                node.env("NODE_PATH", tools::install_backend()?)
                    .arg(tools::backend_dir().join("echo.js"));
                node
            }
            Self::Python => {
                let mut python = Command::new(tools::need("python3", "python3")?);
                python
                    .env("PYTHONPATH", tools::install_websockets()?)
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    .arg(own("peer.py"));
                python
            }
        };
        command.args(words);
        Ok(command)
    }

    /// What a client of this kind saw, one line for each thing it tried.
    fn attempt(self, host: &Host, at: SocketAddrV4) -> Result<String> {
        if self == Self::Rust {
            return inside(host, || rust::attempt(at));
        }
        let tried = self.command(&["try", &format!("ws://{at}/")])?;
        let mut bounded = Command::new("timeout");
        bounded.arg("120").arg(tried.get_program());
        bounded.args(tried.get_args());
        for (name, value) in tried.get_envs() {
            bounded.env(name, value.unwrap_or_default());
        }
        let output = host.output(bounded)?;
        ensure!(
            output.status.success(),
            "{}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Whether it speaks permessage-deflate (RFC 7692).
    fn compresses(self) -> bool {
        self != Self::Rust
    }
}

/// A file of this test.
fn own(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

/// What each client must see of each server.
fn expected(compressed: bool) -> String {
    let extension = if compressed { "permessage-deflate" } else { "" };
    let lines = [
        "subprotocol: chat",
        "text: same",
        "empty: same",
        "binary: same",
        "large: same",
        "fragmented: in three parts",
        "ping: mine",
        "pinged: pong yours",
        "closing: 4001",
        "closed with: 4001 my reason",
        "closed by: 4002 their reason",
        &format!("extensions: {extension}"),
        "compressed: same",
        "closing: 1000",
    ];
    trimmed(&lines.join("\n"))
}

/// Where there is nothing to say, one client writes a blank and another none.
fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// Servers of all kinds, a pool for each.
struct Servers {
    _processes: Vec<Process>,
}

impl Servers {
    fn start(cluster: &mut Cluster) -> Result<Self> {
        let mut processes = Vec::new();
        let mut pools = Vec::new();
        for kind in Kind::ALL {
            let (last, name, address) = kind.place();
            let host = &cluster.lab.backends()[usize::from(last - 16)];
            let own = host.address().to_string();
            if kind == Kind::Rust {
                let listener = inside(host, || Ok(std::net::TcpListener::bind(kind.direct())?))?;
                rust::serve(listener, own)?;
            } else {
                let server = kind.command(&["serve", &own, &SERVER_PORT.to_string()])?;
                processes.push(host.spawn(name, server)?);
            }
            let home = if kind == Kind::Python { 2 } else { 1 };
            let entry = format!("address: {address}, preferredNodeName: server{home}");
            let endpoint = Endpoint {
                port: SERVER_PORT,
                ..Endpoint::backend(last)
            };
            pools.push(Pool {
                endpoints: vec![endpoint],
                secure: vec![("wss", SECURE_PORT, SECRET)],
                ..Pool::new(name, vec![entry])
            });
        }
        for kind in Kind::ALL {
            listens(cluster, kind.direct().into(), &processes)?;
        }
        cluster.apply(&Manifest::of(pools))?;
        for gateway in Gateway::BOTH {
            issue(&cluster.tls_dir(gateway).join("default").join(SECRET))?;
            cluster.start(gateway)?;
        }
        cluster.wait_home()?;
        for at in Kind::ALL.map(|kind| [kind.proxied(), kind.secure()]) {
            for at in at {
                listens(cluster, at.into(), &processes)?;
            }
        }
        Ok(Self {
            _processes: processes,
        })
    }
}

/// Puts a certificate and its key in this directory.
fn issue(directory: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["clients.example".to_owned()])?;
    fs::create_dir_all(directory)?;
    fs::write(
        directory.join("tls.crt"),
        certificate.self_signed(&key)?.pem(),
    )?;
    let file = directory.join("tls.key");
    fs::write(&file, key.serialize_pem())?;
    Ok(fs::set_permissions(&file, Permissions::from_mode(0o600))?)
}

fn listens(cluster: &Cluster, at: SocketAddr, processes: &[Process]) -> Result<()> {
    wait::until(&format!("{at} to listen"), Duration::from_mins(1), || {
        for process in processes {
            ensure!(process.is_running(), "it ended: {}", process.log_tail());
        }
        let connected = inside(cluster.lab.client(), || Ok(TcpStream::connect(at).is_ok()))?;
        Ok(connected.then_some(()))
    })
}

/// A lab with all servers, where their modules can be installed.
fn with_servers(test: &str, body: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    in_lab(test, |cluster| {
        if let Err(error) = tools::install_websockets() {
            skipped(test, &format!("needs Python's websockets: {error:#}"));
            return Ok(());
        }
        let _servers = Servers::start(cluster)?;
        body(cluster)
    })
}

#[test]
fn each_client_and_server_speak_through_the_proxy_as_they_do_directly() -> Result<()> {
    let test = "each_client_and_server_speak_through_the_proxy_as_they_do_directly";
    with_servers(test, |cluster| {
        let host = cluster.lab.client();
        for (client, server) in Kind::ALL
            .into_iter()
            .flat_map(|client| Kind::ALL.map(|server| (client, server)))
        {
            let expected = expected(client.compresses() && server.compresses());
            for (how, at) in [("directly", server.direct()), ("proxied", server.proxied())] {
                let seen = client.attempt(host, at)?;
                let seen = trimmed(&seen);
                ensure!(
                    seen == expected,
                    "{client:?} to {server:?} {how} saw\n{seen}and should see\n{expected}"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn a_browser_speaks_through_the_proxy_as_it_does_directly() -> Result<()> {
    let test = "a_browser_speaks_through_the_proxy_as_it_does_directly";
    with_servers(test, |cluster| {
        let chromium = match tools::install_chromium() {
            Ok(chromium) => chromium,
            Err(error) => {
                skipped(test, &format!("needs chromium: {error:#}"));
                return Ok(());
            }
        };
        let host = cluster.lab.client();
        let mut browsers = 0;
        for server in Kind::ALL {
            let expected = browser::expected(server.compresses());
            for (how, url) in [
                ("directly", format!("ws://{}/", server.direct())),
                ("proxied", format!("ws://{}/", server.proxied())),
                ("by HTTP/2", format!("wss://{}/", server.secure())),
            ] {
                let seen = browser::attempt(host, &chromium, &url)?;
                ensure!(
                    seen == expected,
                    "a browser to {server:?} {how} saw\n{seen}and should see\n{expected}"
                );
            }
            // The page's own request, and a stream for each of its sessions.
            let mut streams = 0;
            for gateway in Gateway::BOTH {
                streams += cluster.count(gateway, "wsha_proxy_http2_streams_total", &[])?;
            }
            browsers += 1;
            ensure!(
                streams >= 3 * browsers,
                "{streams} streams by {browsers} browsers: their sessions had connections of their own"
            );
        }
        Ok(())
    })
}
