//! One agent per host: its rights, its locks, its sockets.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    agent::{
        chain,
        locks::{self, Holder, StateLock, TAKE_OVER, Taker},
        pod, run_dir,
        state_dir::StateDir,
        waiting::Waiting,
    },
    cli::{ProxyStart, RunArgs},
    ipc::{AGENT_SOCKET, HOLDER_SOCKET, PROXY_SOCKET},
    sys::{
        clock, kernel,
        lock::{Lock, NetworkLock},
        users::{self, Capability, Identity},
    },
};

/// What the agent and the processes it starts need, as capabilities(7) calls it.
const NEEDED: [Capability; 6] = [
    users::NET_ADMIN,
    users::NET_RAW,
    users::CHOWN,
    users::KILL,
    users::SETUID,
    users::SETGID,
];
/// The same where the proxy is started elsewhere.
const NEEDED_ALONE: [Capability; 2] = [users::NET_ADMIN, users::NET_RAW];
/// The proxy's user by default, and by number where there is no such user.
const PROXY_USER: (&str, u32) = ("wsha-proxy", 65534);

/// What can be made ready beside another agent that runs.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The state directory.
    pub(super) state: StateDir,
    /// Where the sockets will be.
    pub(super) run_dir: PathBuf,
    proxy_user: Identity,
    pod_created_ns: Option<u64>,
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
    /// When this agent's pod was made, nanoseconds since the Unix epoch.
    pub(super) pod_created_ns: Option<u64>,
    network_lock: NetworkLock,
    _run_lock: Lock,
    state_lock: Arc<StateLock>,
}

