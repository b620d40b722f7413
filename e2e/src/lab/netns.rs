//! A thread that lives in a network namespace of its own and runs closures there.
//!
//! A namespace belongs to a thread, and what a thread spawns inherits it, so nothing needs a name in
//! `/run/netns`: a namespace ends with its thread and its last process, however the lab ends.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::process::Home;

type Job = Box<dyn FnOnce() + Send>;

/// Descriptors that let other threads enter the namespaces.
#[derive(Debug)]
pub(crate) struct Handles {
    /// The network namespace.
    net: File,
    /// The mount namespace, with a `/run` of its own.
    mnt: File,
    /// Path by which another program can name the network namespace while the thread lives.
    pub(crate) net_path: String,
    /// By which the processes started here are known.
    pub(crate) home: Home,
}

/// A thread in its own network and mount namespace.
#[derive(Debug)]
pub(crate) struct NetNs {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    handles: std::sync::Arc<Handles>,
}

impl NetNs {
    /// Makes the namespaces. `name` appears in the thread's name and in the namespace's own `/run/netns`.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, outcome) = mpsc::channel();
        let label = name.to_owned();
        let thread = thread::Builder::new()
            .name(format!("ns-{name}"))
            .spawn(move || {
                let made = isolate(&label);
                let failed = made.is_err();
                if ready.send(made).is_err() || failed {
                    return;
                }
                for job in inbox {
                    job();
                }
            })?;
        let handles = outcome
            .recv()
            .context("the namespace's thread ended")?
            .with_context(|| {
                format!("cannot make a network namespace for {name} (root is needed)")
            })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            handles: std::sync::Arc::new(handles),
        })
    }

    pub(crate) fn handles(&self) -> &std::sync::Arc<Handles> {
        &self.handles
    }

    /// Runs `job` on the namespace's thread and waits for its value.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (answer, value) = mpsc::channel();
        let jobs = self
            .jobs
            .as_ref()
            .ok_or_else(|| anyhow!("the namespace is gone"))?;
        jobs.send(Box::new(move || {
            // The receiver waits below; were it gone, nobody would want the value.
            drop(answer.send(job()));
        }))
        .map_err(|_| anyhow!("the namespace's thread ended"))?;
        value.recv().context("the namespace's thread panicked")
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was already reported where its value was awaited.
            drop(thread.join());
        }
    }
}

impl Handles {
    /// Moves the calling thread into both namespaces, for good.
    pub(crate) fn enter(&self) -> Result<()> {
        // A mount namespace can only be entered by a thread that shares its root and cwd with none.
        unshare(CloneFlags::CLONE_FS).context("cannot unshare the file system attributes")?;
        setns(&self.net, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
        setns(&self.mnt, CloneFlags::CLONE_NEWNS).context("cannot enter the mount namespace")
    }

    /// Moves the calling thread into the network namespace only.
    pub(crate) fn enter_net(&self) -> Result<()> {
        setns(&self.net, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")
    }
}

/// Gives the calling thread its namespaces: a private `/run`, and `lo` still down.
fn isolate(name: &str) -> Result<Handles> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("unshare")?;
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make mounts private")?;
    let tmpfs = Some(Path::new("tmpfs"));
    let mode = Some(Path::new("mode=0755"));
    mount(
        tmpfs,
        "/run",
        tmpfs,
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        mode,
    )
    .context("mount a private /run")?;
    let named = Path::new("/run/netns").join(name);
    std::fs::create_dir_all("/run/netns")?;
    File::create(&named)?;
    let own = Path::new("/proc/thread-self/ns/net");
    mount(Some(own), &named, none, MsFlags::MS_BIND, none)
        .context("name the namespace in its own /run")?;
    let task = std::fs::read_link("/proc/thread-self").context("read /proc/thread-self")?;
    let (net, mnt) = (File::open(own)?, File::open("/proc/thread-self/ns/mnt")?);
    Ok(Handles {
        home: Home {
            mnt: mnt.metadata()?.ino(),
            net: net.metadata()?.ino(),
        },
        net,
        mnt,
        net_path: format!("/proc/{}/ns/net", task.display()),
    })
}
