//! `wsha-dataplane proxy --io io_uring`.

use std::{collections::BTreeMap, env::consts::ARCH, thread};

use dataplane::{ipc::ProxyReport, metrics::Metric};
use nix::sys::signal::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::{
    agent::Rig,
    support::{Process, WORKERS, close_code, connect, round_trip},
};

fn start(arguments: &[&str]) -> Process {
    Process::start(&[arguments, &["--io", "io_uring"]].concat())
}

/// Makes a call fail for this thread and what it starts, as the filters of container runtimes do.
fn refuse(call: libc::c_long, error: i32) {
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(error.unsigned_abs()),
        TargetArch::try_from(ARCH).unwrap(),
    );
    let program = BpfProgram::try_from(filter.unwrap()).unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

fn workers_with_rings(report: &ProxyReport) -> String {
    let mut samples = report.samples.iter();
    let rings = samples.find(|sample| sample.metric == Metric::ProxyRings);
    rings.unwrap().value.to_string()
}

/// Whether this kernel has it, as the proxy makes it.
fn has_rings() -> bool {
    let rings = proxy::Ring::open_all(1);
    if let Err(error) = &rings {
        println!("SKIPPED: no io_uring ({error})");
    }
    rings.is_ok()
}

#[tokio::test]
async fn sessions_of_a_confined_process_are_read_by_rings_and_told_of_its_stop() {
    if !has_rings() {
        return;
    }
    let mut rig = Rig::start("rings", start);
    let addresses = rig.configure();
    let report = rig.report(|report| !report.pools.is_empty());
    assert_eq!(workers_with_rings(&report), WORKERS.to_string());
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let mut clients = Vec::new();
    for i in 0..20 {
        let mut ws = connect(addresses[i % 2]).await;
        round_trip(&mut ws, &format!("hello {i}")).await;
        clients.push(ws);
    }
    let large = "x".repeat(1 << 20);
    round_trip(&mut clients[0], &large).await;
    rig.agent = None;
    for ws in &mut clients {
        assert_eq!(close_code(ws).await, 1012);
    }
    assert_eq!(rig.ended().code(), Some(75), "another agent may come");
}

#[tokio::test]
async fn where_a_filter_refuses_it_sessions_are_read_by_epoll_and_that_is_told() {
    for (what, call, error, remedy) in [
        (
            "setup",
            libc::SYS_io_uring_setup,
            libc::EPERM,
            "seccomp profile",
        ),
        ("none", libc::SYS_io_uring_setup, libc::ENOSYS, "Linux 6.1"),
        (
            "register",
            libc::SYS_io_uring_register,
            libc::EPERM,
            "seccomp profile",
        ),
    ] {
        let refused = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
            let start = move || {
                refuse(call, error);
                let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
                start(&arguments)
            };
            thread::spawn(start).join().unwrap()
        };
        let mut rig = Rig::start(&format!("no-rings-{what}"), refused);
        let addresses = rig.configure();
        let report = rig.report(|report| !report.pools.is_empty());
        assert_eq!(workers_with_rings(&report), "0", "{what}");
        let [warning] = report.warnings.as_slice() else {
            panic!("{what}: {:?}", report.warnings);
        };
        assert!(
            warning.contains("are read by epoll") && warning.contains(remedy),
            "{warning}"
        );
        let mut ws = connect(addresses[0]).await;
        round_trip(&mut ws, "served all the same").await;
    }
}

#[tokio::test]
async fn alone_it_says_how_many_rings_it_has() {
    if !has_rings() {
        return;
    }
    let upstream = crate::support::echo().to_string();
    let process = start(&["--listen", "127.0.0.1:0", "--upstream", &upstream]);
    let event = process.logged("accepting");
    assert_eq!(event["rings"], WORKERS);
    let address = event["address"].as_str().unwrap().parse().unwrap();
    let mut ws = connect(address).await;
    round_trip(&mut ws, "hello").await;
    process.signal(Signal::SIGTERM);
    assert_eq!(close_code(&mut ws).await, 1001);
    assert!(process.ended().success());
}
