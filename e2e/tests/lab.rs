//! The lab itself: what it claims to do to hosts is done, and nothing of it is left behind.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::arp::ArpWatch;
use e2e::lab::{Host, INTERFACE, Lab, VIP_SERVER1};
use e2e::wait;

const BOUND: Duration = Duration::from_secs(20);

/// A lab, or the reason why there is none.
#[expect(
    clippy::unwrap_used,
    reason = "a test whose lab cannot be built has failed"
)]
fn lab() -> Option<Lab> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: the lab needs root");
        return None;
    }
    Some(Lab::new().unwrap())
}

fn sleeper() -> Command {
    // Out of its process group and session, as daemons are: only its namespaces tell whose it is.
    let mut command = Command::new("setsid");
    command.args(["--fork", "sleep", "1000"]);
    command
}

/// Waits until these hosts and no others answer for `address`: a link or a bridge takes its time to change.
#[expect(clippy::unwrap_used, reason = "a test that waits in vain has failed")]
fn answered_by(arp: &ArpWatch, address: Ipv4Addr, hosts: &[&Host]) {
    let wanted = hosts.iter().map(|host| host.mac()).collect();
    arp.answered_by(address, &wanted, 3, Instant::now(), BOUND)
        .unwrap();
}

#[test]
fn arp_shows_who_holds_an_address() {
    let Some(lab) = lab() else { return };
    let arp = ArpWatch::start(&lab, &[VIP_SERVER1], Duration::from_millis(10)).unwrap();
    answered_by(&arp, VIP_SERVER1, &[]);
    let (first, second) = (lab.server1(), lab.server2());
    first
        .ip(&format!("addr add {VIP_SERVER1}/32 dev {INTERFACE}"))
        .unwrap();
    answered_by(&arp, VIP_SERVER1, &[first]);
    assert_eq!(lab.holders(VIP_SERVER1).unwrap(), ["server1"]);
    let both = Instant::now();
    second
        .ip(&format!("addr add {VIP_SERVER1}/32 dev {INTERFACE}"))
        .unwrap();
    answered_by(&arp, VIP_SERVER1, &[first, second]);
    assert!(arp.longest_double(VIP_SERVER1, both) > Duration::ZERO);
    first
        .ip(&format!("addr del {VIP_SERVER1}/32 dev {INTERFACE}"))
        .unwrap();
    answered_by(&arp, VIP_SERVER1, &[second]);
    let alone = Instant::now();
    answered_by(&arp, VIP_SERVER1, &[second]);
    assert_eq!(arp.longest_double(VIP_SERVER1, alone), Duration::ZERO);
}

#[test]
fn a_silent_host_keeps_its_carrier_and_a_cut_one_does_not() {
    let Some(lab) = lab() else { return };
    let host = lab.server1();
    let arp = ArpWatch::start(&lab, &[host.address()], Duration::from_millis(10)).unwrap();
    let there = || answered_by(&arp, host.address(), &[host]);
    let gone = || answered_by(&arp, host.address(), &[]);
    let carrier = |wanted: bool| {
        wait::until(&format!("carrier: {wanted}"), BOUND, || {
            let link = host.ip(&format!("link show dev {INTERFACE}"))?;
            Ok((link.contains("LOWER_UP") == wanted).then_some(()))
        })
        .unwrap();
    };
    there();
    carrier(true);
    host.silence().unwrap();
    gone();
    carrier(true);
    host.unsilence().unwrap();
    there();
    host.cable_cut().unwrap();
    gone();
    carrier(false);
    host.cable_mended().unwrap();
    there();
    carrier(true);
    host.link_down().unwrap();
    gone();
    host.link_up().unwrap();
    there();
    carrier(true);
}

