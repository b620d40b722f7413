//! A proxy on server1 of a lab, with the article's servers behind it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::super::peer::{Peer, Task, tree};
use super::certificates::Certificates;
use super::{Edit, PATIENCE};
use crate::lab::{BACKEND_PORT, Lab, PORT, Process, VIP_SERVER1};
use crate::testing::{Cluster, Endpoint, Gateway, Manifest, Part, Session};
use crate::wait;

/// Where clients speak TLS.
const PORT_TLS: u16 = 8443;

/// The Secret that wsha's listener names.
const SECRET: &str = "bench-tls";

/// Sessions dialled at once.
const PORTION: usize = 100;

#[derive(Debug)]
enum Proxy {
    /// On both gateways, as it is meant to be.
    Wsha(Box<Manifest>),
    Other(Peer, Process, Task),
}

#[derive(Debug)]
pub(super) struct Stage {
    edit: Edit,
    certificates: Certificates,
    // It ends before the lab does.
    proxy: Proxy,
    cluster: Cluster,
}

impl Stage {
    /// Waits until it accepts.
    pub(super) fn start(peer: Peer, edit: Edit, wsha: &Path) -> Result<Self> {
        let mut cluster = Cluster::new(wsha.to_owned())?;
        if edit == Edit::Server {
            cluster.backends.add_fourth(&cluster.lab)?;
        }
        let host = cluster.lab.server1();
        let dirs = match peer {
            Peer::Wsha => Gateway::BOTH
                .map(|gateway| cluster.tls_dir(gateway).join("default").join(SECRET))
                .to_vec(),
            _ => vec![host.dir().to_owned()],
        };
        let certificates = Certificates::new(&cluster.lab, dirs)?;
        let proxy = if peer == Peer::Wsha {
            let mut manifest = Manifest::article();
            manifest.pool().secure.push(("wss", PORT_TLS, SECRET));
            cluster.apply(&manifest)?;
            cluster.start_both()?;
            Proxy::Wsha(Box::new(manifest))
        } else {
            let listen_tls = SocketAddrV4::new(host.address(), PORT_TLS);
            let task = Task {
                listen: SocketAddrV4::new(host.address(), PORT),
                tls: Some((listen_tls, certificates.files.clone())),
                servers: servers(&cluster.lab, 3),
                workers: 1,
                records: false,
            };
            let mut command = peer.command(&task, host.dir(), wsha)?;
            command.current_dir(host.dir());
            Proxy::Other(peer, host.spawn(&peer.to_string(), command)?, task)
        };
        let stage = Self {
            edit,
            certificates,
            proxy,
            cluster,
        };
        wait::until(&format!("{peer} to accept"), PATIENCE, || {
            Ok(stage.open().ok())
        })
        .with_context(|| stage.log())?;
        Ok(stage)
    }

    fn address(&self) -> Ipv4Addr {
        match &self.proxy {
            Proxy::Wsha(_) => VIP_SERVER1,
            Proxy::Other(_, _, task) => *task.listen.ip(),
        }
    }

    fn log(&self) -> String {
        match &self.proxy {
            Proxy::Wsha(_) => self.cluster.logs(),
            Proxy::Other(_, process, _) => process.log_tail(),
        }
    }

    /// Opens a session as the edit concerns it.
    pub(super) fn open(&self) -> Result<Session> {
        let (client, address) = (self.cluster.lab.client(), self.address());
        match self.edit {
            Edit::Server => Session::open(client, address),
            Edit::Certificate => {
                let trust = &self.certificates.trust;
                Session::open_tls(client, address, PORT_TLS, trust)
            }
        }
    }

    pub(super) fn open_many(&self, count: usize) -> Result<Vec<Session>> {
        if self.edit == Edit::Certificate {
            return (0..count).map(|_| self.open()).collect();
        }
        let (client, address) = (self.cluster.lab.client(), self.address());
        let mut sessions = Vec::new();
        while sessions.len() < count {
            let portion = PORTION.min(count - sessions.len());
            sessions.extend(Session::open_many(client, address, PORT, portion)?);
        }
        Ok(sessions)
    }

    /// The processes that face the clients.
    pub(super) fn processes(&self) -> Vec<Pid> {
        match &self.proxy {
            Proxy::Wsha(_) => self.cluster.pids(Gateway::One, Part::Proxy),
            Proxy::Other(_, process, _) => tree(process.pid()),
        }
    }

    /// Does it as an administrator would.
    pub(super) fn edit(&mut self) -> Result<()> {
        if self.edit == Edit::Certificate {
            self.certificates.replace()?;
        }
        match &mut self.proxy {
            Proxy::Wsha(manifest) => {
                if self.edit == Edit::Server {
                    manifest.pool().endpoints.push(Endpoint::backend(19));
                    self.cluster.apply(manifest)?;
                }
                Ok(())
            }
            Proxy::Other(peer, process, task) => {
                if self.edit == Edit::Server {
                    task.servers = servers(&self.cluster.lab, 4);
                }
                peer.configure(task, self.cluster.lab.server1().dir())?;
                match peer {
                    Peer::Nginx | Peer::Nginx64k => process.signal(Signal::SIGHUP),
                    Peer::Haproxy => process.signal(Signal::SIGUSR2),
                    // It watches its files.
                    Peer::Envoy | Peer::Wsha | Peer::WshaIoUring => Ok(()),
                }
            }
        }
    }

    /// Whether a new session, which works, is one as the edit wants it.
    pub(super) fn is_told(&self, mut session: Session) -> Result<bool> {
        let server = session.say("new")?;
        Ok(match self.edit {
            Edit::Server => servers(&self.cluster.lab, 4)
                .last()
                .is_some_and(|fourth| fourth.ip() == server),
            Edit::Certificate => self.certificates.is_current(session.certificate()),
        })
    }
}

fn servers(lab: &Lab, count: usize) -> Vec<SocketAddr> {
    let hosts = lab.backends().iter().take(count);
    hosts
        .map(|host| SocketAddr::from((host.address(), BACKEND_PORT)))
        .collect()
}
