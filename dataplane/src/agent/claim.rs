//! One agent per host: the lock, the run directory, and taking over from another.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    agent::state_dir::StateDir,
    cli::RunArgs,
    ipc::{AGENT_SOCKET, Hello, PROXY_SOCKET},
    sys::{
        channel::Channel,
        lock::{Attempt, Lock, NetworkLock},
        users::{self, Capability, Identity},
    },
};

/// Where run directories are made by default.
const RUN_ROOT: &str = "/run/wsha";
/// A lock outlives its holder by moments: until the kernel has closed the last descriptor of it.
const AFTER_DEATH: Duration = Duration::from_secs(2);
/// A holder that was starting when it was asked to stop may not have heard it.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The kernel has no wait with a bound for this kind of lock.
const POLL: Duration = Duration::from_millis(5);
/// The longest an agent takes to stop in order, and some.
const TAKE_OVER: Duration = Duration::from_mins(1);
/// From the first lock of a killed holder that is free to the last.
const NETWORK_PATIENCE: Duration = Duration::from_secs(1);
/// What the agent and the processes it starts need, as capabilities(7) calls it.
const NEEDED: [Capability; 6] = [
    users::NET_ADMIN,
    users::NET_RAW,
    users::CHOWN,
    users::KILL,
    users::SETUID,
    users::SETGID,
];
/// The proxy's user by default, and by number where there is no such user.
const PROXY_USER: (&str, u32) = ("wsha-proxy", 65534);

/// Who holds the lock, as written there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Holder {
    /// Process id.
    pub(super) pid: u32,
    /// Its `--node-name`.
    pub(super) node_name: String,
    /// Its run directory, where its sockets are.
    pub(super) run_dir: PathBuf,
    /// Its version.
    pub(super) version: String,
    /// When it started, milliseconds since the Unix epoch.
    pub(super) started_unix_ms: u64,
}

