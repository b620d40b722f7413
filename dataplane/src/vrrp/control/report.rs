//! What the agent is told.

use std::time::Duration;

use ::vrrp::{Discard, Instant};
use node_api::{AddressConflict, Lowering, PeerReport, RouterReport, RouterState};

use super::managed::Managed;
use crate::{
    ipc::VrrpReport,
    metrics::{Metric, Sample},
    vrrp::{
        isolation::Word,
        machine,
        messages::{Observed, Snapshot},
    },
};

/// What control alone knows of a virtual router.
#[derive(Debug)]
pub(super) struct Told {
    /// Why it is in its state.
    pub(super) reason: String,
    pub(super) conflicts: Vec<AddressConflict>,
    /// What is to be said of whether it is cut off.
    pub(super) isolation: Option<Word>,
}

/// Builds a report from what control knows and what the machine thread filled in; `delay` is the
/// longest delay of a timer lately.
pub(super) fn report(
    routers: &[Managed],
    told: Vec<Told>,
    snapshot: &Snapshot,
    standing: &[String],
    delay: Duration,
    now: Instant,
) -> VrrpReport {
    let mut report = VrrpReport {
        routers: Vec::with_capacity(routers.len()),
        warnings: standing.to_vec(),
        samples: Vec::new(),
    };
    for (router, told) in routers.iter().zip(told) {
        let observed = snapshot.routers.iter().find(|o| router.is(o.id));
        warnings(router, observed, &mut report.warnings);
        conflict_warnings(router, &told.conflicts, &mut report.warnings);
        report
            .warnings
            .extend(isolation_warning(router, told.isolation));
        samples(router, observed, &told.conflicts, &mut report.samples);
        report
            .routers
            .push(router_report(router, told, observed, now));
    }
    report.samples.push(Sample {
        metric: Metric::VrrpTimerDelay,
        labels: Vec::new(),
        value: delay.as_secs_f64(),
        buckets: Vec::new(),
    });
    for discard in Discard::ALL {
        let count = snapshot.discards.get(discard.index()).copied().unwrap_or(0);
        let labels = [("reason", discard.label())];
        let discarded = Sample::new(Metric::VrrpDiscardedAdvertisements, &labels, count);
        report.samples.push(discarded);
    }
    let strangers = Sample::new(Metric::VrrpForeignAdvertisements, &[], snapshot.strangers);
    report.samples.push(strangers);
    report
}

fn router_report(
    router: &Managed,
    told: Told,
    observed: Option<&Observed>,
    now: Instant,
) -> RouterReport {
    let peers = observed.and_then(|observed| observed.last_heard);
    RouterReport {
        pool: router.spec.pool.clone(),
        virtual_router_id: router.spec.settings.virtual_router_id,
        sequence: router.spec.settings.sequence,
        addresses: router.addresses().to_vec(),
        interface: router.binding.as_ref().ok().map(|b| b.interface.clone()),
        // The machine thread is nearer to the truth than the events from it.
        state: observed.map_or(RouterState::Initialize, |o| machine::state(o.state)),
        since_unix_ms: router.since_unix_ms,
        reason: told.reason,
        priority: observed.map_or(router.priority, |o| o.priority.get()),
        peers: peers
            .into_iter()
            .map(|peer| PeerReport {
                address: peer.source,
                priority: peer.priority.get(),
                last_heard_ms: millis(now.since(peer.heard_at)),
            })
            .collect(),
        transitions: router.history.iter().cloned().collect(),
        conflicts: told.conflicts,
        lowered_by: router.lowered_by.clone(),
        isolated_since_unix_ms: match told.isolation {
            Some(Word::Isolated { since_unix_ms, .. }) => Some(since_unix_ms),
            Some(Word::NoGateway) | None => None,
        },
    }
}

fn warnings(router: &Managed, observed: Option<&Observed>, warnings: &mut Vec<String>) {
    let vrid = router.spec.settings.virtual_router_id;
    let Some(address) = router.addresses().first() else {
        return;
    };
    if let Some(problem) = &router.problem {
        warnings.push(format!("{address} (VRID {vrid}): {problem}"));
    }
    if router.spec.settings.password.is_some() {
        warnings.push(format!(
            "{address} (VRID {vrid}): the password of spec.vrrp.authentication crosses the wire in \
             clear and protects from nothing but mistakes: leave it out, unless a router of the group \
             asks for it"
        ));
    }
    if let Some(failure) = observed.and_then(|observed| observed.failure) {
        let interface = router.binding.as_ref().map_or("?", |it| &it.interface);
        warnings.push(format!(
            "{address} (VRID {vrid}): advertisements do not leave {interface} ({}): look at its \
             queue (tc qdisc) and at packet filters, which must let IP protocol 112 pass",
            std::io::Error::from_raw_os_error(failure)
        ));
    }
    for lowering in &router.lowered_by {
        let Lowering {
            kind,
            name,
            weight,
            problem,
            ..
        } = lowering;
        warnings.push(format!(
            "{address} (VRID {vrid}): the priority is lowered by {weight}, as {kind} {name} {problem}"
        ));
    }
    // A lowered priority may meet another one by chance.
    let twin = observed.and_then(|observed| observed.equal_priority);
    if let Some(twin) = twin.filter(|_| router.lowered_by.is_empty()) {
        warnings.push(format!(
            "{address} (VRID {vrid}): host {} advertises priority {}, which is this host's: give \
             each host its own --node-name, or its own priority",
            twin.source, twin.priority
        ));
    }
    if let Some(source) = observed.and_then(|observed| observed.differing) {
        warnings.push(format!(
            "{address} (VRID {vrid}): host {source} advertises other addresses under this VRID: \
             give it the same configuration, or set another virtualRouterID"
        ));
    }
    if let Some((source, stated)) = observed.and_then(|observed| observed.differing_interval) {
        warnings.push(format!(
            "{address} (VRID {vrid}): host {source} states an advertisement interval of {} ms, which is not \
             this host's: give it that of spec.vrrp.advertisementInterval",
            stated.as_millis()
        ));
    }
}

