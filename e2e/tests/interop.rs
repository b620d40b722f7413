//! A virtual router shared with Debian's keepalived, in both versions and both roles, and with version 3 over IPv6.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::lab::{Host, INTERFACE, Process, VIP_SERVER1};
use e2e::testing::{Cluster, Gateway, Manifest, Part, Pool, SETTLE, Watch, in_lab, skipped};
use e2e::{tools, wait};
use nix::sys::signal::Signal;
use node_api::RouterState;

const VRID: u8 = 52;
const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x112);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x112);

/// wsha runs on server1, keepalived on server2.
#[derive(Clone, Copy)]
struct Group {
    version: u8,
    /// The addresses that both share, in the order in which keepalived is told: it sends them so.
    addresses: &'static [IpAddr],
    wsha: u8,
    keepalived: u8,
}

const V4: &[IpAddr] = &[IpAddr::V4(VIP_SERVER1)];
/// As RFC 9568 section 5.2.9 asks.
const V6: &[IpAddr] = &[IpAddr::V6(LINK_LOCAL), IpAddr::V6(IPV6)];
/// As most write it.
const V6_ALONE: &[IpAddr] = &[IpAddr::V6(IPV6)];

impl Group {
    /// The one that clients use.
    fn shared(self) -> IpAddr {
        let last = self.addresses.last();
        last.copied().unwrap_or(IpAddr::V4(VIP_SERVER1))
    }

    /// Gives the hosts addresses of the family; a host that was switched off has lost its own.
    fn number(self, cluster: &Cluster, hosts: &[(&Host, u8)]) -> Result<()> {
        for (host, last) in hosts.iter().filter(|_| self.shared().is_ipv6()) {
            host.ip(&format!("addr add fd00:1::{last}/64 dev {INTERFACE} nodad"))?;
            let link_local = host.mac().link_local();
            wait::until("a link-local address", SETTLE, || {
                let shown = host.ip(&format!("-6 addr show dev {INTERFACE} to {link_local}"))?;
                let is_usable = !shown.is_empty() && !shown.contains("tentative");
                Ok(is_usable.then_some(()))
            })
            .with_context(|| format!("on {} of {}", host.name(), cluster.lab.dir().display()))?;
        }
        Ok(())
    }

    fn interval(self) -> Duration {
        if self.version == 2 {
            Duration::from_secs(1)
        } else {
            // keepalived runs without real-time priority here: three missed ones must not be a gap of the machine.
            Duration::from_millis(300)
        }
    }

    fn manifest(self) -> Manifest {
        let (shared, more) = (self.shared(), self.addresses.split_last());
        let more: Vec<_> = more.iter().flat_map(|(_, more)| *more).collect();
        let entry = format!(
            "address: {shared}, additionalAddresses: {more:?}, virtualRouterID: {VRID}, nodePriorities: [{{ \
             nodeName: server1, priority: {} }}]",
            self.wsha
        );
        let mut pool = Pool::new("chat", vec![entry]);
        let Self { version, .. } = self;
        pool.spec.push(format!(
            "vrrp: {{ version: {version}, advertisementInterval: {}ms }}",
            self.interval().as_millis()
        ));
        Manifest::of(vec![pool])
    }
}

/// keepalived at work on server2.
struct Keepalived {
    process: Process,
}

impl Keepalived {
    fn start(cluster: &Cluster, group: Group) -> Result<Self> {
        let host = cluster.host(Gateway::Two);
        let file = host.dir().join("keepalived.conf");
        let addresses = group.addresses.iter();
        let addresses: Vec<_> = addresses.map(|it| format!("        {it}\n")).collect();
        let text = format!(
            "global_defs {{\n    router_id server2\n    vrrp_version {}\n}}\nvrrp_instance shared {{\n    state BACKUP\n    \
             interface {INTERFACE}\n    virtual_router_id {VRID}\n    priority {}\n    advert_int {}\n    \
             virtual_ipaddress {{\n{}    }}\n}}\n",
            group.version,
            group.keepalived,
            group.interval().as_secs_f32(),
            addresses.concat(),
        );
        fs::write(&file, text)?;
        drop(fs::remove_file(host.dir().join("keepalived.log")));
        for pid_file in ["keepalived.pid", "vrrp.pid"] {
            drop(fs::remove_file(host.dir().join(pid_file)));
        }
        let mut command = Command::new(tools::need("keepalived", "keepalived")?);
        command
            .args([
                "--dont-fork",
                "--log-console",
                "--log-detail",
                "--vrrp",
                "--use-file",
            ])
            .arg(file);
        command
            .arg("--pid")
            .arg(host.dir().join("keepalived.pid"))
            .arg("--vrrp_pid")
            .arg(host.dir().join("vrrp.pid"));
        Ok(Self {
            process: host.spawn("keepalived", command)?,
        })
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.process.log())?)
    }

    /// How often it entered a state.
    fn entered(&self, state: &str) -> Result<usize> {
        Ok(self
            .log()?
            .matches(&format!("Entering {state} STATE"))
            .count())
    }

    fn wait_entered(&self, state: &str, times: usize) -> Result<()> {
        wait::until(
            &format!("keepalived to enter {state}, time {times}"),
            SETTLE,
            || {
                if !self.process.is_running() {
                    bail!("keepalived ended: {}", self.process.log_tail());
                }
                Ok((self.entered(state)? == times).then_some(()))
            },
        )
    }

    /// Stops it in order: it says priority 0.
    fn stop(self) -> Result<String> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(SETTLE)?;
        self.log()
    }

    /// Fails if it found fault with anything it heard.
    fn content(log: &str) -> Result<()> {
        let complaints = [
            "nvalid",
            "mismatch",
            "ismatch",
            "ignor",
            "dropp",
            "nexpected",
            "not match",
            "bad ",
        ];
        let complaint = log
            .lines()
            .find(|line| complaints.iter().any(|word| line.contains(word)));
        complaint.map_or(Ok(()), |line| bail!("keepalived complains: {line}"))
    }
}