/// The sockets of the run directory.
#[derive(Debug)]
pub(super) struct Sockets {
    /// For vrrp, `status` and take-overs.
    pub(super) agent: UnixListener,
    /// For the proxy.
    pub(super) proxy: UnixListener,
    /// For take-overs, in the state directory; `None`: it cannot be there.
    pub(super) holder: Option<UnixListener>,
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
    /// The proxy could not be let in.
    #[error(
        "the proxy, of group {gid}, could not connect: run this agent as a member of that group \
         (runAsGroup or supplementalGroups: {gid}), or give it CAP_CHOWN"
    )]
    ProxyGroup {
        /// The proxy's.
        gid: u32,
    },
    /// An option of another way to start the proxy.
    #[error("{0} is an option of `proxy` where --proxy external is given")]
    OfProxy(&'static str),
    /// The kernel cannot tell how old the pod is.
    #[error(
        "cannot tell when this pod was made: --pod-created-at {directory} must be a directory that \
         lasts as long as the pod and can be written to, such as the mount point of an emptyDir volume"
    )]
    PodCreated {
        /// As given.
        directory: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Another agent runs and is of a newer pod.
    #[error("the agent that runs does not stop for this one: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// `--proxy-user` names nobody.
    #[error("--proxy-user {name}: there is no such user; create it or name another")]
    NoUser {
        /// As given.
        name: String,
    },
    /// Addresses could not be told apart.
    #[error(
        "Linux {found} cannot mark addresses as ours (IFA_PROTO), so those left behind could not be \
         told from those of others; Linux {}.{} is the first that can",
        kernel::IFA_PROTO.0,
        kernel::IFA_PROTO.1
    )]
    Kernel {
        /// Its release.
        found: String,
    },
    /// The address for metrics is another program's.
    #[error("cannot serve metrics on {admin}; choose another address with --admin")]
    Admin {
        /// As given.
        admin: SocketAddr,
        /// What the kernel says.
        #[source]
        source: io::Error,
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
        "process {pid} uses run directory {run_dir} with state directory {state_dir}; give this \
         one another --run-dir"
    )]
    RunDirTaken {
        /// Of the holder.
        pid: u32,
        /// Of the holder.
        state_dir: PathBuf,
        /// The directory.
        run_dir: PathBuf,
    },
    /// The run directory is not ours alone.
    #[error(
        "run directory {run_dir} must belong to user {uid} and be writable by no other, or others \
         could put sockets there; give another --run-dir, best one that is not there yet"
    )]
    RunDirOfOthers {
        /// The directory.
        run_dir: PathBuf,
        /// Ours.
        uid: u32,
    },
    /// The proxy cannot get to its socket.
    #[error(
        "user {uid}, who runs the proxy, may not pass through {level} to run directory {run_dir}; \
         `chmod o+x {level}`, or give another --run-dir"
    )]
    RunDirClosed {
        /// The directory.
        run_dir: PathBuf,
        /// The one on the way to it, or itself.
        level: PathBuf,
        /// The proxy's user.
        uid: u32,
    },
    /// An agent with another state directory serves this host's network.
    #[error(
        "{}, an agent with another state directory, runs in this network namespace: two would remove \
         each other's addresses; stop it first, or use its state directory with --take-over",
        who(*pid)
    )]
    NetworkTaken {
        /// Of the holder.
        pid: i32,
    },
    /// Somebody else has the name that agents use as their lock.
    #[error(
        "{} of user {uid} holds the abstract socket name `wsha-dataplane` of this network \
         namespace, and is no agent of this user; end it",
        who(*pid)
    )]
    NetworkTakenByStranger {
        /// Of the holder.
        pid: i32,
        /// Of the holder.
        uid: u32,
    },
    /// The same, and it does not listen.
    #[error(
        "a process holds the abstract socket name `wsha-dataplane` of this network namespace and \
         does not say who it is; find it with `ss -xlp src @wsha-dataplane` and end it"
    )]
    NetworkTakenByUnknown,
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
    pub(super) fn prepare(args: &RunArgs) -> Result<Self, ClaimError> {
        let proxy_user = proxy_user(args.proxy_user.as_deref())?;
        match args.proxy {
            ProxyStart::Child => check_rights(&NEEDED)?,
            ProxyStart::External => {
                check_rights(&NEEDED_ALONE)?;
                check_group(proxy_user)?;
                let workers = args.workers.map(|_| "--workers");
                let io = args.io.map(|_| "--io");
                if let Some(option) = workers.or(io).or_else(|| args.gateway.given()) {
                    return Err(ClaimError::OfProxy(option));
                }
            }
        }
        check_kernel()?;
        users::keep_files_private();
        let state = StateDir::open(&args.state_dir)
            .map_err(step("make state directory", &args.state_dir))?;
        let run_dir = args.run_dir.as_deref().map_or_else(
            || Ok(run_dir::default_path(state.path())),
            |path| std::path::absolute(path).map_err(step("find run directory", path)),
        )?;
        let created = args.pod_created_at.as_deref().map(|directory| {
            pod::created_ns(directory).map_err(|source| ClaimError::PodCreated {
                directory: directory.to_owned(),
                source,
            })
        });
        Ok(Self {
            state,
            run_dir,
            proxy_user,
            pod_created_ns: created.transpose()?,
        })
    }

    /// Takes the locks, from another agent if that is asked for, and makes the run directory.
    pub(super) fn claim(self, args: &RunArgs) -> Result<Claim, ClaimError> {
        let holder = Holder {
            pid: std::process::id(),
            node_name: args.node_name.clone(),
            state_dir: self.state.path().to_owned(),
            run_dir: self.run_dir.clone(),
            admin: args.admin,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ms: clock::now_unix_ms(),
            pid_namespace: locks::pid_namespace(),
        };
        // What can fail before an agent that runs well is stopped fails before.
        run_dir::make(&self.run_dir, self.proxy_user)?;
        if args.take_over && !self.is_followed_at(args.admin) {
            check_admin(args.admin)?;
        }
        // A stop may take longer than a kubelet waits for a sign of life.
        let waiting = args.stay.then(|| {
            let why = "another agent serves this node; this one waits for it to stop";
            Waiting::begin(&self.run_dir, why.to_owned())
                .inspect_err(|error| tracing::warn!(%error, "cannot answer probes while waiting"))
        });
        let mut taker = Taker::new(&holder, args.take_over, self.pod_created_ns);
        let state_lock = taker.take_state(&self.state)?;
        let run_lock = taker.take_run()?;
        let network_lock = locks::take_network()?;
        if !args.take_over {
            check_admin(args.admin)?;
        }
        drop(waiting);
        Ok(Claim {
            state: self.state,
            run_dir: self.run_dir,
            proxy_user: self.proxy_user,
            pod_created_ns: self.pod_created_ns,
            network_lock,
            _run_lock: run_lock,
            state_lock: Arc::new(state_lock),
        })
    }

    /// Whether the agent to be followed serves its metrics there.
    fn is_followed_at(&self, admin: SocketAddr) -> bool {
        let mut holders = [self.state.path(), &self.run_dir]
            .into_iter()
            .filter_map(|directory| locks::holder_of(directory).ok());
        holders.any(|holder| holder.lives() && holder.admin.port() == admin.port())
    }
}

