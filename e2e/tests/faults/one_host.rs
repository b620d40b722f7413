//! One host is struck, or a part of it: the other one goes on with its own address, and takes the first one's.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use e2e::testing::{Cluster, Gateway, SETTLE, Watch};
use e2e::wait;
use node_api::{RouterReport, RouterState, Transition};

use crate::at_home;
use crate::wire::{Wire, in_cluster};

/// The host that is struck.
pub(crate) const HIT: Gateway = Gateway::One;

/// What the other host does while the fault lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Other {
    TakesOver,
    /// The host that was struck heals by itself, and may have its address back before anyone has looked.
    TakesOverForAWhile,
    /// The fault may be over before it is missed.
    May,
    /// As [`Self::May`], and where it did not, the sessions notice nothing.
    MayOrNobodyNotices,
    StaysBackup,
}

/// What `status` must tell afterwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story {
    /// Why the other host rose, if it did: one of these.
    pub(crate) heir: &'static [&'static str],
    /// Why the struck host let go, one of these; empty where it went without a word, or never did.
    pub(crate) struck: &'static [&'static str],
}

/// The struck host told that it goes.
pub(crate) const RELEASED: &[&str] = &["left"];
/// It told nothing.
pub(crate) const SILENT: &[&str] = &["fell silent"];

impl Story {
    /// Nobody was left to tell.
    pub(crate) const fn of(heir: &'static [&'static str]) -> Self {
        Self { heir, struck: &[] }
    }
}

/// Milliseconds since the Unix epoch.
fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Strikes server1, which holds the first address; the second is at server2, which nothing happens to.
pub(crate) fn fault(
    (test, wire): (&str, Wire),
    other: Other,
    story: Story,
    strike: impl FnOnce(&mut Cluster) -> Result<()>,
    heal: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    in_cluster(test, wire, |cluster| {
        fault_in(cluster, wire, other, story, strike, heal)
    })
}

/// The same in a cluster that is there.
pub(crate) fn fault_in(
    cluster: &mut Cluster,
    wire: Wire,
    other: Other,
    story: Story,
    strike: impl FnOnce(&mut Cluster) -> Result<()>,
    heal: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let address = wire.one();
    let watch = Watch::start(cluster, &wire.both())?;
    let risen = cluster.entered(Gateway::Two, address, RouterState::Active)?;
    let (struck, began) = (Instant::now(), now());
    strike(cluster)?;
    match other {
        Other::TakesOver => {
            watch
                .settles(cluster, address, Gateway::Two)
                .context("after the fault")?;
            cluster.wait_state(Gateway::Two, address, RouterState::Active)?;
            watch.serves(address, Instant::now())?;
        }
        Other::TakesOverForAWhile => {
            watch
                .settles_since(cluster, address, Gateway::Two, struck)
                .context("after the fault")?;
            let active = RouterState::Active;
            cluster.wait_entered_again(Gateway::Two, address, active, risen)?;
            watch.serves(address, Instant::now())?;
        }
        Other::StaysBackup => stays(&watch, cluster, wire, risen)?,
        Other::May | Other::MayOrNobodyNotices => {}
    }
    watch.settles(cluster, wire.two(), Gateway::Two)?;
    cluster.wait_state(Gateway::Two, wire.two(), RouterState::Active)?;
    heal(cluster)?;
    at_home(&watch, cluster, wire).context("after the repair")?;
    watch.serves(address, Instant::now())?;
    let has_risen = cluster.entered(Gateway::Two, address, RouterState::Active)? > risen;
    if other == Other::StaysBackup || (other == Other::MayOrNobodyNotices && !has_risen) {
        watch.undisturbed(address, struck)?;
    }
    watch.undisturbed(wire.two(), struck)?;
    told(cluster, address, story, began)?;
    watch.never_split()
}

/// Fails if `status` of the two hosts does not tell what happened since `began`.
pub(crate) fn told(cluster: &Cluster, address: IpAddr, story: Story, began: u64) -> Result<()> {
    let of = |report: RouterReport| -> Vec<Transition> {
        let transitions = report.transitions.into_iter();
        transitions.filter(|it| it.at_unix_ms >= began).collect()
    };
    let heir = of(cluster.router(Gateway::Two, address)?);
    for it in &heir {
        let wanted = match it.to {
            RouterState::Active => story.heir,
            // It went back to where it belongs.
            _ => &["is Active with the higher priority"],
        };
        ensure!(
            wanted.iter().any(|word| it.cause.contains(word)),
            "server2 tells {:?} and not {wanted:?}, of all {heir:#?}",
            it.cause
        );
    }
    let struck = of(cluster.router(HIT, address)?);
    let lets_go = |it: &&Transition| it.from == RouterState::Active;
    let is_told = |it: &Transition| story.struck.iter().any(|word| it.cause.contains(word));
    ensure!(
        story.struck.is_empty() || struck.iter().find(lets_go).is_some_and(is_told),
        "server1 should tell {:?} of itself: {struck:#?}",
        story.struck
    );
    Ok(())
}

/// Lets longer pass than any take-over needs, and fails if one happened.
pub(crate) fn stays(watch: &Watch, cluster: &Cluster, wire: Wire, risen: usize) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(4);
    wait::until("nothing to happen", SETTLE, || {
        Ok((Instant::now() >= until).then_some(()))
    })?;
    watch.settles(cluster, wire.one(), HIT)?;
    ensure!(
        cluster.entered(Gateway::Two, wire.one(), RouterState::Active)? == risen,
        "server2 took over"
    );
    cluster.wait_state(Gateway::Two, wire.one(), RouterState::Backup)
}
