//! What twenty virtual routers cost.

use std::time::{Duration, Instant};

use dataplane::ipc::{Router, ToVrrp};
use node_api::RouterState::{self, Active, Backup};

use crate::{
    lab::Lab,
    node::{LONG, Node, router},
};

const COUNT: u8 = 20;
const SPAN: Duration = Duration::from_secs(3);

fn routers(priority: u8) -> Vec<Router> {
    (0..COUNT)
        .map(|number| router(&format!("192.168.1.{}", 100 + number), priority))
        .collect()
}

fn wait_all(node: &mut Node, state: RouterState) {
    let end = Instant::now() + LONG;
    loop {
        node.wait_router(|_| true);
        let count = node
            .report
            .routers
            .iter()
            .filter(|router| router.state == state)
            .count();
        if count == usize::from(COUNT) {
            return;
        }
        assert!(Instant::now() < end, "{count} in {state:?}");
    }
}

/// Processor time of a process, all threads.
fn used(node: &Node) -> Duration {
    let path = format!("/proc/{}/stat", node.process.id());
    let stat = std::fs::read_to_string(path).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    // A hundred ticks a second on every Linux that we know.
    Duration::from_millis(ticks * 10)
}

/// Minor and major page faults of the thread that sends the advertisements, so far.
fn faults(node: &Node) -> [u64; 2] {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.process.id())).unwrap();
    let stats = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
    let mut stats = stats.map(Result::unwrap);
    let stat = stats.find(|stat| stat.contains("(machine)")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    [7, 9].map(|field| fields[field].parse().unwrap())
}

fn resident_kib(node: &Node) -> String {
    let path = format!("/proc/{}/status", node.process.id());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.unwrap_or_default().to_owned()
}

/// The target is 3 % of a core for a hundred and for the optimised program; this one is not, and shares its cores.
#[test]
fn twenty_virtual_routers_are_cheap() {
    let Some(lab) = Lab::start(2) else { return };
    let mut a = Node::serving(&lab.hosts[0], &routers(250));
    wait_all(&mut a, Active);
    let mut b = Node::serving(&lab.hosts[1], &routers(235));
    wait_all(&mut b, Backup);
    let faults_before = (faults(&a), faults(&b));
    let before = (used(&a), used(&b));
    // A span to measure over, not a synchronisation.
    std::thread::sleep(SPAN);
    let share = |used: Duration| used.as_secs_f64() / SPAN.as_secs_f64() * 100.0;
    let active = share(used(&a).saturating_sub(before.0));
    let backup = share(used(&b).saturating_sub(before.1));
    println!(
        "Active for all: {active:.1} % of a core, {}",
        resident_kib(&a)
    );
    println!(
        "Backup for all: {backup:.1} % of a core, {}",
        resident_kib(&b)
    );
    assert!(active < 10.0 && backup < 10.0);
    // Hundreds of advertisements, sent and heard: from memory that is there and locked.
    assert_eq!((faults(&a), faults(&b)), faults_before);
    wait_all(&mut b, Backup);
    let [_, before] = faults(&b);
    a.send(&ToVrrp::Leave);
    wait_all(&mut b, Active);
    assert_eq!(faults(&b)[1], before, "a takeover waits for no disk");
}