/// Lets more than the three intervals pass after which a Backup that hears nothing rises.
fn calm(group: Group) -> Result<()> {
    // Nothing happens while all is well: only time tells that nothing flaps.
    let until = Instant::now() + (group.interval() * 5).max(Duration::from_secs(2));
    wait::until("the time to pass", SETTLE, || {
        Ok((Instant::now() >= until).then_some(()))
    })
}

fn state(cluster: &Cluster, wanted: RouterState) -> Result<()> {
    cluster.wait_status(Gateway::One, &format!("{wanted:?}"), |report| {
        report
            .virtual_routers
            .iter()
            .any(|router| router.state == wanted)
            .then_some(())
    })
}

/// Fails if wsha discarded anything that it heard.
fn nothing_discarded(cluster: &Cluster) -> Result<()> {
    let discarded = cluster.count(Gateway::One, "wsha_vrrp_discarded_advertisements", &[])?;
    ensure!(
        discarded == 0,
        "wsha discarded {discarded} packets of keepalived"
    );
    Ok(())
}

fn mixed(test: &str, group: Group, body: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    if nix::unistd::geteuid().is_root()
        && let Err(error) = tools::install_peers()
    {
        skipped(
            test,
            &format!("keepalived is missing and cannot be installed: {error:#}"),
        );
        return Ok(());
    }
    in_lab(test, |cluster| {
        let lab = &cluster.lab;
        let hosts = [
            (lab.server1(), 14),
            (lab.server2(), 15),
            (lab.client(), 20),
            (lab.observer(), 21),
        ];
        group.number(cluster, &hosts)?;
        cluster.apply(&group.manifest())?;
        body(cluster)
    })
}

/// wsha has the higher priority.
fn wsha_active(test: &str, version: u8, addresses: &'static [IpAddr]) -> Result<()> {
    let group = Group {
        version,
        addresses,
        wsha: 200,
        keepalived: 100,
    };
    let shared = group.shared();
    mixed(test, group, |cluster| {
        cluster.start(Gateway::One)?;
        cluster.wait_holders(shared, &["server1"])?;
        let watch = Watch::start(cluster, &[shared])?;

        let keepalived = Keepalived::start(cluster, group)?;
        keepalived.wait_entered("BACKUP", 1)?;
        calm(group)?;
        ensure!(
            keepalived.entered("MASTER")? == 0,
            "keepalived rose above a living wsha"
        );
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 1,
            "wsha flapped"
        );
        watch.settles(cluster, shared, Gateway::One)?;
        nothing_discarded(cluster)?;

        // An orderly stop says priority 0.
        cluster.stop(Gateway::One)?;
        keepalived.wait_entered("MASTER", 1)?;
        cluster.wait_holders(shared, &["server2"])?;
        // wsha returns and takes over from a living keepalived.
        cluster.start(Gateway::One)?;
        cluster.wait_holders(shared, &["server1"])?;
        keepalived.wait_entered("BACKUP", 2)?;
        watch.settles(cluster, shared, Gateway::One)?;
        watch.serves(shared, Instant::now())?;

        // wsha dies with all its processes.
        let pids: Vec<_> = Part::ALL
            .into_iter()
            .flat_map(|part| cluster.pids(Gateway::One, part))
            .collect();
        e2e::lab::kill_at_once(&pids);
        keepalived.wait_entered("MASTER", 2)?;
        cluster.wait_holders(shared, &["server2"])?;
        cluster.start(Gateway::One)?;
        cluster.wait_holders(shared, &["server1"])?;
        keepalived.wait_entered("BACKUP", 3)?;
        calm(group)?;
        ensure!(keepalived.entered("MASTER")? == 2, "keepalived flapped");
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 1,
            "wsha flapped"
        );
        watch.settles(cluster, shared, Gateway::One)?;
        watch.never_split()?;
        nothing_discarded(cluster)?;
        Keepalived::content(&keepalived.stop()?)
    })
}

