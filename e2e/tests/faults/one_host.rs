//! One host is struck, or a part of it: the other one goes on with its own address, and takes the first one's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{INTERFACE, VIP_SERVER1, VIP_SERVER2, kill_at_once, signal_all};
use e2e::testing::{Cluster, Gateway, Manifest, Part, SETTLE, Session, Watch, in_cluster};
use e2e::wait;
use nix::sys::signal::Signal;
use node_api::RouterState;

use crate::{all, at_home};

const HIT: Gateway = Gateway::One;

/// What the other host does while the fault lasts.
#[derive(Clone, Copy, PartialEq)]
enum Other {
    TakesOver,
    /// The host that was struck heals by itself, and may have its address back before anyone has looked.
    TakesOverForAWhile,
    /// The fault may be over before it is missed.
    May,
    /// As [`Self::May`], and where it did not, the sessions notice nothing.
    MayOrNobodyNotices,
    StaysBackup,
}

/// Strikes server1, which holds [`VIP_SERVER1`]; [`VIP_SERVER2`] is at server2, which nothing happens to.
fn fault(
    test: &str,
    other: Other,
    strike: impl FnOnce(&mut Cluster) -> Result<()>,
    heal: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    in_cluster(test, &Manifest::article(), |cluster| {
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        let risen = cluster.entered(Gateway::Two, VIP_SERVER1, RouterState::Active)?;
        let struck = Instant::now();
        strike(cluster)?;
        match other {
            Other::TakesOver => {
                watch
                    .settles(cluster, VIP_SERVER1, Gateway::Two)
                    .context("after the fault")?;
                cluster.wait_state(Gateway::Two, VIP_SERVER1, RouterState::Active)?;
                watch.serves(VIP_SERVER1, Instant::now())?;
            }
            Other::TakesOverForAWhile => {
                watch
                    .settles_since(cluster, VIP_SERVER1, Gateway::Two, struck)
                    .context("after the fault")?;
                cluster.wait_entered_again(
                    Gateway::Two,
                    VIP_SERVER1,
                    RouterState::Active,
                    risen,
                )?;
                watch.serves(VIP_SERVER1, Instant::now())?;
            }
            Other::StaysBackup => stays(&watch, cluster, risen)?,
            Other::May | Other::MayOrNobodyNotices => {}
        }
        watch.settles(cluster, VIP_SERVER2, Gateway::Two)?;
        cluster.wait_state(Gateway::Two, VIP_SERVER2, RouterState::Active)?;
        heal(cluster)?;
        at_home(&watch, cluster).context("after the repair")?;
        watch.serves(VIP_SERVER1, Instant::now())?;
        let has_risen = cluster.entered(Gateway::Two, VIP_SERVER1, RouterState::Active)? > risen;
        if other == Other::StaysBackup || (other == Other::MayOrNobodyNotices && !has_risen) {
            watch.undisturbed(VIP_SERVER1, struck)?;
        }
        watch.undisturbed(VIP_SERVER2, struck)?;
        watch.never_split()
    })
}

/// Lets longer pass than any take-over needs, and fails if one happened.
fn stays(watch: &Watch, cluster: &Cluster, risen: usize) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(4);
    wait::until("nothing to happen", SETTLE, || {
        Ok((Instant::now() >= until).then_some(()))
    })?;
    watch.settles(cluster, VIP_SERVER1, HIT)?;
    ensure!(
        cluster.entered(Gateway::Two, VIP_SERVER1, RouterState::Active)? == risen,
        "server2 took over"
    );
    cluster.wait_state(Gateway::Two, VIP_SERVER1, RouterState::Backup)
}

/// Sends `signal` to a part of the host that is struck; waits for its successor.
fn replaced(cluster: &Cluster, part: Part, signal: Signal) -> Result<()> {
    let before = cluster.pid(HIT, part)?;
    cluster.signal(HIT, part, signal)?;
    cluster.wait_restarted(HIT, part, before).map(drop)
}

#[test]
fn proxy_killed() -> Result<()> {
    fault(
        "proxy_killed",
        Other::TakesOverForAWhile,
        |cluster| replaced(cluster, Part::Proxy, Signal::SIGKILL),
        |_| Ok(()),
    )
}

