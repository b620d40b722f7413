//! keepalived with `use_vmac`, and wsha with `macAddress: {mode: VirtualRouter}`: one hardware address
//! for both (RFC 9568 section 7.3), which is all that a client ever knows.

use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::lab::Host;
use e2e::testing::{Cluster, Gateway, SETTLE, Watch};
use e2e::wait;
use node_api::RouterState;

use crate::group::{Group, V4, V6_ALONE, VRID, calm, mixed, nothing_discarded, state};
use crate::keepalived::Keepalived;
use crate::peer::{Peer, Role};

const WITH_OWN_MAC: &[&str] = &["macAddress: { mode: VirtualRouter }"];
const USE_VMAC: &[&str] = &["use_vmac"];

#[test]
fn virtual_mac_of_version_3() -> Result<()> {
    both_roles("virtual_mac_of_version_3", Group::of(3, V4))
}

#[test]
fn virtual_mac_of_version_2() -> Result<()> {
    both_roles("virtual_mac_of_version_2", Group::of(2, V4))
}

#[test]
fn virtual_mac_of_ipv6() -> Result<()> {
    both_roles("virtual_mac_of_ipv6", Group::of(3, V6_ALONE))
}

/// wsha has the higher priority: it is Active, leaves, and comes back above a living keepalived.
fn both_roles(test: &str, group: Group) -> Result<()> {
    let group = Group {
        wsha: 200,
        peer: 100,
        vrrp: WITH_OWN_MAC,
        instance: USE_VMAC,
        ..group
    };
    let shared = group.shared();
    mixed(test, group, |cluster| {
        cluster.start(Gateway::One)?;
        state(cluster, RouterState::Active)?;
        let watch = Watch::start(cluster, &[shared])?;
        let keepalived = Keepalived::start(cluster, group)?;
        keepalived.wait_entered(Role::Backup, 1)?;
        calm(group)?;
        ensure!(
            keepalived.entered(Role::Active)? == 0,
            "keepalived rose above a living wsha"
        );
        ensure!(
            cluster.entered(Gateway::One, shared, RouterState::Active)? == 1,
            "wsha flapped"
        );
        one_mac(cluster, group)?;

        cluster.stop(Gateway::One)?;
        keepalived.wait_entered(Role::Active, 1)?;
        one_mac(cluster, group)?;
        // As a Backup it hears what comes from the hardware address that is its own, too.
        cluster.start(Gateway::One)?;
        state(cluster, RouterState::Active)?;
        keepalived.wait_entered(Role::Backup, 2)?;
        watch.serves(shared, Instant::now())?;
        calm(group)?;
        ensure!(keepalived.entered(Role::Active)? == 1, "keepalived flapped");
        one_mac(cluster, group)?;
        nothing_discarded(cluster)?;
        Keepalived::content(&keepalived.stop()?)
    })
}

/// Waits until the client and the observer know the address at the virtual router's hardware address.
fn one_mac(cluster: &Cluster, group: Group) -> Result<()> {
    let shared = group.shared();
    let family = if shared.is_ipv4() { 1 } else { 2 };
    let mac = format!("00:00:5e:00:0{family}:{VRID:02x}");
    let client: &Host = cluster.lab.client();
    wait::until("the virtual hardware address", SETTLE, || {
        let known = client.ip(&format!("neighbour show to {shared}"))?;
        Ok(known.contains(&mac).then_some(()))
    })
}