/// Whether the address for metrics is free.
fn check_admin(admin: SocketAddr) -> Result<(), ClaimError> {
    match std::net::TcpListener::bind(admin) {
        Ok(_closed_again) => Ok(()),
        Err(source) => Err(ClaimError::Admin { admin, source }),
    }
}

impl Claim {
    /// Opens the sockets; those of an agent that was killed are replaced.
    pub(super) fn open_sockets(&self) -> Result<Sockets, ClaimError> {
        let open = |path: PathBuf, owner: Option<Identity>| {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(step("replace", &path)(error));
                }
                _ => {}
            }
            let listener = UnixListener::bind(&path).map_err(step("open", &path))?;
            // Before it is given away: the mode of another user's file takes a right of its own.
            set_mode(&path, 0o600).map_err(step("set the mode of", &path))?;
            if let Some(owner) = owner {
                let_in(&path, owner).map_err(step("set the owner of", &path))?;
            }
            listener
                .set_nonblocking(true)
                .map_err(step("prepare", &path))?;
            Ok(listener)
        };
        let holder = open(self.state.path().join(HOLDER_SOCKET), None);
        Ok(Sockets {
            agent: open(self.run_dir.join(AGENT_SOCKET), None)?,
            proxy: open(self.run_dir.join(PROXY_SOCKET), Some(self.proxy_user))?,
            holder: holder
                .inspect_err(|error| {
                    let error = chain(error);
                    tracing::warn!("an agent of another container cannot take over: {error}");
                })
                .ok(),
        })
    }

    /// The lock of the state directory.
    pub(super) fn state_lock(&self) -> Arc<StateLock> {
        Arc::clone(&self.state_lock)
    }

    /// Lets go of those who asked who holds the network.
    pub(super) fn answer_strangers(&self) {
        self.network_lock.turn_away();
    }

    /// Removes the sockets; a successor makes its own.
    pub(super) fn remove_sockets(&self) {
        for path in [
            self.run_dir.join(AGENT_SOCKET),
            self.run_dir.join(PROXY_SOCKET),
            self.state.path().join(HOLDER_SOCKET),
        ] {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(%error, socket = %path.display(), "cannot remove a socket");
            }
        }
    }
}

/// Lets the proxy connect to its socket.
fn let_in(path: &Path, proxy: Identity) -> io::Result<()> {
    match users::give(path, proxy) {
        // Without CAP_CHOWN: to a group of one's own.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            users::give_to_group(path, proxy.gid)?;
            set_mode(path, 0o660)
        }
        result => result,
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Whether the proxy's socket can be given to it.
fn check_group(proxy: Identity) -> Result<(), ClaimError> {
    let status = || step("read", Path::new(users::STATUS));
    let is_ours = proxy.uid == users::effective_uid();
    if is_ours
        || users::missing(&[users::CHOWN])
            .map_err(status())?
            .is_empty()
        || users::is_of_group(proxy.gid).map_err(status())?
    {
        return Ok(());
    }
    Err(ClaimError::ProxyGroup { gid: proxy.gid })
}

/// A process by its number, which is unknown across PID namespaces.
fn who(pid: i32) -> String {
    match pid {
        0 => "a process of another container".to_owned(),
        pid => format!("process {pid}"),
    }
}

fn check_rights(needed: &[Capability]) -> Result<(), ClaimError> {
    let missing = users::missing(needed).map_err(step("read", Path::new(users::STATUS)))?;
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|one| one.name()).collect();
    Err(ClaimError::Rights {
        missing: names.join(", "),
    })
}

/// Before it, no mark of ours is kept with an address.
fn check_kernel() -> Result<(), ClaimError> {
    match kernel::marks_addresses() {
        Ok(true) => Ok(()),
        Ok(false) => Err(ClaimError::Kernel {
            found: kernel::release().unwrap_or_default(),
        }),
        Err(error) => Err(step("read", Path::new("/proc/sys/kernel/osrelease"))(error)),
    }
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

/// The step that failed, and on what.
pub(super) fn step(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ClaimError + use<> {
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
