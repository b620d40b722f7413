//! A proxy whose control group has little memory.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use dataplane::{ipc::ProxyReport, metrics::Metric};
use tokio_tungstenite::tungstenite::Error;

use crate::{
    agent::Rig,
    support::{Process, connect, round_trip, try_connect},
};

const MEMORY: u64 = 256 << 20;

/// A control group of its own; removed when dropped.
struct Group {
    dir: PathBuf,
    /// Of version 1 or 2: what its files are called.
    limit: &'static str,
    usage: &'static str,
    files: &'static str,
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group that still has processes stays.
        drop(fs::remove_dir(&self.dir));
    }
}

impl Group {
    /// Below that of this test, where it may be made.
    fn make() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let below = |controller: &str, hierarchy: &str| {
            let line = groups
                .lines()
                .find(|line| line.split(':').nth(1) == Some(controller))?;
            let path = line.splitn(3, ':').nth(2)?.trim_start_matches('/');
            let dir = Path::new("/sys/fs/cgroup").join(hierarchy).join(path);
            Some(dir.join(format!("wsha-proxy-{}", std::process::id())))
        };
        for (controller, hierarchy, limit, usage, files) in [
            (
                "memory",
                "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_",
            ),
            ("", "", "memory.max", "memory.current", ""),
        ] {
            let Some(dir) = below(controller, hierarchy) else {
                continue;
            };
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let group = Self {
                dir,
                limit,
                usage,
                files,
            };
            if group.allow(MEMORY).is_ok() {
                return Some(group);
            }
        }
        None
    }

    fn allow(&self, bytes: u64) -> io::Result<()> {
        fs::write(self.dir.join(self.limit), bytes.to_string())
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap()
    }

    /// Bytes in use, without what the kernel would give up.
    fn used(&self) -> u64 {
        let stat = self.read("memory.stat");
        let of_files = |kind: &str| {
            let name = format!("{}{kind}_file ", self.files);
            let value = stat.lines().find_map(|line| line.strip_prefix(&name));
            value.unwrap().parse::<u64>().unwrap()
        };
        let used: u64 = self.read(self.usage).trim().parse().unwrap();
        used.saturating_sub(of_files("active") + of_files("inactive"))
    }
}

/// A program in a group that keeps what it is sent.
struct Ballast(Child);

impl Drop for Ballast {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Ballast {
    fn in_group(group: &Group) -> Self {
        let child = Command::new("sh")
            .args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec tail -c 1G"#])
            .arg(&group.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Takes memory until `percent` of the group's is in use.
    fn fill(&mut self, group: &Group, percent: u64) {
        let stdin = self.0.stdin.as_mut().unwrap();
        while group.used() * 100 < MEMORY * percent {
            stdin.write_all(&vec![7; 256 << 10]).unwrap();
        }
    }
}

fn refuses(report: &ProxyReport) -> bool {
    let mut warnings = report.warnings.iter();
    warnings.any(|warning| warning.contains("new sessions are refused"))
}

#[tokio::test]
async fn new_sessions_are_refused_while_memory_is_nearly_used_up() {
    let Some(group) = Group::make() else {
        println!("SKIPPED: no control group can be made here");
        return;
    };
    let start = |arguments: &[&str]| Process::in_group(&group.dir, arguments);
    let mut rig = Rig::start("memory", start);
    let addresses = rig.configure();
    let mut session = connect(addresses[0]).await;
    let mut ballast = Ballast::in_group(&group);
    ballast.fill(&group, 90);
    let near = rig.report(|report| !report.warnings.is_empty());
    assert!(!refuses(&near), "{near:?}");
    round_trip(&mut connect(addresses[0]).await, "there is some").await;
    ballast.fill(&group, 96);
    rig.report(refuses);
    let refused = try_connect(addresses[1]).await.unwrap_err();
    let Error::Http(answer) = refused else {
        panic!("{refused}");
    };
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    round_trip(&mut session, "undisturbed").await;
    let is_counted = |report: &ProxyReport| {
        let mut samples = report.samples.iter();
        let limit = ("limit".to_owned(), "gateway_memory".to_owned());
        samples.any(|one| one.metric == Metric::ProxyLimitsHit && one.labels.contains(&limit))
    };
    rig.report(is_counted);
    // What the group is given later counts, too.
    group.allow(2 * MEMORY).unwrap();
    rig.report(|report| report.warnings.is_empty());
    round_trip(&mut connect(addresses[1]).await, "there is more").await;
    group.allow(MEMORY).unwrap();
    rig.report(refuses);
    drop(ballast);
    rig.report(|report| report.warnings.is_empty());
    round_trip(&mut connect(addresses[1]).await, "there is some again").await;
    drop(rig);
}
