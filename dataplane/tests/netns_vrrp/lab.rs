//! Hosts as network namespaces on a bridge, each a thread that entered a namespace of its own.
//! Everything goes with the threads.

use std::{
    fs,
    process::{Command, Output},
    sync::mpsc,
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use vrrp::wire::Mac;

use crate::node::eventually;

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
pub(crate) struct Host {
    jobs: mpsc::Sender<Job>,
    pub(crate) tid: i32,
}

impl Host {
    /// `None`, with the reason printed, where namespaces are not permitted.
    fn start() -> Option<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (ready, wait) = mpsc::channel();
        thread::spawn(move || {
            let entered = unshare(CloneFlags::CLONE_NEWNET);
            ready.send((entered, gettid().as_raw())).unwrap();
            if entered.is_ok() {
                for job in todo {
                    job();
                }
            }
        });
        match wait.recv().unwrap() {
            (Ok(()), tid) => Some(Self { jobs, tid }),
            (Err(error), _) => {
                println!("SKIPPED: cannot make a network namespace: {error}");
                None
            }
        }
    }

    /// Runs `job` in the namespace; threads and processes that it starts live there too.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, wait) = mpsc::channel();
        self.jobs
            .send(Box::new(move || done.send(job()).unwrap()))
            .unwrap();
        wait.recv().unwrap()
    }

    /// Runs `ip` with these words.
    pub(crate) fn ip(&self, words: &str) -> String {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let text = words.join(" ");
        let Output {
            status,
            stdout,
            stderr,
        } = self.run(move || Command::new("ip").args(words).output().unwrap());
        assert!(
            status.success(),
            "ip {text}: {}",
            String::from_utf8_lossy(&stderr)
        );
        String::from_utf8(stdout).unwrap()
    }

    /// Sets a parameter of IPv6 for interfaces that come.
    pub(crate) fn set_ipv6(&self, name: &str, value: &str) {
        let (path, value) = (
            format!("/proc/sys/net/ipv6/conf/default/{name}"),
            value.to_owned(),
        );
        self.run(move || fs::write(path, value).unwrap());
    }

    /// Hardware address of `eth0`.
    pub(crate) fn mac(&self) -> Mac {
        let shown = self.ip("-o link show dev eth0");
        let text = shown.split("link/ether ").nth(1).unwrap();
        let bytes: Vec<u8> = text[..17]
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        Mac(bytes.try_into().unwrap())
    }

    /// What `ip` says of `address`; empty if the host does not have it.
    pub(crate) fn shown(&self, address: &str) -> String {
        self.ip(&format!("-o addr show to {address}"))
    }

    /// Waits until the host has `address`, which is added a moment after a router became Active.
    pub(crate) fn wait_shown(&self, address: &str) {
        eventually("the address is held", || !self.shown(address).is_empty());
    }
}

/// A bridge, and hosts on it: 192.168.1.1, .2, ... and `fd00:1::1`, ... on `eth0`. Nobody looks for
/// duplicates of IPv6 addresses, which would take a second or two.
pub(crate) struct Lab {
    pub(crate) switch: Host,
    pub(crate) hosts: Vec<Host>,
}

impl Lab {
    pub(crate) fn start(count: usize) -> Option<Self> {
        let switch = Host::start()?;
        switch.ip("link add br0 type bridge mcast_snooping 0");
        switch.ip("link set br0 up");
        let mut hosts = Vec::new();
        for number in 1..=count {
            let host = Host::start()?;
            host.ip("link set lo up");
            host.set_ipv6("disable_ipv6", "0");
            host.set_ipv6("accept_dad", "0");
            let tid = host.tid;
            switch.ip(&format!(
                "link add port{number} type veth peer name eth0 netns {tid}"
            ));
            switch.ip(&format!("link set port{number} master br0 up"));
            host.ip(&format!("addr add 192.168.1.{number}/24 dev eth0"));
            host.ip("link set eth0 up");
            host.ip(&format!("addr add fd00:1::{number}/64 dev eth0"));
            hosts.push(host);
        }
        Some(Self { switch, hosts })
    }
}