fn conflict_warnings(router: &Managed, conflicts: &[AddressConflict], warnings: &mut Vec<String>) {
    let vrid = router.spec.settings.virtual_router_id;
    let interface = router.binding.as_ref().map_or("?", |it| &it.interface);
    for conflict in conflicts {
        let (address, mac) = (conflict.address, &conflict.hardware_address);
        warnings.push(match &conflict.own_interface {
            // Linux answers ARP on all interfaces, neighbour solicitations on that of the address alone.
            Some(own) if address.is_ipv6() => format!(
                "{address} (VRID {vrid}): {own} of this host ({mac}) has it, too, and answers for it on \
                 the segment of {interface}: take it from {own}"
            ),
            Some(own) => format!(
                "{address} (VRID {vrid}): {own} of this host ({mac}) answers for it on the segment of \
                 {interface}, too: set net.ipv4.conf.{own}.arp_ignore=1, or keep two interfaces off \
                 one segment"
            ),
            None => format!(
                "{address} (VRID {vrid}): a host with the hardware address {mac} answers for it on \
                 {interface}, too: find it ({}, the switch's table) and take the address from it; this \
                 host holds the address and announces it again every 10 s",
                if address.is_ipv6() { "`ndisc6`" } else { "`arping`" }
            ),
        });
    }
}

fn isolation_warning(router: &Managed, word: Option<Word>) -> Option<String> {
    let vrid = router.spec.settings.virtual_router_id;
    let address = router.addresses().first()?;
    let interface = router.binding.as_ref().map_or("?", |it| &it.interface);
    Some(match word? {
        Word::Isolated { gateway, .. } => format!(
            "{address} (VRID {vrid}): this host has given it up, as it hears neither another router nor \
             its default gateway {gateway} on {interface}: look at its cable, its port of the switch and \
             its VLAN"
        ),
        Word::NoGateway => format!(
            "{address} (VRID {vrid}): this host will not notice that it is cut off, as it has no default \
             gateway of this family on {interface}: give it one there, or set vrrp.isolation.timeout to 0s"
        ),
    })
}

fn samples(
    router: &Managed,
    observed: Option<&Observed>,
    conflicts: &[AddressConflict],
    samples: &mut Vec<Sample>,
) {
    let binding = router.binding.as_ref();
    let interface = binding.map_or("", |binding| binding.interface.as_str());
    let vrid = router.spec.settings.virtual_router_id.to_string();
    let pool = router.spec.pool.to_string();
    let address = router.addresses().first();
    let address = address.map_or_else(String::new, ToString::to_string);
    let labels = [
        ("pool", pool.as_str()),
        ("address", address.as_str()),
        ("interface", interface),
        ("vrid", vrid.as_str()),
    ];
    let state = observed.map_or(0, |observed| match observed.state {
        ::vrrp::State::Initialize => 0,
        ::vrrp::State::Backup => 1,
        ::vrrp::State::Active => 2,
    });
    let sent = observed.map_or(0, |observed| observed.sent);
    let failed = observed.map_or(0, |observed| observed.failed);
    let received = observed.map_or(0, |observed| observed.received);
    let priority = observed.map_or(router.priority, |observed| observed.priority.get());
    let late = observed.map_or(0, |observed| observed.late);
    for (metric, value) in [
        (Metric::VrrpState, state),
        (Metric::VrrpPriority, priority.into()),
        (Metric::VrrpLoweredBy, router.lowered_by.len() as u64),
        (Metric::VrrpAdvertisementsSent, sent),
        (Metric::VrrpAdvertisementsFailed, failed),
        (Metric::VrrpLateAdvertisements, late),
        (Metric::VrrpAdvertisementsReceived, received),
        (Metric::VrrpAddressConflicts, conflicts.len() as u64),
    ] {
        samples.push(Sample::new(metric, &labels, value));
    }
    let words = ["Initialize", "Backup", "Active"];
    for (word, count) in words.iter().zip(router.transitions) {
        let [pool, address, interface, vrid] = labels;
        let labels = [pool, address, interface, vrid, ("state", word)];
        samples.push(Sample::new(Metric::VrrpTransitions, &labels, count));
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
