//! What an edit of the configuration does to live sessions, and to those that come meanwhile: a fourth server is added.
//!
//! In a lab, with the article's servers and each proxy on server1: so wsha runs as it does on hosts, with its agent,
//! and takes the edit from its manifest.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Serialize;

use super::peer::{Peer, Task, tree};
use crate::backend::Backends;
use crate::cost;
use crate::lab::{BACKEND_PORT, Lab, PORT, Process, VIP_SERVER1};
use crate::subject::{Gateways, Settings, Subject};
use crate::testing::Session;
use crate::wait;

/// How long new sessions are opened after the edit.
const WATCHED: Duration = Duration::from_secs(3);

/// Bound against hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sessions dialled at once.
const PORTION: usize = 100;

/// What the edit did.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// Whose.
    pub peer: Peer,
    /// Sessions that were live.
    pub live: usize,
    /// Those that answered afterwards, nothing having come in between.
    pub kept: usize,
    /// Sessions opened from the edit on.
    pub opened: usize,
    /// Attempts that failed.
    pub failed: usize,
    /// From the edit to the end of the first session of the new server, in milliseconds.
    pub in_use_ms: f64,
    /// Processes that face the clients, before and after.
    pub processes: (usize, usize),
    /// Their memory, in bytes.
    pub memory: (u64, u64),
}

/// A proxy on server1.
enum Stage<'lab> {
    Wsha(Box<Gateways<'lab>>),
    Other(Peer, Process, Task),
}

impl<'lab> Stage<'lab> {
    fn start(lab: &'lab Lab, peer: Peer, settings: Settings) -> Result<Self> {
        let host = lab.server1();
        if peer == Peer::Wsha {
            let gateways = Gateways::start(lab, Subject::Wsha, settings)?;
            let held = wait::until("server1 to hold its address", PATIENCE, || {
                Ok(gateways.at_home()?.then_some(()))
            });
            held.with_context(|| gateways.logs())?;
            return Ok(Self::Wsha(Box::new(gateways)));
        }
        let task = Task {
            listen: SocketAddrV4::new(host.address(), PORT),
            tls: None,
            servers: servers(lab, 3),
            workers: 1,
            records: false,
        };
        let mut command = peer.command(&task, host.dir(), host.dir())?;
        command.current_dir(host.dir());
        let process = host.spawn(&peer.to_string(), command)?;
        Ok(Self::Other(peer, process, task))
    }

    fn address(&self) -> Ipv4Addr {
        match self {
            Self::Wsha(_) => VIP_SERVER1,
            Self::Other(_, _, task) => *task.listen.ip(),
        }
    }

    fn processes(&self, lab: &Lab) -> Vec<Pid> {
        match self {
            Self::Wsha(gateways) => gateways.proxy_processes(lab.server1()),
            Self::Other(_, process, _) => tree(process.pid()),
        }
    }

    /// Adds the fourth server as an administrator would.
    fn edit(&mut self, lab: &Lab) -> Result<()> {
        match self {
            Self::Wsha(gateways) => gateways.add_fourth_backend(),
            Self::Other(peer, process, task) => {
                task.servers = servers(lab, 4);
                peer.configure(task, lab.server1().dir())?;
                match peer {
                    Peer::Nginx | Peer::Nginx64k => process.signal(Signal::SIGHUP),
                    Peer::Haproxy => process.signal(Signal::SIGUSR2),
                    // It watches the file.
                    Peer::Envoy | Peer::Wsha => Ok(()),
                }
            }
        }
    }
}

fn servers(lab: &Lab, count: usize) -> Vec<SocketAddr> {
    let hosts = lab.backends().iter().take(count);
    hosts
        .map(|host| SocketAddr::from((host.address(), BACKEND_PORT)))
        .collect()
}

/// Adds a server while `live` sessions are open.
pub fn measure(peer: Peer, live: usize, settings: Settings) -> Result<Changed> {
    let lab = Lab::new()?;
    let mut backends = Backends::start(&lab)?;
    backends.add_fourth(&lab)?;
    let mut stage = Stage::start(&lab, peer, settings)?;
    let address = stage.address();
    wait::until(&format!("{peer} to accept"), PATIENCE, || {
        Ok(Session::open(lab.client(), address).ok().map(drop))
    })?;

    let mut sessions = Vec::new();
    while sessions.len() < live {
        let portion = PORTION.min(live - sessions.len());
        sessions.extend(Session::open_many(lab.client(), address, PORT, portion)?);
    }
    sessions
        .iter_mut()
        .try_for_each(|session| session.say("before").map(drop))?;
    let before = stage.processes(&lab);
    let memory = cost::proportional(&before)?;

    let fourth = servers(&lab, 4).last().map(SocketAddr::ip);
    stage.edit(&lab)?;
    let edited = Instant::now();
    let (mut opened, mut failed, mut in_use) = (0, 0, None);
    while edited.elapsed() < WATCHED || in_use.is_none() {
        ensure!(
            edited.elapsed() < PATIENCE,
            "{peer} never used the new server"
        );
        match Session::open(lab.client(), address).and_then(|mut session| session.say("new")) {
            Ok(server) => {
                opened += 1;
                if Some(server.into()) == fourth {
                    in_use.get_or_insert_with(|| edited.elapsed());
                }
            }
            Err(_) => failed += 1,
        }
        // Not so many at once that ports or servers become what is measured.
        thread::sleep(Duration::from_millis(1));
    }
    let answers = |session: &mut Session| {
        session.undisturbed()?;
        session.say("after")
    };
    let kept = sessions
        .iter_mut()
        .filter_map(|session| answers(session).ok())
        .count();
    let after = stage.processes(&lab);
    Ok(Changed {
        peer,
        live,
        kept,
        opened,
        failed,
        in_use_ms: in_use.unwrap_or_default().as_secs_f64() * 1e3,
        processes: (before.len(), after.len()),
        memory: (memory, cost::proportional(&after)?),
    })
}
