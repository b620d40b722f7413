//! Control groups of a lab's hosts: by these the processes of containers are known, and they go with the lab.
//!
//! A host's group has the lab's directory and the host in its name, so that whoever sweeps the directory
//! finds it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

use crate::wait;

/// Where hierarchies are mounted, version 1 in directories of their own.
const ROOT: &str = "/sys/fs/cgroup";
/// The group beside those of the pods: version 2 allows no process in a group that has groups.
const SYSTEM: &str = "system";
/// What kubelets want to limit.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];
/// Bound against hangs: a killed process may still be on its way out.
const GONE: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct Hierarchy {
    root: PathBuf,
    unified: bool,
}

/// All that are mounted.
fn hierarchies() -> &'static [Hierarchy] {
    static FOUND: OnceLock<Vec<Hierarchy>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let hierarchy = |line: &str| {
            let mut words = line.split(' ').skip(1);
            let (root, kind) = (words.next()?, words.next()?);
            let ours = root.starts_with(ROOT) && matches!(kind, "cgroup" | "cgroup2");
            ours.then(|| Hierarchy {
                root: root.into(),
                unified: kind == "cgroup2",
            })
        };
        mounts.lines().filter_map(hierarchy).collect()
    })
}

/// What the names of the groups of the lab in `dir` begin with.
pub(super) fn prefix(dir: &Path) -> String {
    let lab = dir.file_name().unwrap_or_default().to_string_lossy();
    format!("wsha-lab-{lab}-")
}

/// Makes the group of that name in each hierarchy.
pub(crate) fn create(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let root = &hierarchy.root;
        if hierarchy.unified {
            for controller in CONTROLLERS {
                // Where version 1 has it, or the kernel has not, it is not here.
                fs::write(
                    root.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                )
                .ok();
            }
        }
        let group = root.join(name);
        let system = group.join(SYSTEM);
        make(&group)?;
        // These begin empty, and nothing can run in a group without.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read_to_string(root.join(file))
                && !hierarchy.unified
            {
                fs::write(group.join(file), all)
                    .with_context(|| format!("cannot write {file} of {}", group.display()))?;
            }
        }
        if std::ptr::eq(hierarchy, tracking()?) {
            make(&system)?;
        }
    }
    Ok(())
}

fn make(group: &Path) -> Result<()> {
    fs::create_dir_all(group).with_context(|| format!("cannot make {}", group.display()))
}

/// The hierarchy by which daemons are known: the one that limits nothing, where there is one.
fn tracking() -> Result<&'static Hierarchy> {
    let all = hierarchies();
    let unified = all.iter().find(|hierarchy| hierarchy.unified);
    let found = unified.or_else(|| all.first());
    found.with_context(|| format!("no control groups below {ROOT}"))
}

/// Moves a process into the host's group; what it starts is there, too.
pub(crate) fn join(name: &str, pid: Pid) -> Result<()> {
    let file = tracking()?
        .root
        .join(name)
        .join(SYSTEM)
        .join("cgroup.procs");
    fs::write(&file, pid.to_string()).with_context(|| format!("cannot write {}", file.display()))
}

/// Moves `processes` into the host's group of the hierarchy that limits the CPU, and gives them so many hundredths of
/// one core.
pub(super) fn limit_cpu(name: &str, hundredths: u32, processes: &[Pid]) -> Result<()> {
    let quota = hundredths * 1000;
    for hierarchy in hierarchies() {
        let group = hierarchy.root.join(name);
        let (file, text, members) = if hierarchy.unified {
            ("cpu.max", format!("{quota} 100000"), group.join(SYSTEM))
        } else {
            ("cpu.cfs_quota_us", quota.to_string(), group.clone())
        };
        let limit = group.join(file);
        if !limit.exists() {
            continue;
        }
        let put = |file: &Path, text: String| {
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        put(&limit, text)?;
        // Where groups share the time of real-time threads too, a new one has none, and takes no such thread in.
        let real_time = group.join("cpu.rt_runtime_us");
        if real_time.exists() {
            put(&real_time, "500000".into())?;
        }
        let members = members.join("cgroup.procs");
        let mut processes = processes.iter();
        return processes.try_for_each(|pid| put(&members, pid.to_string()));
    }
    bail!("no control group limits the CPU")
}

/// How often the processes of a group had used up what [`limit_cpu`] gives them.
pub(super) fn throttled(name: &str) -> Result<u64> {
    let mut files = hierarchies()
        .iter()
        .map(|hierarchy| hierarchy.root.join(name).join("cpu.stat"));
    let count = files.find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix("nr_throttled ")?.parse().ok())
    });
    count.context("no control group counts")
}

/// The processes of a group and those below it, in any hierarchy.
pub(super) fn processes(name: &str) -> Vec<Pid> {
    let mut found = BTreeSet::new();
    for hierarchy in hierarchies() {
        each_below(&hierarchy.root.join(name), &mut |group| {
            let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            // One of another pid namespace reads as 0.
            let pids = list.lines().filter_map(|line| line.parse().ok());
            found.extend(pids.filter(|pid: &i32| *pid > 0));
        });
    }
    found.into_iter().map(Pid::from_raw).collect()
}

/// The groups of the lab in `dir`.
pub(crate) fn of_lab(dir: &Path) -> Vec<String> {
    let prefix = prefix(dir);
    let mut found = BTreeSet::new();
    for hierarchy in hierarchies() {
        let Ok(groups) = fs::read_dir(&hierarchy.root) else {
            continue;
        };
        let names = groups
            .flatten()
            .map(|group| group.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|name| name.starts_with(&prefix)));
    }
    found.into_iter().collect()
}

/// The processes of all groups of the lab in `dir`.
pub(super) fn processes_of_lab(dir: &Path) -> Vec<Pid> {
    let groups = of_lab(dir);
    groups.iter().flat_map(|name| processes(name)).collect()
}

/// Removes a group whose processes have ended, and those below it.
pub(crate) fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.root.join(name);
        let what = format!("the control group {} to be removed", group.display());
        wait::until(&what, GONE, || {
            each_below(&group, &mut |group| {
                // One that is in use still is tried again.
                fs::remove_dir(group).ok();
            });
            Ok((!group.exists()).then_some(()))
        })?;
    }
    Ok(())
}

/// Visits a group after those below it.
fn each_below(group: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(group) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            each_below(&entry.path(), visit);
        }
    }
    visit(group);
}
