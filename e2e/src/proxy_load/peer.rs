//! The proxies that are compared: how each is configured and started.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use super::envoy;
use super::load::Transport;
use super::tls::{Files, replace};
use crate::lab::{Process, Room, children};
use crate::{tools, wait};

/// A proxy.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// Ours.
    Wsha,
    /// Ours with `--io io_uring`: no goal is set for it.
    #[value(name = "wsha-io-uring")]
    WshaIoUring,
    /// nginx with its default buffers of 4 KiB.
    Nginx,
    /// nginx with buffers of 64 KiB.
    #[value(name = "nginx-64k")]
    Nginx64k,
    /// `HAProxy`, under its master.
    Haproxy,
    /// Envoy, its servers in a file that it watches.
    Envoy,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wsha => "wsha",
            Self::WshaIoUring => "wsha io_uring",
            Self::Nginx => "nginx",
            Self::Nginx64k => "nginx 64k",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
        })
    }
}

/// What a proxy is to do.
#[derive(Clone, Debug)]
pub struct Task {
    /// Where it accepts clients.
    pub listen: SocketAddrV4,
    /// Where it accepts those that speak TLS, and with which certificate.
    pub tls: Option<(SocketAddrV4, Files)>,
    /// To which servers it brings them.
    pub servers: Vec<SocketAddr>,
    /// On how many threads or processes.
    pub workers: usize,
    /// Whether it is to write a record of each session, which is asked of wsha alone.
    pub records: bool,
}

impl Task {
    /// On addresses of loopback that are free now, without records.
    pub fn new(servers: &[SocketAddr], files: &Files, workers: usize) -> Result<Self> {
        Ok(Self {
            listen: free_address()?,
            tls: Some((free_address()?, files.clone())),
            servers: servers.to_vec(),
            workers,
            records: false,
        })
    }
}

/// A proxy at work.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub peer: Peer,
    task: Task,
    process: Process,
}

impl Running {
    /// Starts `peer` in `room` on `cores` and waits until it accepts.
    pub fn start(
        room: &Room,
        peer: Peer,
        task: &Task,
        wsha: &Path,
        cores: &CpuSet,
    ) -> Result<Self> {
        let command = peer.command(task, room.dir(), wsha)?;
        // What is started inherits the cores of the thread that starts it.
        let own = sched_getaffinity(Pid::from_raw(0))?;
        sched_setaffinity(Pid::from_raw(0), cores)?;
        let process = room.spawn(&peer.file(), command);
        sched_setaffinity(Pid::from_raw(0), &own)?;
        let process = process?;
        let what = format!("{peer} to accept");
        wait::until(&what, Duration::from_secs(20), || {
            ensure!(process.is_running(), "{peer} ended: {}", process.log_tail());
            Ok(TcpStream::connect(task.listen).is_ok().then_some(()))
        })?;
        Ok(Self {
            peer,
            task: task.clone(),
            process,
        })
    }

    /// Where it accepts clients that come this way.
    pub fn entry(&self, transport: Transport) -> Result<SocketAddrV4> {
        if transport == Transport::Plain {
            return Ok(self.task.listen);
        }
        let tls = self.task.tls.as_ref().map(|(listen, _)| *listen);
        tls.with_context(|| format!("{} was started without TLS", self.peer))
    }

    /// All of its processes.
    pub fn processes(&self) -> Vec<Pid> {
        tree(self.process.pid())
    }

    /// The end of its log, for messages about it.
    pub fn log(&self) -> String {
        self.process.log_tail()
    }
}

/// A process and all that descend from it.
pub fn tree(root: Pid) -> Vec<Pid> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children(*pid));
        next += 1;
    }
    found
}

/// An address of loopback that is free now.
fn free_address() -> Result<SocketAddrV4> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => anyhow::bail!("{address} is no IPv4 address"),
    }
}

impl Peer {
    /// Whether it is measured with what comes this way: nginx knows no WebSocket over HTTP/2, and what comes by TLS
    /// is not read by `io_uring`.
    pub fn takes(self, transport: Transport) -> bool {
        match self {
            Self::Nginx | Self::Nginx64k => !matches!(transport, Transport::Http2 { .. }),
            Self::WshaIoUring => transport == Transport::Plain,
            Self::Wsha | Self::Haproxy | Self::Envoy => true,
        }
    }

    /// Whether it is another one, set up differently in what only CPU time and memory tell.
    pub fn is_variant(self) -> bool {
        matches!(self, Self::Nginx64k | Self::WshaIoUring)
    }

    /// Name of its files.
    fn file(self) -> String {
        self.to_string().to_lowercase().replace(' ', "-")
    }

