//! Who answers for the virtual addresses: ARP probes (RFC 5227), which no neighbour takes for news.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use node_api::{NodeReport, RouterState};
use vrrp::wire::{
    Arp, Mac,
    arp::{self, Operation},
};

use super::Finding;
use crate::sys::{
    arp::ArpSocket,
    netlink::{Change, Requests},
};

/// Neighbours answer within a millisecond or so; a lost probe is sent again.
const PROBES: u32 = 3;
const EACH: Duration = Duration::from_millis(150);

/// Asks for each IPv4 address.
pub(super) fn check(report: &NodeReport) -> Vec<Finding> {
    let mut findings = Vec::new();
    for router in &report.virtual_routers {
        let Some(interface) = &router.interface else {
            continue;
        };
        for address in &router.addresses {
            let IpAddr::V4(address) = *address else {
                continue;
            };
            let subject = format!("address {address}");
            findings.push(match ask(interface, address) {
                Ok(macs) => judge(subject, router.state == RouterState::Active, &macs),
                Err(error) => {
                    let why = format!("cannot ask on {interface} who has it ({error})");
                    Finding::unknown(subject, why)
                }
            });
        }
    }
    findings
}

/// The hardware addresses of other hosts that answer.
fn ask(interface: &str, address: Ipv4Addr) -> io::Result<BTreeSet<String>> {
    let links = Requests::open()?.dump()?.into_iter();
    let link = links.into_iter().find_map(|change| match change {
        Change::Link(link) if link.name == interface => Some(link),
        _ => None,
    });
    let link = link.ok_or(io::ErrorKind::NotFound)?;
    let mac = Mac(link.mac.ok_or(io::ErrorKind::Unsupported)?);
    let probe = Arp {
        operation: Operation::Request,
        sender_mac: mac,
        sender: Ipv4Addr::UNSPECIFIED,
        target_mac: Mac([0; 6]),
        target: address,
    };
    let mut frame = [0; arp::FRAME_LEN];
    let written = probe.emit_frame(&mut frame, mac, Mac::BROADCAST);
    written.map_err(io::Error::other)?;
    let socket = ArpSocket::open(link.index)?;
    let mut macs = BTreeSet::new();
    for _ in 0..PROBES {
        socket.send(&frame)?;
        let until = Instant::now() + EACH;
        while let Some(frame) = socket.receive(until)? {
            if let Ok(arp) = Arp::parse_frame(&frame)
                && arp.sender == address
                && arp.sender_mac != mac
            {
                macs.insert(arp.sender_mac.to_string());
            }
        }
    }
    Ok(macs)
}

fn judge(subject: String, is_active: bool, macs: &BTreeSet<String>) -> Finding {
    let list: Vec<_> = macs.iter().cloned().collect();
    let list = list.join(", ");
    let remedy = "find out who that is (`arping`, the switch's table): a host that has the address as \
                  its own, or another of its interfaces that answers too";
    match (is_active, macs.len()) {
        (true, 0) => Finding::fine(subject, "held here, and nobody else answers for it"),
        (true, _) => Finding::problem(
            subject,
            format!("held here, and {list} answers too"),
            remedy,
        ),
        (false, 0) => Finding::unknown(subject, "not held here, and nobody answers for it"),
        (false, 1) => Finding::fine(subject, format!("not held here, and {list} answers for it")),
        (false, _) => Finding::problem(subject, format!("{list} answer for it"), remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_answers() {
        for (is_active, macs, expected) in [
            (true, &[][..], "ok"),
            (true, &["a"], "PROBLEM"),
            (false, &[], "unknown"),
            (false, &["a"], "ok"),
            (false, &["a", "b"], "PROBLEM  address x: a, b answer for it"),
        ] {
            let macs = macs.iter().map(ToString::to_string).collect();
            let said = judge("address x".to_owned(), is_active, &macs).to_string();
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
