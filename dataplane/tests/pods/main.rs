//! The agent and its proxy as two containers of a pod, and one pod after another.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent_process/host.rs"]
mod host;
mod pod;

use std::{fs, os::unix::fs::MetadataExt as _, process::Command};

use host::{Host, eventually, manifests};
use nix::sys::signal::{Signal, kill};
use node_api::RouterState::Active;
use pod::{Container, PROXY, Pod};

const PORT: [u16; 1] = [8020];

fn host() -> Option<Host> {
    let host = Host::new()?;
    host.write(&manifests(&["server1"], &PORT));
    Some(host)
}

fn addresses() -> String {
    let output = Command::new("ip").args(["-4", "addr"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn holds() -> bool {
    addresses().contains("192.168.7.110")
}

/// The kernel marks the mutex of a process by its number in its own PID namespace; vrrp, in another,
/// must learn of the end all the same.
#[test]
fn a_proxy_in_a_container_of_its_own_comes_and_goes() {
    let Some(host) = host() else { return };
    let pod = Pod::new(&host, "pod");
    // Before the agent.
    let mut proxy = pod.proxy(&[]);
    eventually("it waits", || {
        pod.proxy_log().contains("waiting for the agent")
    });
    assert_eq!(proxy.process("proxy"), None);
    let said = pod.probe("live").unwrap_err();
    assert!(said.contains("no agent answers in run directory"), "{said}");
    let mut agent = pod.agent();
    pod.wait_ready();
    host.wait_active();
    assert_eq!(pod.probe("live"), Ok(()));
    let socket = fs::metadata(pod.run_dir().join("proxy.sock")).unwrap();
    assert_eq!((socket.mode() & 0o777, socket.uid()), (0o660, 0));
    assert_eq!(socket.gid().to_string(), PROXY);

    let first = proxy.process("proxy").unwrap();
    let ids = Container::status_of(first, "NSpid");
    assert_eq!(ids.split_whitespace().count(), 2, "a namespace of its own");
    for set in ["CapPrm", "CapEff", "CapAmb", "CapInh"] {
        assert_eq!(
            Container::status_of(first, set),
            "0000000000000000",
            "{set}"
        );
    }
    // A second one, as by mistake, disturbs nobody.
    let second = pod.proxy(&[]);
    eventually("it is refused", || {
        pod.agent_log()
            .contains("refused a second proxy process while one is connected")
    });
    drop(second);
    assert_eq!(proxy.process("proxy"), Some(first));

    // The proxy alone: withdrawn, and started again in place.
    kill(first, Signal::SIGKILL).unwrap();
    eventually("withdrawn", || {
        let report = host.status().unwrap();
        let mut all = report.virtual_routers[0].transitions.iter();
        all.any(|transition| transition.cause == "the proxy of this host does not serve")
    });
    eventually("another one", || {
        proxy.process("proxy").is_some_and(|pid| pid != first)
    });
    host.wait_active();
    pod.wait_ready();
    let log = pod.agent_log();
    assert!(
        log.contains("the proxy process is gone; it is waited for"),
        "{log}"
    );
    let (_, metrics) = host.get("/metrics").unwrap();
    assert!(metrics.contains("wsha_process_restarts_total{process=\"proxy\"} 1.0\n"));

    // Its whole container.
    drop(proxy);
    eventually("the reason", || {
        let said = pod.probe("ready").err().unwrap_or_default();
        said.contains("the proxy process does not run")
    });
    assert_eq!(pod.probe("live"), Ok(()));
    proxy = pod.proxy(&[]);
    pod.wait_ready();
    host.wait_active();

    // The agent's container: its vrrp ends with it.
    let first = proxy.process("proxy").unwrap();
    agent.signal(Signal::SIGKILL);
    agent.wait();
    eventually("its proxy leaves", || proxy.process("proxy") != Some(first));
    agent = pod.agent();
    pod.wait_ready();
    host.wait_active();
    assert!(proxy.process("proxy").is_some());

    // The end of the pod: both are asked at once, and the proxy stops on the agent's word.
    proxy.signal(Signal::SIGTERM);
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    assert!(proxy.wait().success());
    assert!(!holds(), "{}", addresses());
    for left in [
        "state/holder.sock",
        "pod/shared/run/agent.sock",
        "pod/shared/run/proxy.sock",
    ] {
        assert!(!host.at(left).exists(), "{left}");
    }
}

#[test]
fn without_stay_it_ends_when_the_agent_has_stopped() {
    let Some(host) = host() else { return };
    let pod = Pod::new(&host, "pod");
    let mut agent = pod.agent();
    let mut proxy = pod.proxy(&["--max-sessions", "5"]);
    pod.wait_ready();
    let pid = proxy.process("proxy").unwrap();
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(line.contains("\0--max-sessions\x005\0"), "{line:?}");
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().success());
    assert!(proxy.wait().success());
}

/// The agent cannot end it: it is of another PID namespace, and another user's.
#[test]
fn a_proxy_that_hangs_is_ended_by_its_parent() {
    let Some(host) = host() else { return };
    let pod = Pod::new(&host, "pod");
    let _agent = pod.agent();
    let proxy = pod.proxy(&[]);
    pod.wait_ready();
    let first = proxy.process("proxy").unwrap();
    kill(first, Signal::SIGSTOP).unwrap();
    eventually("another one", || {
        proxy.process("proxy").is_some_and(|pid| pid != first)
    });
    let log = pod.proxy_log();
    assert!(
        log.contains("the proxy process hangs; it is ended"),
        "{log}"
    );
    pod.wait_ready();
}

#[test]
fn a_newer_pod_takes_over_and_the_older_one_stays() {
    let Some(host) = host() else { return };
    let (old, new) = (Pod::new(&host, "old"), Pod::new(&host, "new"));
    let mut old_agent = old.agent();
    let mut old_proxy = old.proxy(&["--stay"]);
    old.wait_ready();
    host.wait_active();

    let new_agent = new.agent();
    let new_proxy = new.proxy(&["--stay"]);
    new.wait_ready();
    host.wait_active();
    // It is the same process, with nothing of what it was.
    eventually("the older one waits", || {
        old_agent.command_line().starts_with("wsha-dataplane stay ")
    });
    assert_eq!(old_agent.has_ended(), None);
    assert_eq!(old_agent.process("vrrp"), None);
    eventually("its proxy as well", || {
        old.proxy_log()
            .contains("waiting for SIGTERM, or for an agent")
    });
    assert_eq!(old_proxy.process("proxy"), None);
    assert_eq!(old_proxy.has_ended(), None);
    assert_eq!(old.probe("live"), Ok(()));
    let said = old.probe("ready").unwrap_err();
    assert!(
        said.contains("an agent of a newer pod serves this node"),
        "{said}"
    );

    // A container of the older pod is started again.
    let since = || host.status().unwrap().virtual_routers[0].since_unix_ms;
    let before = since();
    old_agent.signal(Signal::SIGKILL);
    old_agent.wait();
    old_agent = old.agent();
    eventually("refused", || {
        new.agent_log().contains("refused a take-over") && old.probe("live").is_ok()
    });
    let said = old.probe("ready").unwrap_err();
    assert!(said.contains("of a pod that is newer by"), "{said}");
    assert_eq!(since(), before, "the newer one was not disturbed");
    assert!(new_proxy.process("proxy").is_some() && new_agent.process("vrrp").is_some());

    // The end of the older pod.
    for container in [&mut old_agent, &mut old_proxy] {
        container.signal(Signal::SIGTERM);
        assert!(container.wait().success());
    }
    assert_eq!(since(), before);
    assert!(!old.run_dir().join("waiting.sock").exists());
    new.wait_ready();
}

/// An update that is undone: the newer pod is deleted, and the older one is all there is.
#[test]
fn the_older_pod_serves_again_when_nobody_else_does() {
    let Some(host) = host() else { return };
    let (old, new) = (Pod::new(&host, "old"), Pod::new(&host, "new"));
    let mut old_agent = old.agent();
    let mut old_proxy = old.proxy(&["--stay"]);
    old.wait_ready();
    let mut new_agent = new.agent();
    let mut new_proxy = new.proxy(&["--stay"]);
    new.wait_ready();
    for container in [&mut new_agent, &mut new_proxy] {
        container.signal(Signal::SIGTERM);
    }
    assert!(new_agent.wait().success() && new_proxy.wait().success());
    old.wait_ready();
    host.wait_status("Active", |report| report.virtual_routers[0].state == Active);
    assert!(old_agent.command_line().starts_with("wsha-dataplane run "));
    assert!(old_proxy.process("proxy").is_some());
    // And it hears what it is asked.
    for container in [&old_agent, &old_proxy] {
        container.signal(Signal::SIGTERM);
    }
    assert!(old_agent.wait().success() && old_proxy.wait().success());
    assert!(!holds());
}

#[test]
fn an_agent_that_hangs_does_not_live() {
    let Some(host) = host() else { return };
    let pod = Pod::new(&host, "pod");
    let agent = pod.agent();
    let _proxy = pod.proxy(&[]);
    pod.wait_ready();
    agent.signal(Signal::SIGSTOP);
    let said = pod.probe("live").unwrap_err();
    agent.signal(Signal::SIGCONT);
    assert!(said.contains("did not answer within 3 s"), "{said}");
    pod.wait_ready();
}

#[test]
fn an_agent_that_cannot_let_the_proxy_in_says_so() {
    let Some(host) = host() else { return };
    let pod = Pod::new(&host, "pod");
    let mut agent = pod.agent_as(&["--regid", "0", "--clear-groups"]);
    assert!(!agent.wait().success());
    let log = pod.agent_log();
    for words in ["supplementalGroups: 4242", "CAP_CHOWN"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    // As one group more.
    let _agent = pod.agent_as(&["--regid", "0", "--groups", PROXY]);
    let _proxy = pod.proxy(&[]);
    pod.wait_ready();
}