    /// Writes its configuration to `dir`; the command that starts it.
    pub fn command(self, task: &Task, dir: &Path, wsha: &Path) -> Result<Command> {
        let file = self.configure(task, dir)?;
        let mut command = Command::new(match self {
            Self::Wsha | Self::WshaIoUring => wsha.to_owned(),
            Self::Nginx | Self::Nginx64k => tools::need("nginx", "nginx-light")?,
            Self::Haproxy => tools::need("haproxy", "haproxy")?,
            Self::Envoy => tools::envoy()?,
        });
        match self {
            Self::Wsha | Self::WshaIoUring => {
                command.args(["proxy", "--workers", &task.workers.to_string()]);
                if self == Self::WshaIoUring {
                    command.args(["--io", "io_uring"]);
                }
                if task.records {
                    command.args(["--access-log", "100"]);
                }
                command.args(["--listen", &task.listen.to_string()]);
                if let Some((listen, files)) = &task.tls {
                    command.args(["--listen-tls", &listen.to_string()]);
                    command.arg("--certificate").arg(&files.certificate);
                    command.arg("--key").arg(&files.key);
                }
                for server in &task.servers {
                    command.args(["--upstream", &server.to_string()]);
                }
            }
            Self::Nginx | Self::Nginx64k => {
                command.arg("-c").arg(&file).arg("-p").arg(dir);
                command.arg("-e").arg(dir.join("nginx-error.log"));
            }
            Self::Haproxy => {
                command.arg("-W").arg("-f").arg(&file);
                command.arg("-p").arg(dir.join("haproxy.pid"));
            }
            Self::Envoy => {
                command.arg("-c").arg(&file);
                command.args(["--concurrency", &task.workers.to_string(), "-l", "error"]);
                command.args(["--disable-hot-restart"]);
            }
        }
        Ok(command)
    }

    /// Writes its configuration anew; which file it is.
    pub fn configure(self, task: &Task, dir: &Path) -> Result<PathBuf> {
        let name = self.file();
        let (file, text) = match self {
            Self::Wsha | Self::WshaIoUring => return Ok(PathBuf::new()),
            Self::Nginx | Self::Nginx64k => (dir.join(format!("{name}.conf")), self.nginx(task)?),
            Self::Haproxy => (dir.join("haproxy.cfg"), haproxy(task)?),
            Self::Envoy => (dir.join("envoy.json"), envoy::configure(task, dir)?),
        };
        replace(&file, &text)?;
        Ok(file)
    }

    fn nginx(self, task: &Task) -> Result<String> {
        let buffers = match self {
            Self::Nginx64k => {
                "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"
            }
            _ => "proxy_buffer_size 4k; proxy_buffers 8 4k;",
        };
        let mut servers = String::new();
        for server in &task.servers {
            write!(servers, " server {server};")?;
        }
        let (listen, workers) = (task.listen, task.workers);
        let mut listen_tls = String::new();
        if let Some((listen, files)) = &task.tls {
            let (chain, key) = (files.certificate.display(), files.key.display());
            write!(
                listen_tls,
                "listen {listen} ssl backlog=4096 reuseport; ssl_certificate {chain}; ssl_certificate_key {key};\n\
                 ssl_protocols TLSv1.3;\n"
            )?;
        }
        let pid = self.file();
        // It begins to close connections when a sixteenth of its places is left, so it has more than it needs.
        Ok(format!(
            "daemon off; worker_processes {workers}; worker_rlimit_nofile 20000; worker_shutdown_timeout 1h;\n\
             pid {pid}.pid;\n\
             events {{ use epoll; worker_connections 40000; multi_accept on; }}\n\
             http {{\n\
             access_log off; server_tokens off; tcp_nodelay on;\n\
             map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}\n\
             upstream app {{{servers} }}\n\
             server {{\n\
             listen {listen} backlog=4096 reuseport;\n\
             {listen_tls}\
             location / {{\n\
             proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Host $host;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;\n\
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             proxy_read_timeout 1h; proxy_send_timeout 1h;\n\
             {buffers}\n\
             }} }} }}\n"
        ))
    }
}

fn haproxy(task: &Task) -> Result<String> {
    let mut servers = String::new();
    for (number, server) in task.servers.iter().enumerate() {
        writeln!(servers, "  server s{number} {server}")?;
    }
    let (listen, workers) = (task.listen, task.workers);
    let mut bind_tls = String::new();
    if let Some((listen, files)) = &task.tls {
        let both = files.both.display();
        writeln!(
            bind_tls,
            "  bind {listen} backlog 4096 ssl crt {both} ssl-min-ver TLSv1.3 alpn h2,http/1.1"
        )?;
    }
    Ok(format!(
        "global\n  nbthread {workers}\n  maxconn 9800\n  hard-stop-after 1h\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout http-request 10s\n  timeout client 1h\n  \
         timeout server 1h\n  timeout tunnel 1h\n\
         frontend f\n  bind {listen} backlog 4096\n{bind_tls}  default_backend b\n\
         backend b\n  balance roundrobin\n  option forwardfor\n{servers}"
    ))
}
