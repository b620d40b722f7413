//! `wsha-dataplane proxy --listen A:P --upstream A:P`.

use std::{fs, net::SocketAddr, process::Command};

use nix::sys::signal::Signal;

use crate::support::{Process, WORKERS, close_code, connect, echo, round_trip};

fn start() -> (Process, SocketAddr) {
    let upstream = echo().to_string();
    let process = Process::start(&["--listen", "127.0.0.1:0", "--upstream", &upstream]);
    let event = process.logged("accepting");
    let address = event["address"].as_str().unwrap().parse().unwrap();
    (process, address)
}

async fn told_to_end_by(signal: Signal) {
    let (process, address) = start();
    let mut clients = Vec::new();
    for i in 0..20 {
        let mut ws = connect(address).await;
        round_trip(&mut ws, &format!("hello {i}")).await;
        clients.push(ws);
    }
    process.signal(signal);
    for ws in &mut clients {
        assert_eq!(close_code(ws).await, 1001);
    }
    let left = process.logged("left");
    assert_eq!(left["sessions"], 20);
    assert!(process.ended().success());
}

#[tokio::test]
async fn sessions_are_told_when_the_service_is_stopped() {
    told_to_end_by(Signal::SIGTERM).await;
}

#[tokio::test]
async fn sessions_are_told_when_the_user_presses_ctrl_c() {
    told_to_end_by(Signal::SIGINT).await;
}

#[tokio::test]
async fn it_serves_without_any_privilege() {
    let (process, address) = start();
    round_trip(&mut connect(address).await, "confined").await;
    let root = format!("/proc/{}", process.pid());
    let mut threads = 0;
    for thread in fs::read_dir(format!("{root}/task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(u64::from_str_radix(&value(set), 16), Ok(0), "{set}");
        }
        assert_eq!(value("NoNewPrivs:"), "1");
        assert_eq!(value("Seccomp:"), "2", "filter mode (seccomp(2))");
        threads += 1;
    }
    assert!(threads > WORKERS, "each worker was looked at");
    let limits = fs::read_to_string(format!("{root}/limits")).unwrap();
    let core = limits.lines().find(|line| line.contains("core file size"));
    let numbers: Vec<_> = core.unwrap().split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"]);
}

#[test]
fn a_number_of_workers_that_cannot_be_is_refused_in_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_wsha-dataplane"))
        .args([
            "proxy",
            "--listen",
            "127.0.0.1:0",
            "--upstream",
            "127.0.0.1:1",
        ])
        .args(["--workers", "0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("--workers"), "{message}");
    assert!(message.contains("64"), "what is possible: {message}");
}
