//! What the node tells of its network.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use node_api::stream::{InterfaceFacts, NodeFacts};
use tokio::sync::mpsc;

use super::{messages::Input, strangers::Strangers};
use crate::sys::{
    netlink::{Change, DefaultRoute, Events, Requests},
    wait::Waiter,
};

/// Looked at, and listened to, even without a change.
const EVERY: Duration = Duration::from_mins(1);
/// Interfaces come and go in bursts.
const BURST: Duration = Duration::from_millis(250);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(10);

/// Tells the network of the node now and whenever it changes; ends with the hub.
pub(super) fn watch(inputs: mpsc::Sender<Input>) -> io::Result<()> {
    thread::Builder::new()
        .name("facts".to_owned())
        .spawn(move || {
            while !inputs.is_closed() {
                match catch_unwind(AssertUnwindSafe(|| follow(&inputs))) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => {
                        tracing::error!(%error, "cannot watch the network; it is tried again");
                    }
                    Err(_) => tracing::error!(
                        "watching the network failed, which is a defect of this program; it is tried \
                         again"
                    ),
                }
                thread::sleep(AGAIN);
            }
        })
        .map(drop)
}

fn follow(inputs: &mpsc::Sender<Input>) -> io::Result<()> {
    let mut events = Events::subscribe_with_routes()?;
    let mut requests = Requests::open()?;
    let mut waiter = Waiter::new();
    waiter.watch(events.as_fd());
    let mut told = None;
    let mut strangers = Strangers::default();
    let mut listen_at = Instant::now();
    loop {
        let (mut facts, links) = look_with(&mut requests)?;
        if inputs.is_closed() {
            return Ok(());
        }
        strangers.tell(&mut facts, Instant::now());
        if told.as_ref() != Some(&facts) {
            told = Some(facts.clone());
            if inputs.blocking_send(Input::Facts(facts)).is_err() {
                return Ok(());
            }
        }
        loop {
            let left = listen_at.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                waiter.wait(Some(left))?;
            } else if strangers.listen(&links, events.as_fd())? {
                listen_at = Instant::now() + EVERY;
                break;
            }
            thread::sleep(BURST);
            if events.take_news()? || inputs.is_closed() {
                break;
            }
        }
    }
}

/// The network of the node now.
pub(super) fn look() -> io::Result<NodeFacts> {
    Ok(look_with(&mut Requests::open()?)?.0)
}

/// The same, and index and name of each interface that it tells of.
fn look_with(requests: &mut Requests) -> io::Result<(NodeFacts, Vec<(u32, String)>)> {
    Ok(facts(requests.dump()?, &requests.default_routes()?))
}

/// The interfaces that matter: those with a prefix or a default router. Of a node's many links to its
/// pods nothing is told.
fn facts(changes: Vec<Change>, routes: &[DefaultRoute]) -> (NodeFacts, Vec<(u32, String)>) {
    let mut interfaces: BTreeMap<u32, InterfaceFacts> = BTreeMap::new();
    let mut addresses = Vec::new();
    for change in changes {
        match change {
            Change::Link(link) if !link.is_loopback && link.virtual_router.is_none() => {
                let facts = InterfaceFacts {
                    name: link.name,
                    ..InterfaceFacts::default()
                };
                interfaces.insert(link.index, facts);
            }
            Change::Address(address) if !address.is_own => addresses.push(address),
            _ => {}
        }
    }
    for address in addresses {
        let Some(facts) = interfaces.get_mut(&address.index) else {
            continue;
        };
        facts.addresses.push(address.address);
        let prefix = IpNet::new(address.address, address.prefix).ok();
        if let Some(prefix) = prefix.filter(|_| !is_link_local(address.address)) {
            facts.prefixes.push(prefix.trunc().to_string());
        }
    }
    for route in routes {
        if let Some(facts) = interfaces.get_mut(&route.index) {
            facts.default_routers.push(route.gateway);
        }
    }
    let mut interfaces: Vec<_> = interfaces
        .into_iter()
        .filter(|(_, one)| !one.prefixes.is_empty() || !one.default_routers.is_empty())
        .collect();
    for (_, one) in &mut interfaces {
        one.prefixes.sort_unstable();
        one.prefixes.dedup();
        one.addresses.sort_unstable();
    }
    interfaces.sort_unstable_by(|(_, one), (_, other)| one.name.cmp(&other.name));
    let links = interfaces
        .iter()
        .map(|(index, one)| (*index, one.name.clone()));
    let links = links.collect();
    let interfaces = interfaces.into_iter().map(|(_, one)| one).collect();
    (NodeFacts { interfaces }, links)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::{Address, ArpSettings, Link};

    fn link(index: u32, name: &str) -> Change {
        Change::Link(Link {
            index,
            name: name.to_owned(),
            is_up: true,
            is_loopback: name == "lo",
            mac: None,
            arp: ArpSettings::default(),
            virtual_router: None,
        })
    }

    fn address(index: u32, text: &str, is_own: bool) -> Change {
        let (address, prefix) = text.split_once('/').unwrap();
        Change::Address(Address {
            index,
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
            is_own,
            is_learned: false,
            is_tentative: false,
        })
    }

    #[test]
    fn only_what_matters_is_told() {
        let changes = vec![
            link(1, "lo"),
            link(4, "veth1"),
            link(3, "eth1"),
            link(2, "eth0"),
            address(1, "127.0.0.1/8", false),
            address(2, "192.168.7.11/24", false),
            address(2, "192.168.7.12/24", false),
            address(2, "192.168.7.110/32", true),
            address(2, "fd00::11/64", false),
            address(2, "fe80::1/64", false),
            address(3, "10.1.2.3/16", false),
            address(4, "fe80::2/64", false),
            address(9, "10.9.9.9/24", false),
        ];
        let routes = [DefaultRoute {
            index: 2,
            gateway: "192.168.7.1".parse().unwrap(),
        }];
        let (facts, links) = facts(changes, &routes);
        assert_eq!(links, [(2, "eth0".to_owned()), (3, "eth1".to_owned())]);
        let seen: Vec<_> = facts
            .interfaces
            .iter()
            .map(|one| {
                (
                    one.name.as_str(),
                    one.prefixes.join(" "),
                    one.default_routers.len(),
                    one.addresses.len(),
                )
            })
            .collect();
        let expected = [
            // Link-local ones are sources of advertisements, and no network of anything.
            ("eth0", "192.168.7.0/24 fd00::/64".to_owned(), 1, 4),
            ("eth1", "10.1.0.0/16".to_owned(), 0, 1),
        ];
        assert_eq!(seen, expected);
    }
}