#[test]
fn vrrp_killed() -> Result<()> {
    fault(
        "vrrp_killed",
        Other::MayOrNobodyNotices,
        |cluster| replaced(cluster, Part::Vrrp, Signal::SIGKILL),
        |_| Ok(()),
    )
}

#[test]
fn agent_killed() -> Result<()> {
    fault(
        "agent_killed",
        Other::TakesOver,
        |cluster| cluster.signal(HIT, Part::Agent, Signal::SIGKILL),
        |cluster| cluster.start(HIT),
    )
}

#[test]
fn agent_killed_and_back_at_once() -> Result<()> {
    fault(
        "agent_killed_and_back_at_once",
        Other::May,
        |cluster| {
            cluster.signal(HIT, Part::Agent, Signal::SIGKILL)?;
            cluster.start(HIT)
        },
        |_| Ok(()),
    )
}

#[test]
fn all_three_killed() -> Result<()> {
    fault(
        "all_three_killed",
        Other::TakesOver,
        |cluster| {
            let pids = all(cluster, HIT);
            ensure!(pids.len() == 3, "{} processes instead of three", pids.len());
            kill_at_once(&pids);
            Ok(())
        },
        |cluster| cluster.start(HIT),
    )
}

#[test]
fn vrrp_and_proxy_killed() -> Result<()> {
    fault(
        "vrrp_and_proxy_killed",
        Other::May,
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

/// Nobody is there who could restart anything: vrrp itself must see that the proxy is gone.
#[test]
fn proxy_killed_under_a_stopped_agent() -> Result<()> {
    fault(
        "proxy_killed_under_a_stopped_agent",
        Other::TakesOver,
        |cluster| {
            cluster.signal(HIT, Part::Agent, Signal::SIGSTOP)?;
            cluster.signal(HIT, Part::Proxy, Signal::SIGKILL)
        },
        |cluster| cluster.signal(HIT, Part::Agent, Signal::SIGCONT),
    )
}

#[test]
fn proxy_stopped() -> Result<()> {
    fault(
        "proxy_stopped",
        Other::TakesOverForAWhile,
        |cluster| cluster.signal(HIT, Part::Proxy, Signal::SIGSTOP),
        // The agent finds that it hangs, ends it and starts another.
        |_| Ok(()),
    )
}

#[test]
fn vrrp_stopped() -> Result<()> {
    fault(
        "vrrp_stopped",
        Other::May,
        |cluster| replaced(cluster, Part::Vrrp, Signal::SIGSTOP),
        |_| Ok(()),
    )
}

#[test]
fn agent_stopped() -> Result<()> {
    fault(
        "agent_stopped",
        Other::StaysBackup,
        |cluster| cluster.signal(HIT, Part::Agent, Signal::SIGSTOP),
        |cluster| cluster.signal(HIT, Part::Agent, Signal::SIGCONT),
    )
}

#[test]
fn all_three_stopped() -> Result<()> {
    fault(
        "all_three_stopped",
        Other::TakesOver,
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

/// Too short for the lease to end: the host wakes up with the address in place, and another has it.
#[test]
fn all_three_stopped_until_the_address_moves() -> Result<()> {
    fault(
        "all_three_stopped_until_the_address_moves",
        Other::May,
        |cluster| {
            signal_all(&all(cluster, HIT), Signal::SIGSTOP);
            wait::until("server2 to take over", SETTLE, || {
                Ok(cluster.host(Gateway::Two).holds(VIP_SERVER1)?.then_some(()))
            })
        },
        |cluster| {
            signal_all(&all(cluster, HIT), Signal::SIGCONT);
            Ok(())
        },
    )
}

/// The clients' requests show it, as there is no other sign of it; the host returns when it reaches one again.
#[test]
fn no_endpoint_within_reach() -> Result<()> {
    let routes = |cluster: &Cluster, verb: &str| {
        let backends = cluster.lab.backends().iter().take(3);
        backends
            .map(|backend| format!("route {verb} blackhole {}/32", backend.address()))
            .try_for_each(|words| cluster.host(HIT).ip(&words).map(drop))
    };
    fault(
        "no_endpoint_within_reach",
        Other::TakesOver,
        move |cluster| {
            routes(cluster, "add")?;
            wait::until("server2 to take over", SETTLE, || {
                // Refused, by server1; or served, by server2.
                drop(Session::open(cluster.lab.client(), VIP_SERVER1));
                Ok(cluster.host(Gateway::Two).holds(VIP_SERVER1)?.then_some(()))
            })
        },
        move |cluster| routes(cluster, "del"),
    )
}

#[test]
fn link_down_at_the_host() -> Result<()> {
    fault(
        "link_down_at_the_host",
        Other::TakesOver,
        |cluster| cluster.host(HIT).link_down(),
        |cluster| cluster.host(HIT).link_up(),
    )
}

#[test]
fn link_down_at_the_switch() -> Result<()> {
    fault(
        "link_down_at_the_switch",
        Other::TakesOver,
        |cluster| cluster.host(HIT).cable_cut(),
        |cluster| cluster.host(HIT).cable_mended(),
    )
}

/// It is put back before anybody misses it.
#[test]
fn address_removed_by_hand() -> Result<()> {
    fault(
        "address_removed_by_hand",
        Other::StaysBackup,
        |cluster| {
            let words = format!("addr del {VIP_SERVER1}/32 dev {INTERFACE}");
            cluster.host(HIT).ip(&words).map(drop)
        },
        |_| Ok(()),
    )
}

/// Who holds the address keeps it, and tells whose hardware address answers for it, too.
#[test]
fn address_at_a_stranger() -> Result<()> {
    in_cluster("address_at_a_stranger", &Manifest::article(), |cluster| {
        let stranger = &cluster.lab.backends()[0];
        let mac = stranger.mac().to_string();
        let risen = cluster.entered(Gateway::Two, VIP_SERVER1, RouterState::Active)?;
        let conflicts = |report: &node_api::NodeReport| {
            let routers = report.virtual_routers.iter();
            let macs = routers.flat_map(|it| &it.conflicts);
            let macs = macs.map(|it| it.hardware_address.clone());
            macs.collect::<Vec<_>>()
        };
        stranger.ip(&format!("addr add {VIP_SERVER1}/32 dev {INTERFACE}"))?;
        cluster.wait_status(HIT, "the stranger to be told of", |report| {
            (conflicts(report) == [mac.as_str()]).then_some(())
        })?;
        cluster.wait_state(HIT, VIP_SERVER1, RouterState::Active)?;
        stranger.ip(&format!("addr del {VIP_SERVER1}/32 dev {INTERFACE}"))?;
        cluster.wait_status(HIT, "the stranger to be gone", |report| {
            conflicts(report).is_empty().then_some(())
        })?;
        ensure!(
            cluster.entered(Gateway::Two, VIP_SERVER1, RouterState::Active)? == risen,
            "server2 took over"
        );
        let watch = Watch::start(cluster, &[VIP_SERVER1])?;
        watch.settles(cluster, VIP_SERVER1, HIT)
    })
}

/// After each heal the holder must be believed: a client that kept the other's MAC would be stuck for its ARP time-out.
#[test]
fn silent_partition_healed_three_times() -> Result<()> {
    in_cluster(
        "silent_partition_healed_three_times",
        &Manifest::article(),
        |cluster| {
            let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
            let struck = Instant::now();
            for _ in 0..3 {
                cluster.host(HIT).silence()?;
                watch.settles(cluster, VIP_SERVER1, Gateway::Two)?;
                cluster.wait_state(Gateway::Two, VIP_SERVER1, RouterState::Active)?;
                watch.serves(VIP_SERVER1, Instant::now())?;
                cluster.host(HIT).unsilence()?;
                watch.settles(cluster, VIP_SERVER1, HIT)?;
                let (mac, client) = (cluster.host(HIT).mac().to_string(), cluster.lab.client());
                wait::until(
                    "the client to know who holds the address",
                    Duration::from_secs(5),
                    || Ok(client.neighbour(VIP_SERVER1)?.contains(&mac).then_some(())),
                )?;
                watch.serves(VIP_SERVER1, Instant::now())?;
                at_home(&watch, cluster)?;
            }
            watch.undisturbed(VIP_SERVER2, struck)?;
            watch.never_split()
        },
    )
}