#[test]
fn a_power_cycle_forgets_all_but_the_disk() {
    let Some(lab) = lab() else { return };
    let host = lab.server1();
    let arp = ArpWatch::start(&lab, &[host.address()], Duration::from_millis(10)).unwrap();
    host.ip(&format!("addr add {VIP_SERVER1}/32 dev {INTERFACE}"))
        .unwrap();
    host.output(Command::new("touch").tap(|c| c.arg("/run/volatile").arg("lasting")))
        .unwrap();
    host.spawn("sleeper", sleeper())
        .unwrap()
        .wait(BOUND)
        .unwrap();
    assert_eq!(host.processes().len(), 1);

    host.power_off().unwrap();
    assert_eq!(host.processes(), []);
    answered_by(&arp, host.address(), &[]);

    host.power_on().unwrap();
    assert_eq!(host.addresses().unwrap(), [host.address()]);
    answered_by(&arp, host.address(), &[host]);
    let exists = |file: &str| {
        host.output(Command::new("test").tap(|c| c.args(["-e", file])))
            .unwrap()
            .status
            .success()
    };
    assert!(exists("lasting"));
    assert!(!exists("/run/volatile"));
}

#[test]
fn a_frozen_host_still_answers_arp() {
    let Some(lab) = lab() else { return };
    let host = lab.server2();
    let arp = ArpWatch::start(&lab, &[host.address()], Duration::from_millis(10)).unwrap();
    let process = host
        .spawn("sleep", Command::new("sleep").tap(|c| c.arg("1000")))
        .unwrap();
    let state = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        status
            .lines()
            .find(|line| line.starts_with("State:"))
            .unwrap()
            .to_owned()
    };
    host.freeze();
    wait::until("the stop", BOUND, || {
        Ok(state().contains("T (stopped)").then_some(()))
    })
    .unwrap();
    answered_by(&arp, host.address(), &[host]);
    host.thaw();
    wait::until("the start", BOUND, || {
        Ok(state().contains("S (sleeping)").then_some(()))
    })
    .unwrap();
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    let Some(lab) = lab() else { return };
    lab.server1()
        .spawn("sleeper", sleeper())
        .unwrap()
        .wait(BOUND)
        .unwrap();
    let (pids, dir) = (lab.server1().processes(), lab.dir().to_owned());
    assert_eq!(pids.len(), 1);
    drop(lab);
    assert!(!dir.exists());
    for pid in pids {
        assert!(!e2e::lab::process::command_line(pid).contains("sleep"));
    }
}

/// Set for the process that owns a lab and is killed.
const OWNER: &str = "WSHA_TEST_LAB_OWNER";

/// Ends the process when dropped: one that is left behind parks with its lab for ever.
struct Owner(Child);

impl Drop for Owner {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Not a test of its own: [`a_killed_owner_is_swept`] runs it as a process that it can kill.
#[test]
fn owner() {
    if std::env::var_os(OWNER).is_none() {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.server1()
        .spawn("sleeper", sleeper())
        .unwrap()
        .wait(BOUND)
        .unwrap();
    println!("\nlab {}", lab.dir().display());
    std::io::stdout().flush().unwrap();
    std::thread::park();
}

#[test]
fn a_killed_owner_is_swept() {
    let Some(first) = lab() else { return };
    drop(first);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner", "--nocapture"])
        .env(OWNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut owner = Owner(child);
    let lines = BufReader::new(owner.0.stdout.take().unwrap()).lines();
    let dir = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("lab ").map(str::to_owned))
        .unwrap();
    let sleepers = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&dir))
        })
        .count()
    };
    assert_eq!(sleepers(), 1);
    drop(owner);
    drop(Lab::new().unwrap());
    assert_eq!(sleepers(), 0);
    assert!(!std::path::Path::new(&dir).exists());
}

/// Finishes a value in one expression.
trait Tap: Sized {
    fn tap(self, change: impl FnOnce(&mut Self) -> &mut Self) -> Self;
}

impl Tap for Command {
    fn tap(mut self, change: impl FnOnce(&mut Self) -> &mut Self) -> Self {
        change(&mut self);
        self
    }
}