impl Holder {
    /// Whether a process of that number lives.
    fn lives(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

/// What can be made ready beside another agent that runs.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The state directory.
    pub(super) state: StateDir,
    run_dir: PathBuf,
    proxy_user: Identity,
}

/// What this agent has to itself. Dropped last: the lock is what a successor waits for.
#[derive(Debug)]
pub(super) struct Claim {
    /// The state directory.
    pub(super) state: StateDir,
    /// Where the sockets are.
    pub(super) run_dir: PathBuf,
    /// The proxy's user.
    pub(super) proxy_user: Identity,
    _network_lock: NetworkLock,
    _run_lock: Lock,
    _state_lock: Lock,
}

/// The sockets of the run directory.
#[derive(Debug)]
pub(super) struct Sockets {
    /// For vrrp, `status` and take-overs.
    pub(super) agent: UnixListener,
    /// For the proxy.
    pub(super) proxy: UnixListener,
}

/// Why this agent cannot run.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    /// Not root, nor the equal of it.
    #[error(
        "`run` must be started as root, or with the capabilities that the systemd unit gives: \
         {missing} is missing"
    )]
    Rights {
        /// Names of capabilities.
        missing: String,
    },
    /// `--proxy-user` names nobody.
    #[error("--proxy-user {name}: there is no such user; create it or name another")]
    NoUser {
        /// As given.
        name: String,
    },
    /// Another agent has the lock.
    #[error(
        "process {pid} already runs node {node_name} with state directory {state_dir}; stop it \
         first, or use --take-over to follow it"
    )]
    Taken {
        /// Of the holder.
        pid: u32,
        /// Of the holder.
        node_name: String,
        /// Ours, and the holder's.
        state_dir: PathBuf,
    },
    /// Another process has the lock and does not say who it is.
    #[error("another process holds {path}; find it with `fuser -v {path}` and stop it first")]
    TakenByUnknown {
        /// The lock file.
        path: PathBuf,
    },
    /// An agent with another state directory uses this run directory.
    #[error(
        "process {pid} uses run directory {run_dir} with another state directory; give this one \
         another --run-dir"
    )]
    RunDirTaken {
        /// Of the holder.
        pid: u32,
        /// The directory.
        run_dir: PathBuf,
    },
    /// An agent with another state directory serves this host's network.
    #[error(
        "another agent, with another state directory, runs in this network namespace: two would \
         remove each other's addresses; stop it first, or use its state directory with --take-over"
    )]
    NetworkTaken,
    /// The holder was asked to stop and did not.
    #[error("process {pid} did not stop within {} s; see its log", TAKE_OVER.as_secs())]
    TakeOver {
        /// Of the holder.
        pid: u32,
    },
    /// A step failed.
    #[error("cannot {action} {path}")]
    Step {
        /// What was to be done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

impl Prepared {
    /// Checks rights and names, and makes the state directory.
    pub(super) fn new(args: &RunArgs) -> Result<Self, ClaimError> {
        check_rights()?;
        let proxy_user = proxy_user(args.proxy_user.as_deref())?;
        users::keep_files_private();
        let state = StateDir::open(&args.state_dir)
            .map_err(step("make state directory", &args.state_dir))?;
        let run_dir = args.run_dir.as_deref().map_or_else(
            || Ok(default_run_dir(state.path())),
            |path| std::path::absolute(path).map_err(step("find run directory", path)),
        )?;
        Ok(Self {
            state,
            run_dir,
            proxy_user,
        })
    }

    /// Takes the lock, from another agent if that is asked for, and makes the run directory.
    pub(super) fn claim(self, args: &RunArgs) -> Result<Claim, ClaimError> {
        let holder = Holder {
            pid: std::process::id(),
            node_name: args.node_name.clone(),
            run_dir: self.run_dir.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ms: unix_ms(),
        };
        let state_lock = take_state_lock(&self.state, args.take_over, &holder)?;
        make_run_dir(&self.run_dir)?;
        let run_lock = take_run_lock(&self.run_dir, &holder)?;
        let network_lock = take_network_lock()?;
        Ok(Claim {
            state: self.state,
            run_dir: self.run_dir,
            proxy_user: self.proxy_user,
            _network_lock: network_lock,
            _run_lock: run_lock,
            _state_lock: state_lock,
        })
    }
}

impl Claim {
    /// Opens the sockets; those of an agent that was killed are replaced.
    pub(super) fn open_sockets(&self) -> Result<Sockets, ClaimError> {
        let open = |name, owner: Option<Identity>| {
            let path = self.run_dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(step("replace", &path)(error));
                }
                _ => {}
            }
            let listener = UnixListener::bind(&path).map_err(step("open", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                .map_err(step("set the mode of", &path))?;
            if let Some(owner) = owner {
                users::give(&path, owner).map_err(step("set the owner of", &path))?;
            }
            listener
                .set_nonblocking(true)
                .map_err(step("prepare", &path))?;
            Ok(listener)
        };
        Ok(Sockets {
            agent: open(AGENT_SOCKET, None)?,
            proxy: open(PROXY_SOCKET, Some(self.proxy_user))?,
        })
    }

    /// Removes the sockets; a successor makes its own.
    pub(super) fn remove_sockets(&self) {
        for name in [AGENT_SOCKET, PROXY_SOCKET] {
            if let Err(error) = fs::remove_file(self.run_dir.join(name)) {
                tracing::debug!(%error, socket = name, "cannot remove a socket");
            }
        }
    }
}

/// What the lock of a state directory says, whether its holder lives or not.
pub(super) fn holder_of(state_dir: &Path) -> io::Result<Holder> {
    Lock::read(&state_dir.join("lock"))
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

fn check_rights() -> Result<(), ClaimError> {
    let missing = users::missing(&NEEDED).map_err(step("read", Path::new("/proc/self/status")))?;
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|one| one.name()).collect();
    Err(ClaimError::Rights {
        missing: names.join(", "),
    })
}

fn proxy_user(name: Option<&str>) -> Result<Identity, ClaimError> {
    let users_file = Path::new("/etc/passwd");
    let (name, number) = match name {
        None => (PROXY_USER.0, Some(PROXY_USER.1)),
        Some(name) => (name, name.parse().ok()),
    };
    if let Some(user) = users::by_name(name).map_err(step("look up a user in", users_file))? {
        return Ok(user);
    }
    match number {
        Some(uid) => users::by_uid(uid).map_err(step("look up a user in", users_file)),
        None => Err(ClaimError::NoUser {
            name: name.to_owned(),
        }),
    }
}

/// Takes a lock and says who holds it now. While another process has it, asks `taken` what to do.
fn take_lock(
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

fn take_state_lock(state: &StateDir, take_over: bool, holder: &Holder) -> Result<Lock, ClaimError> {
    let deadline = Instant::now() + TAKE_OVER;
    let mut asked: Option<Instant> = None;
    take_lock(&state.lock_path(), holder, |other| {
        if !take_over {
            return Err(ClaimError::Taken {
                pid: other.pid,
                node_name: other.node_name,
                state_dir: state.path().to_owned(),
            });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClaimError::TakeOver { pid: other.pid });
        }
        if asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
            tracing::info!(pid = other.pid, "asking the running agent to stop in order");
            ask_to_stop(&other, left)?;
            asked = Some(Instant::now());
        }
        Ok(())
    })
}

