//! How much memory the control group of the process may have, and has (cgroups(7)).

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// As much as is read of `memory.stat`, which has some two thousand bytes.
const STAT_MAX: usize = 16 * 1024;

/// The files of one version of control groups.
#[derive(Debug)]
struct Version {
    /// Where its hierarchy is, below the place of all.
    folder: &'static str,
    /// The controller in `/proc/self/cgroup`.
    controller: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// What `memory.stat` calls what it keeps of files.
    files: [&'static str; 2],
}

static VERSIONS: [Version; 2] = [
    Version {
        folder: "",
        controller: "",
        limit: "memory.max",
        usage: "memory.current",
        files: ["inactive_file", "active_file"],
    },
    Version {
        folder: "memory",
        controller: "memory",
        limit: "memory.limit_in_bytes",
        usage: "memory.usage_in_bytes",
        files: ["total_inactive_file", "total_active_file"],
    },
];

/// What version 1 has for no limit is the largest number of pages; nobody has an exbibyte.
const NO_LIMIT: u64 = 1 << 60;

/// The control group with the lowest limit of memory, at the start, among those of the process.
#[derive(Debug)]
pub struct MemoryLimit {
    /// Open, as are the others: a confined process can open nothing.
    limit: File,
    usage: File,
    stat: File,
    version: &'static Version,
}

impl MemoryLimit {
    /// The limit that the process has now; `None`: none, or it cannot be read.
    pub fn find() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::among(&groups, Path::new("/sys/fs/cgroup"))
    }

    /// The limit with these groups (`/proc/self/cgroup`) and the hierarchies at `root`.
    fn among(groups: &str, root: &Path) -> Option<Self> {
        VERSIONS
            .iter()
            .filter_map(|version| version.lowest(groups, &root.join(version.folder)))
            .min_by_key(|(bytes, _)| *bytes)
            .map(|(_, limit)| limit)
    }

    /// Bytes that it may have now; `None`: it has no limit any more. Pods are resized in place, and
    /// units by `systemctl set-property`.
    pub fn bytes(&self) -> Option<u64> {
        limit(&read(&self.limit)?)
    }

    /// Bytes that it has, the kernel's buffers of its sockets included.
    pub fn used(&self) -> Option<u64> {
        number(&read(&self.usage)?)
    }

    /// Bytes of these that the kernel keeps of files, and gives up where memory is needed.
    pub fn files(&self) -> u64 {
        let mut text = vec![0; STAT_MAX];
        let len = self.stat.read_at(&mut text, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default());
        let values = text.lines().filter_map(|line| line.split_once(' '));
        let of_files = values.filter(|(name, _)| self.version.files.contains(name));
        of_files.filter_map(|(_, value)| number(value)).sum()
    }
}

impl Version {
    fn lowest(&'static self, groups: &str, root: &Path) -> Option<(u64, MemoryLimit)> {
        let is_meant = |line: &&str| {
            let mut controllers = line.split(':').nth(1).unwrap_or_default().split(',');
            controllers.any(|controller| controller == self.controller)
        };
        let path = groups.lines().find(is_meant)?.splitn(3, ':').nth(2)?;
        // In a container the path may be that of the host, and the group itself be the root here.
        let folder: PathBuf = root.join(path.trim_start_matches('/'));
        let folders = folder.ancestors().take_while(|at| at.starts_with(root));
        let limits = folders.filter_map(|folder| {
            let open = |name| File::open(folder.join(name)).ok();
            let limit = MemoryLimit {
                limit: open(self.limit)?,
                usage: open(self.usage)?,
                stat: open("memory.stat")?,
                version: self,
            };
            Some((limit.bytes()?, limit))
        });
        limits.min_by_key(|(bytes, _)| *bytes)
    }
}

/// What a file with one value says.
fn read(file: &File) -> Option<String> {
    let mut text = [0; 24];
    let len = file.read_at(&mut text, 0).ok()?;
    str::from_utf8(text.get(..len)?).ok().map(str::to_owned)
}

/// The limit that a file says, if it is one.
fn limit(text: &str) -> Option<u64> {
    number(text).filter(|bytes| *bytes < NO_LIMIT)
}

fn number(text: &str) -> Option<u64> {
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_up_is_found_in_either_version() {
        let root = std::env::temp_dir().join(format!("wsha-cgroup-{}", std::process::id()));
        let write = |folder: &str, files: &[(&str, &str)]| {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).unwrap();
            for (name, content) in files {
                fs::write(folder.join(name), content).unwrap();
            }
        };
        let stat = ("memory.stat", "anon 10\ninactive_file 20\nactive_file 30\n");
        let version_2 = |limit, usage| [("memory.max", limit), ("memory.current", usage), stat];
        write("a", &version_2("5000\n", "70\n"));
        write("a/b", &version_2("max\n", "60\n"));
        let (limit, usage) = ("memory.limit_in_bytes", "memory.usage_in_bytes");
        write(
            "memory",
            &[(limit, "9223372036854771712\n"), (usage, "9\n")],
        );
        let stat = (
            "memory.stat",
            "inactive_file 1\nactive_file 1\ntotal_inactive_file 2\ntotal_active_file 3\n",
        );
        write("memory/c", &[(limit, "4000\n"), (usage, "8\n"), stat]);
        let found = |groups| {
            let limit = MemoryLimit::among(groups, &root)?;
            Some((limit.bytes().unwrap(), limit.used().unwrap(), limit.files()))
        };
        assert_eq!(found("0::/a/b\n"), Some((5000, 70, 50)));
        assert_eq!(found("0::/\n"), None, "the root has none");
        assert_eq!(found("4:cpu,memory:/c\n0::/\n"), Some((4000, 8, 5)));
        assert_eq!(found("4:memory:/kubepods/x\n0::/\n"), None);
        assert_eq!(found("4:memory:/c\n0::/a\n"), Some((4000, 8, 5)));
        assert_eq!(found("no such thing"), None);
        // What is edited meanwhile is followed.
        let limit = MemoryLimit::among("0::/a/b\n", &root).unwrap();
        for (text, bytes) in [("6000\n", Some(6000)), ("max\n", None), ("70\n", Some(70))] {
            fs::write(root.join("a/memory.max"), text).unwrap();
            assert_eq!(limit.bytes(), bytes);
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
