//! The locks that make an agent the only one, and asking another to give its own back.

use std::{
    io,
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    agent::{
        claim::{ClaimError, step},
        state_dir::StateDir,
    },
    ipc::{AGENT_SOCKET, HOLDER_SOCKET, Hello, Refusal},
    sys::{
        channel::{Channel, Peer},
        lock::{Attempt, Lock, NetworkAttempt, NetworkLock},
        users,
    },
};

/// A lock outlives its holder by moments: until the kernel has closed the last descriptor of it.
const AFTER_DEATH: Duration = Duration::from_secs(2);
/// A holder that was starting when it was asked to stop may not have heard it.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The kernel has no wait with a bound for this kind of lock.
const POLL: Duration = Duration::from_millis(5);
/// The longest an agent takes to stop in order, and some.
pub(super) const TAKE_OVER: Duration = Duration::from_mins(1);
/// From the first lock of a killed holder that is free to the last.
const NETWORK_PATIENCE: Duration = Duration::from_secs(1);

/// Who holds the lock, as written there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Holder {
    /// Process id.
    pub(super) pid: u32,
    /// Its `--node-name`.
    pub(super) node_name: String,
    /// Its state directory.
    pub(super) state_dir: PathBuf,
    /// Its run directory, where its sockets are.
    pub(super) run_dir: PathBuf,
    /// Its `--admin`.
    pub(super) admin: SocketAddr,
    /// Its version.
    pub(super) version: String,
    /// When it started, milliseconds since the Unix epoch.
    pub(super) started_unix_ms: u64,
    /// The PID namespace that the process id is of; zero: unknown.
    #[serde(default)]
    pub(super) pid_namespace: u64,
}

impl Holder {
    /// Whether a process of that number lives. Of one in another container nobody can tell.
    pub(super) fn lives(&self) -> bool {
        let is_elsewhere = self.pid_namespace != 0 && self.pid_namespace != pid_namespace();
        is_elsewhere || Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

/// What the lock of a state or run directory says, whether its holder lives or not.
pub(super) fn holder_of(directory: &Path) -> io::Result<Holder> {
    Lock::read(&directory.join("lock"))
}

/// The PID namespace of this process; zero where the kernel does not tell.
pub(super) fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino())
}

/// A connection to the agent with this run directory. `None`: none runs there; one that ends or
/// starts just now is no other case.
pub(super) fn connect_to_agent(run_dir: &Path) -> io::Result<Option<UnixStream>> {
    connect(&run_dir.join(AGENT_SOCKET))
}

fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The lock of the state directory, which somebody may remove under us.
#[derive(Debug)]
pub(super) struct StateLock {
    state: StateDir,
    holder: Holder,
    lock: Mutex<Lock>,
}

impl StateLock {
    /// Makes directory and lock again if they were removed, and says whether they were.
    pub(super) fn restore(&self) -> io::Result<bool> {
        let path = self.state.lock_path();
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_at(&path) {
            return Ok(false);
        }
        self.state.make()?;
        match Lock::try_take::<Holder>(&path)? {
            Attempt::Held(mut new) => {
                new.write(&self.holder)?;
                *lock = new;
                Ok(true)
            }
            Attempt::Taken(_) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another process holds the lock that is there now",
            )),
        }
    }
}

/// Takes the locks, one after another.
#[derive(Debug)]
pub(super) struct Taker<'a> {
    holder: &'a Holder,
    take_over: bool,
    pod_created_ns: Option<u64>,
    deadline: Instant,
    asked: Option<Instant>,
}

impl<'a> Taker<'a> {
    /// For `holder`, which asks another agent to stop if `take_over` is set.
    pub(super) fn new(holder: &'a Holder, take_over: bool, pod_created_ns: Option<u64>) -> Self {
        Self {
            holder,
            take_over,
            pod_created_ns,
            deadline: Instant::now() + TAKE_OVER,
            asked: None,
        }
    }

    /// The lock of the state directory.
    pub(super) fn take_state(&mut self, state: &StateDir) -> Result<StateLock, ClaimError> {
        let holder = self.holder;
        let lock = take(&state.lock_path(), holder, |other| self.meet(&other))?;
        Ok(StateLock {
            state: state.clone(),
            holder: holder.clone(),
            lock: Mutex::new(lock),
        })
    }

    /// The lock of the run directory.
    pub(super) fn take_run(&mut self) -> Result<Lock, ClaimError> {
        let holder = self.holder;
        take(&holder.run_dir.join("lock"), holder, |other| {
            if other.state_dir == holder.state_dir {
                // The state directory was removed under it, and its lock along with it.
                return self.meet(&other);
            }
            Err(ClaimError::RunDirTaken {
                pid: other.pid,
                state_dir: other.state_dir,
                run_dir: other.run_dir,
            })
        })
    }

