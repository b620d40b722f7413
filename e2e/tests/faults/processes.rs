//! Processes die, stop or get too little of the CPU.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::lab::{PORT, kill_at_once, signal_all};
use e2e::testing::{Cluster, Gateway, Part, SETTLE, Session, Watch};
use e2e::wait;
use nix::sys::signal::Signal;
use node_api::RouterState;

use crate::one_host::{HIT, Other, RELEASED, SILENT, Story, fault};
use crate::wire::{Wire, in_cluster};
use crate::{all, at_home};

/// It is the proxy for which the host lets go.
const WITHDRAWN: Story = Story {
    heir: RELEASED,
    struck: &["the proxy of this host does not serve"],
};

/// Sends `signal` to a part of the host that is struck; waits for its successor.
fn replaced(cluster: &Cluster, part: Part, signal: Signal) -> Result<()> {
    let before = cluster.pid(HIT, part)?;
    cluster.signal(HIT, part, signal)?;
    cluster.wait_restarted(HIT, part, before).map(drop)
}

fn proxy_killed(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::TakesOverForAWhile,
        WITHDRAWN,
        |cluster| replaced(cluster, Part::Proxy, Signal::SIGKILL),
        |_| Ok(()),
    )
}
row!(proxy_killed: v2, v3; nightly: ipv6);

fn vrrp_killed(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::MayOrNobodyNotices,
        Story::of(SILENT),
        |cluster| replaced(cluster, Part::Vrrp, Signal::SIGKILL),
        |_| Ok(()),
    )
}
row!(vrrp_killed: v3, ipv6; nightly: v2);

fn agent_killed(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::TakesOver,
        Story::of(RELEASED),
        |cluster| cluster.signal(HIT, Part::Agent, Signal::SIGKILL),
        |cluster| cluster.start(HIT),
    )
}
row!(agent_killed: v3; nightly: v2, ipv6);

fn agent_killed_and_back_at_once(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::May,
        Story::of(RELEASED),
        |cluster| {
            cluster.signal(HIT, Part::Agent, Signal::SIGKILL)?;
            cluster.start(HIT)
        },
        |_| Ok(()),
    )
}
row!(agent_killed_and_back_at_once: v3; nightly: v2, ipv6);

fn all_three_killed(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::TakesOver,
        Story::of(SILENT),
        |cluster| {
            let pids = all(cluster, HIT);
            ensure!(pids.len() == 3, "{} processes instead of three", pids.len());
            kill_at_once(&pids);
            Ok(())
        },
        |cluster| cluster.start(HIT),
    )
}
row!(all_three_killed: v3, dual4, dual6; nightly: v2, ipv6);

fn vrrp_and_proxy_killed(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::May,
        // The new vrrp tells that there is no proxy, where it is there in time.
        Story::of(&["left", "fell silent"]),
        |cluster| {
            let vrrp = cluster.pid(HIT, Part::Vrrp)?;
            let proxy = cluster.pid(HIT, Part::Proxy)?;
            kill_at_once(&[vrrp, proxy]);
            cluster.wait_restarted(HIT, Part::Vrrp, vrrp)?;
            cluster.wait_restarted(HIT, Part::Proxy, proxy).map(drop)
        },
        |_| Ok(()),
    )
}
row!(vrrp_and_proxy_killed: v3; nightly: v2, ipv6);

/// Nobody is there who could restart anything: vrrp itself must see that the proxy is gone.
fn proxy_killed_under_a_stopped_agent(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::TakesOver,
        WITHDRAWN,
        |cluster| {
            cluster.signal(HIT, Part::Agent, Signal::SIGSTOP)?;
            cluster.signal(HIT, Part::Proxy, Signal::SIGKILL)
        },
        |cluster| cluster.signal(HIT, Part::Agent, Signal::SIGCONT),
    )
}
row!(proxy_killed_under_a_stopped_agent: v3; nightly: v2, ipv6);

fn proxy_stopped(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::TakesOverForAWhile,
        WITHDRAWN,
        |cluster| cluster.signal(HIT, Part::Proxy, Signal::SIGSTOP),
        // The agent finds that it hangs, ends it and starts another.
        |_| Ok(()),
    )
}
row!(proxy_stopped: v3; nightly: v2, ipv6);

fn vrrp_stopped(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::May,
        Story::of(SILENT),
        |cluster| replaced(cluster, Part::Vrrp, Signal::SIGSTOP),
        |_| Ok(()),
    )
}
row!(vrrp_stopped: v3; nightly: v2, ipv6);

