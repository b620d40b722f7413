//! A node's own view of the machine: what kubelets and runtimes keep under fixed paths, and what they would
//! set for the whole machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";
/// Settings of the machine that a kubelet insists on. It finds them as it wants them.
const SETTINGS: [(&str, &str); 3] = [
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/vm/overcommit_memory", "1"),
];
/// Directories whose path is fixed.
const PRIVATE: [&str; 4] = [
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
];
const RANDOM: &str = "/proc/sys/kernel/random/uuid";
const MACHINE: &str = "/etc/machine-id";

/// Makes the calling thread's mount namespace that of the node `name`, which keeps its files in `dir`: they
/// survive its power-off.
pub(super) fn settle(name: &str, dir: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUTS).context("cannot have a host name of its own")?;
    nix::unistd::sethostname(name).context("cannot set the host name")?;
    fresh_sys(&make(dir.join("aside"))?)?;
    // Mounts of volumes must reach the containers that run already.
    flags(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SHARED)?;
    for parent in ["/var/lib", "/var/log"] {
        overlay(Path::new(parent), dir)?;
    }
    for path in PRIVATE {
        let own = make(dir.join(flat(path)))?;
        bind(&own, &make(path.into())?)?;
    }
    let fakes = make(dir.join("settings"))?;
    let fake = |path: &str, content: &str| {
        let own = fakes.join(flat(path));
        if !own.exists() {
            fs::write(&own, format!("{content}\n"))?;
        }
        bind(&own, Path::new(path))
    };
    for (path, content) in SETTINGS {
        fake(path, content)?;
    }
    if Path::new(MACHINE).exists() {
        let id = fs::read_to_string(RANDOM)?.trim().replace('-', "");
        fake(MACHINE, &id)?;
    }
    // Each power-on is another boot.
    let boot = dir.join("boot-id");
    fs::write(&boot, fs::read_to_string(RANDOM)?)?;
    bind(&boot, Path::new("/proc/sys/kernel/random/boot_id"))
}

/// A `/sys` that shows the thread's own network namespace, with the control groups where they were.
fn fresh_sys(aside: &Path) -> Result<()> {
    let groups = Path::new(GROUPS);
    bind_all(groups, aside)?;
    let sysfs = Some("sysfs");
    mount(sysfs, "/sys", sysfs, MsFlags::empty(), None::<&str>).context("cannot mount /sys")?;
    bind_all(aside, groups)?;
    umount2(aside, MntFlags::MNT_DETACH).context("cannot take the control groups aside away")
}

/// What is below `path` stays, what is made there is the node's.
fn overlay(path: &Path, dir: &Path) -> Result<()> {
    let own = dir.join(flat(&path.to_string_lossy()));
    let (upper, work) = (make(own.join("upper"))?, make(own.join("work"))?);
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path.display(),
        upper.display(),
        work.display()
    );
    let kind = Some("overlay");
    mount(kind, path, kind, MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("cannot put an overlay over {}", path.display()))
}

fn make(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

fn flat(path: &str) -> String {
    path.trim_start_matches('/').replace('/', "-")
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    bound(from, to, MsFlags::MS_BIND)
}

fn bind_all(from: &Path, to: &Path) -> Result<()> {
    bound(from, to, MsFlags::MS_BIND | MsFlags::MS_REC)
}

fn bound(from: &Path, to: &Path, flags: MsFlags) -> Result<()> {
    mount(Some(from), to, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot bind {} to {}", from.display(), to.display()))
}

fn flags(path: &Path, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("cannot change the mount {}", path.display()))
}