    /// Another agent has what we want: asks it to stop, or names it.
    fn meet(&mut self, other: &Holder) -> Result<(), ClaimError> {
        if !self.take_over {
            return Err(ClaimError::Taken {
                pid: other.pid,
                node_name: other.node_name.clone(),
                state_dir: self.holder.state_dir.clone(),
            });
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClaimError::TakeOver { pid: other.pid });
        }
        if self.asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
            tracing::info!(pid = other.pid, "asking the running agent to stop in order");
            self.ask_to_stop(other, left)?;
            self.asked = Some(Instant::now());
        }
        Ok(())
    }

    /// Returns when the holder has ended, or `patience` is over.
    fn ask_to_stop(&self, other: &Holder, patience: Duration) -> Result<(), ClaimError> {
        // The run directory of another pod is not to be seen from here, or is another of that name.
        let mut path = self.holder.state_dir.join(HOLDER_SOCKET);
        let mut stream = connect(&path).map_err(step("connect to", &path))?;
        if stream.is_none() {
            path = other.run_dir.join(AGENT_SOCKET);
            stream = connect(&path).map_err(step("connect to", &path))?;
        }
        // None: it ends just now, or starts just now.
        let Some(stream) = stream else { return Ok(()) };
        let stop = |pod_created_ns| Hello::StopForPod { pod_created_ns };
        let hello = self.pod_created_ns.map_or(Hello::Stop, stop);
        let talk = || {
            stream.set_read_timeout(Some(patience))?;
            let channel = Channel::new(stream, Duration::from_secs(5))?;
            channel.send(&hello, &[])?;
            // The end of the connection is the answer; if none comes in time, the lock says so.
            Ok(channel.receive::<Refusal>().ok().flatten())
        };
        match talk().map_err(step("talk to", &path))? {
            Some((Refusal { reason }, _)) => Err(ClaimError::Refused { reason }),
            None => Ok(()),
        }
    }
}

/// Takes a lock and says who holds it now. While another process has it, asks `taken` what to do.
fn take(
    path: &Path,
    holder: &Holder,
    mut taken: impl FnMut(Holder) -> Result<(), ClaimError>,
) -> Result<Lock, ClaimError> {
    let mut nobody_since = Instant::now();
    loop {
        let other = match Lock::try_take::<Holder>(path).map_err(step("take", path))? {
            Attempt::Held(mut lock) => {
                lock.write(holder).map_err(step("write", path))?;
                return Ok(lock);
            }
            Attempt::Taken(other) => other,
        };
        let waited = nobody_since.elapsed() >= AFTER_DEATH;
        match other {
            // One that has ended, unless its number means another process here than there.
            Some(other) if other.lives() || waited => {
                taken(other)?;
                nobody_since = Instant::now();
            }
            None if waited => {
                let path = path.to_owned();
                return Err(ClaimError::TakenByUnknown { path });
            }
            _ => {}
        }
        std::thread::sleep(POLL);
    }
}

/// A starting vrrp removes what another left behind, so there must be no other on these interfaces.
pub(super) fn take_network() -> Result<NetworkLock, ClaimError> {
    let deadline = Instant::now() + NETWORK_PATIENCE;
    let mut holder = None;
    loop {
        let attempt = NetworkLock::try_take();
        match attempt.map_err(step("lock", Path::new("/proc/self/ns/net")))? {
            NetworkAttempt::Held(lock) => return Ok(lock),
            // One that never accepts can be asked a few times only.
            NetworkAttempt::Taken(peer) => holder = peer.or(holder),
        }
        if Instant::now() >= deadline {
            return Err(match holder {
                Some(Peer { pid, uid }) if uid == users::effective_uid() => {
                    ClaimError::NetworkTaken { pid }
                }
                Some(Peer { pid, uid }) => ClaimError::NetworkTakenByStranger { pid, uid },
                None => ClaimError::NetworkTakenByUnknown,
            });
        }
        // A holder that was killed gives its locks back one by one.
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::temporary::Directory;

    fn holder(directory: &Directory, pid: u32) -> Holder {
        Holder {
            pid,
            node_name: "server1".to_owned(),
            state_dir: directory.path().join("state"),
            run_dir: directory.path().to_owned(),
            admin: "127.0.0.1:9101".parse().unwrap(),
            version: String::new(),
            started_unix_ms: 0,
            pid_namespace: pid_namespace(),
        }
    }

    #[test]
    fn a_lock_that_outlives_its_holder_is_waited_for() {
        let directory = Directory::new();
        // Beyond the highest number that the kernel gives.
        let dead = holder(&directory, u32::MAX);
        let dead = Taker::new(&dead, false, None).take_run().unwrap();
        let end = std::thread::spawn(move || drop(dead));
        let us = holder(&directory, std::process::id());
        let living = Taker::new(&us, false, None).take_run().unwrap();
        end.join().unwrap();
        let mut other = holder(&directory, 1);
        let error = Taker::new(&other, false, None).take_run().unwrap_err();
        assert!(matches!(error, ClaimError::Taken { pid, .. } if pid == std::process::id()));
        other.state_dir = directory.path().join("other");
        let error = Taker::new(&other, false, None).take_run().unwrap_err();
        assert!(matches!(error, ClaimError::RunDirTaken { pid, .. } if pid == std::process::id()));
        drop(living);
    }

    #[test]
    fn a_holder_that_does_not_stop_is_named() {
        let directory = Directory::new();
        let us = holder(&directory, std::process::id());
        let _living = Taker::new(&us, false, None).take_run().unwrap();
        let mut taker = Taker::new(&us, true, None);
        taker.deadline = Instant::now();
        let error = taker.take_run().unwrap_err();
        assert!(matches!(error, ClaimError::TakeOver { pid } if pid == std::process::id()));
    }

    #[test]
    fn a_lock_that_was_removed_is_made_again() {
        let directory = Directory::new();
        let us = holder(&directory, std::process::id());
        let state = StateDir::open(&us.state_dir).unwrap();
        let lock = Taker::new(&us, false, None).take_state(&state).unwrap();
        assert!(!lock.restore().unwrap());
        std::fs::remove_dir_all(state.path()).unwrap();
        assert!(lock.restore().unwrap());
        assert_eq!(holder_of(state.path()).unwrap(), us);
        assert!(!lock.restore().unwrap());
        // Of another process that came meanwhile.
        std::fs::remove_file(state.lock_path()).unwrap();
        let other = Taker::new(&us, false, None).take_state(&state).unwrap();
        assert!(lock.restore().is_err());
        drop(other);
        assert!(lock.restore().unwrap());
    }
}