/// keepalived has the higher priority.
fn wsha_backup(test: &str, version: u8, addresses: &'static [IpAddr]) -> Result<()> {
    let group = Group {
        version,
        addresses,
        wsha: 100,
        keepalived: 200,
    };
    let shared = group.shared();
    mixed(test, group, |cluster| {
        let keepalived = Keepalived::start(cluster, group)?;
        keepalived.wait_entered("MASTER", 1)?;
        cluster.start(Gateway::One)?;
        state(cluster, RouterState::Backup)?;
        let peer = cluster.wait_status(Gateway::One, "a peer", |report| {
            report.virtual_routers.first()?.peers.first().cloned()
        })?;
        let two = cluster.host(Gateway::Two);
        let own: IpAddr = if shared.is_ipv4() {
            two.address().into()
        } else {
            two.mac().link_local().into()
        };
        ensure!(
            peer.address == own && peer.priority == 200,
            "it heard {peer:?}"
        );
        calm(group)?;
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 0,
            "wsha rose above a living keepalived"
        );
        ensure!(
            cluster.lab.holders(shared)? == ["server2"],
            "the address is not at keepalived alone"
        );
        nothing_discarded(cluster)?;

        // An orderly stop of keepalived says priority 0.
        Keepalived::content(&keepalived.stop()?)?;
        cluster.wait_holders(shared, &["server1"])?;
        let cause = cluster.router(Gateway::One, shared)?.reason;
        let watch = Watch::start(cluster, &[shared])?;
        watch.settles(cluster, shared, Gateway::One)?;
        // keepalived returns and takes over from a living wsha.
        let keepalived = Keepalived::start(cluster, group)?;
        keepalived.wait_entered("MASTER", 1)?;
        state(cluster, RouterState::Backup)?;
        watch.settles(cluster, shared, Gateway::Two)?;
        ensure!(
            cluster.lab.holders(shared)? == ["server2"],
            "wsha did not let go of the address"
        );
        Keepalived::content(&keepalived.log()?)?;

        // Its host dies.
        cluster.lab.server2().power_off()?;
        watch.settles(cluster, shared, Gateway::One)?;
        let silent = cluster.router(Gateway::One, shared)?.reason;
        ensure!(silent != cause, "priority 0 and silence are both {cause:?}");
        watch.serves(shared, Instant::now())?;
        drop(keepalived);
        cluster.lab.server2().power_on()?;
        group.number(cluster, &[(cluster.lab.server2(), 15)])?;
        let keepalived = Keepalived::start(cluster, group)?;
        keepalived.wait_entered("MASTER", 1)?;
        state(cluster, RouterState::Backup)?;
        watch.settles(cluster, shared, Gateway::Two)?;
        calm(group)?;
        ensure!(keepalived.entered("MASTER")? == 1, "keepalived flapped");
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 2,
            "wsha flapped"
        );
        watch.never_split()?;
        nothing_discarded(cluster)?;
        Keepalived::content(&keepalived.stop()?).context("at the end")
    })
}

#[test]
fn version_2_with_wsha_active() -> Result<()> {
    wsha_active("version_2_with_wsha_active", 2, V4)
}

#[test]
fn version_2_with_keepalived_active() -> Result<()> {
    wsha_backup("version_2_with_keepalived_active", 2, V4)
}

#[test]
fn version_3_with_wsha_active() -> Result<()> {
    wsha_active("version_3_with_wsha_active", 3, V4)
}

#[test]
fn version_3_with_keepalived_active() -> Result<()> {
    wsha_backup("version_3_with_keepalived_active", 3, V4)
}

#[test]
fn ipv6_with_wsha_active() -> Result<()> {
    wsha_active("ipv6_with_wsha_active", 3, V6)
}

#[test]
fn ipv6_with_keepalived_active() -> Result<()> {
    wsha_backup("ipv6_with_keepalived_active", 3, V6)
}

#[test]
fn ipv6_without_a_link_local_address_with_wsha_active() -> Result<()> {
    let test = "ipv6_without_a_link_local_address_with_wsha_active";
    wsha_active(test, 3, V6_ALONE)
}