fn agent_stopped(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::StaysBackup,
        Story::of(SILENT),
        |cluster| cluster.signal(HIT, Part::Agent, Signal::SIGSTOP),
        |cluster| cluster.signal(HIT, Part::Agent, Signal::SIGCONT),
    )
}
row!(agent_stopped: v3; nightly: v2, ipv6);

fn all_three_stopped(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::TakesOver,
        Story {
            heir: SILENT,
            struck: &["did not run for so long"],
        },
        |cluster| {
            signal_all(&all(cluster, HIT), Signal::SIGSTOP);
            Ok(())
        },
        |cluster| {
            signal_all(&all(cluster, HIT), Signal::SIGCONT);
            Ok(())
        },
    )
}
row!(all_three_stopped: v3; nightly: v2, ipv6);

/// Too short for the lease to end: the host wakes up with the address in place, and another has it.
fn all_three_stopped_until_the_address_moves(test: &str, wire: Wire) -> Result<()> {
    fault(
        (test, wire),
        Other::May,
        Story::of(SILENT),
        |cluster| {
            signal_all(&all(cluster, HIT), Signal::SIGSTOP);
            wait::until("server2 to take over", SETTLE, || {
                Ok(cluster.host(Gateway::Two).holds(wire.one())?.then_some(()))
            })
        },
        |cluster| {
            signal_all(&all(cluster, HIT), Signal::SIGCONT);
            Ok(())
        },
    )
}
row!(all_three_stopped_until_the_address_moves: v3; nightly: v2, ipv6);

/// The clients' requests show it, as there is no other sign of it; the host returns when it reaches one again.
fn no_endpoint_within_reach(test: &str, wire: Wire) -> Result<()> {
    let routes = |cluster: &Cluster, verb: &str| {
        let backends = cluster.lab.backends().iter().take(3);
        backends
            .map(|backend| format!("route {verb} blackhole {}/32", backend.address()))
            .try_for_each(|words| cluster.host(HIT).ip(&words).map(drop))
    };
    fault(
        (test, wire),
        Other::TakesOver,
        Story {
            heir: &["has the lower priority"],
            struck: &["is Active with the higher priority"],
        },
        move |cluster| {
            routes(cluster, "add")?;
            wait::until("server2 to take over", SETTLE, || {
                // Refused, by server1; or served, by server2.
                drop(Session::open(cluster.lab.client(), wire.one()));
                Ok(cluster.host(Gateway::Two).holds(wire.one())?.then_some(()))
            })
        },
        move |cluster| routes(cluster, "del"),
    )
}
row!(no_endpoint_within_reach: v3; nightly: v2, ipv6);

/// What vrrp needs of the CPU it gets where it may run in real time. All else waits, and is no reason to let go.
fn slow_under_load(test: &str, wire: Wire) -> Result<()> {
    const HUNDREDTHS: u32 = 5;
    const CLIENTS: usize = 20;
    in_cluster(test, wire, |cluster| {
        let watch = Watch::start(cluster, &wire.both())?;
        let risen = cluster.entered(Gateway::Two, wire.one(), RouterState::Active)?;
        let struck = Instant::now();
        let client = cluster.lab.client();
        let mut sessions = Session::open_many(client, wire.one(), PORT, CLIENTS)?;
        cluster.host(HIT).slow(&all(cluster, HIT), HUNDREDTHS)?;
        let payload = vec![0x5a; 128 << 10];
        // For longer than any take-over needs, and until it was slow indeed.
        let lasts = |slow: u64| slow < 20 && struck.elapsed() < SETTLE;
        while struck.elapsed() < Duration::from_secs(5) || lasts(cluster.host(HIT).throttled()?) {
            for session in &mut sessions {
                session.send_message(&payload, payload.len())?;
            }
            for session in &mut sessions {
                session.expect_echo(&payload)?;
            }
        }
        let throttled = cluster.host(HIT).throttled()?;
        println!("the host had to wait {throttled} times");
        ensure!(throttled >= 20, "the host was not slow");
        at_home(&watch, cluster, wire)?;
        ensure!(
            cluster.entered(Gateway::Two, wire.one(), RouterState::Active)? == risen,
            "server2 took over from a host that is merely slow"
        );
        ensure!(
            watch.losses(wire.one(), struck)? == 0,
            "the slow host lost a session"
        );
        watch.undisturbed(wire.two(), struck)?;
        watch.never_split()
    })
}
row!(slow_under_load: v3; nightly: v2, ipv6);