/// A starting vrrp removes what another left behind, so there must be no other on these interfaces.
fn take_network_lock() -> Result<NetworkLock, ClaimError> {
    let deadline = Instant::now() + NETWORK_PATIENCE;
    loop {
        match NetworkLock::try_take().map_err(step("lock", Path::new("/proc/self/ns/net")))? {
            Some(lock) => return Ok(lock),
            None if Instant::now() >= deadline => return Err(ClaimError::NetworkTaken),
            // A holder that was killed gives its locks back one by one.
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Returns when the holder has ended, or `patience` is over.
fn ask_to_stop(holder: &Holder, patience: Duration) -> Result<(), ClaimError> {
    let path = holder.run_dir.join(AGENT_SOCKET);
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        // It ends just now, or starts just now.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(step("connect to", &path)(error)),
    };
    let talk = || {
        stream.set_read_timeout(Some(patience))?;
        let channel = Channel::new(stream, Duration::from_secs(5))?;
        channel.send(&Hello::Stop, &[])?;
        // The end of the connection is the answer; if none comes in time, the lock says so.
        drop(channel.receive::<()>());
        Ok(())
    };
    talk().map_err(step("talk to", &path))
}

/// For root only, but open to pass through: the proxy has a socket in it.
fn make_run_dir(run_dir: &Path) -> Result<(), ClaimError> {
    let passable = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(step("set the mode of", path))
    };
    if run_dir.starts_with(RUN_ROOT) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(RUN_ROOT)
            .map_err(step("make", Path::new(RUN_ROOT)))?;
        passable(Path::new(RUN_ROOT), 0o755)?;
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(run_dir)
        .map_err(step("make run directory", run_dir))?;
    passable(run_dir, 0o711)
}

fn take_run_lock(run_dir: &Path, holder: &Holder) -> Result<Lock, ClaimError> {
    take_lock(&run_dir.join("lock"), holder, |other| {
        Err(ClaimError::RunDirTaken {
            pid: other.pid,
            run_dir: run_dir.to_owned(),
        })
    })
}

/// `/run/wsha/` and a hash of the state directory's canonical path, so that several agents can
/// share a `/run`.
fn default_run_dir(state_dir: &Path) -> PathBuf {
    // FNV-1a: short, and the same in every release.
    let hash = state_dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    Path::new(RUN_ROOT).join(format!("{hash:016x}"))
}

fn step(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClaimError + use<> {
    let path = path.to_owned();
    move |source| ClaimError::Step {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_directory_has_a_run_directory_of_its_own() {
        // 64 bits of FNV-1a, computed by hand: the name must not change between releases.
        assert_eq!(
            default_run_dir(Path::new("a")),
            Path::new("/run/wsha/af63dc4c8601ec8c")
        );
        assert_ne!(
            default_run_dir(Path::new("/var/lib/wsha")),
            default_run_dir(Path::new("/var/lib/wsha2"))
        );
    }

    #[test]
    fn a_lock_that_outlives_its_holder_is_waited_for() {
        let directory = crate::sys::temporary::Directory::new();
        let path = directory.path().join("lock");
        let holder = |pid| Holder {
            pid,
            node_name: "server1".to_owned(),
            run_dir: directory.path().to_owned(),
            version: String::new(),
            started_unix_ms: 0,
        };
        let refuse = |other: Holder| {
            Err(ClaimError::RunDirTaken {
                pid: other.pid,
                run_dir: other.run_dir,
            })
        };
        // Beyond the highest number that the kernel gives.
        let dead = take_lock(&path, &holder(u32::MAX), refuse).unwrap();
        let end = std::thread::spawn(move || drop(dead));
        let living = take_lock(&path, &holder(std::process::id()), refuse).unwrap();
        end.join().unwrap();
        let error = take_lock(&path, &holder(1), refuse).unwrap_err();
        assert!(matches!(error, ClaimError::RunDirTaken { pid, .. } if pid == std::process::id()));
        drop(living);
    }

    #[test]
    fn the_proxy_user_is_a_name_or_a_number() {
        assert_eq!(proxy_user(Some("root")).unwrap().uid, 0);
        assert_eq!(proxy_user(Some("0")).unwrap().uid, 0);
        let unknown = proxy_user(Some("4000000")).unwrap();
        assert_eq!((unknown.uid, unknown.gid), (4_000_000, 4_000_000));
        assert!(matches!(
            proxy_user(Some("nobody-of-this-name")),
            Err(ClaimError::NoUser { .. })
        ));
    }
}
