//! Why each session ended: what its client saw, what the proxy's access record says, and what the soak did at the
//! time must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::client::{End, GONE, Manner};
use super::crowd::Tally;
use super::deed::{Deed, Deeds};
use super::spec::DRAIN_CODES;
use super::wire::{PATH, Seen};
use crate::lab::VIP_SERVER1;
use crate::testing::{Cluster, Gateway};

/// How long a gateway keeps sessions of an address that it lost, at most: as long as a heartbeat may take.
const KEPT: Duration = Duration::from_secs(15);

/// How long a record may be on its way to the log.
const WRITING: Duration = Duration::from_millis(500);

/// Codes by which sessions are told that they ran into a limit, or that their peer did.
const LIMIT_CODES: [u16; 5] = [1001, 1008, 1009, 1013, 1014];

/// So many ends that nobody can explain are told one by one.
const TOLD: usize = 20;

/// A line of the access log, as much of it as is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    path: Option<String>,
    endpoint: Option<SocketAddr>,
    ended_by: Option<String>,
    close_code: Option<u16>,
}

/// A session as its proxy recorded it.
#[derive(Clone, Debug)]
struct Record {
    gateway: Gateway,
    server: Option<Ipv4Addr>,
    by: String,
    code: Option<u16>,
}

/// The records of sessions that both gateways wrote.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<u64, Record>);

impl Records {
    pub(super) fn read(cluster: &Cluster) -> Result<Self> {
        let mut records = BTreeMap::new();
        for gateway in Gateway::BOTH {
            let log = cluster.log(gateway);
            let log = File::open(&log).with_context(|| format!("no {}", log.display()))?;
            for line in BufReader::new(log).split(b'\n') {
                let line = line?;
                // Other lines are what the program says of itself.
                if line.first() != Some(&b'{') {
                    continue;
                }
                let Ok(line) = serde_json::from_slice::<Line>(&line) else {
                    continue;
                };
                let id = line
                    .path
                    .as_deref()
                    .and_then(|path| path.strip_prefix(PATH));
                let id = id.and_then(|id| id.parse().ok());
                let (Some(id), Some(by)) = (id, line.ended_by) else {
                    continue;
                };
                let server = line.endpoint.and_then(|endpoint| match endpoint {
                    SocketAddr::V4(endpoint) => Some(*endpoint.ip()),
                    SocketAddr::V6(_) => None,
                });
                let record = Record {
                    gateway,
                    server,
                    by,
                    code: line.close_code,
                };
                records.insert(id, record);
            }
        }
        Ok(Self(records))
    }

    /// How many sessions a gateway recorded, by who ended them.
    pub(super) fn causes(&self, gateway: Gateway) -> BTreeMap<String, u64> {
        let mut causes = BTreeMap::new();
        for record in self.0.values().filter(|record| record.gateway == gateway) {
            *causes.entry(record.by.clone()).or_default() += 1;
        }
        causes
    }
}

/// What the comparison came to.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Sessions by the cause that was recorded, and by how their clients saw the end.
    pub(super) closes: BTreeMap<(String, String), u64>,
    /// Ends that do not agree, or that nothing explains.
    pub(super) unattributed: u64,
    /// Some of them.
    pub(super) told: Vec<String>,
    /// Messages that were lost by sessions that nothing had broken.
    pub(super) lost: u64,
}

impl Ledger {
    pub(super) fn close(tally: &Tally, records: &Records, deeds: &Deeds) -> Self {
        let mut ledger = Self::default();
        let mut known = BTreeSet::new();
        for end in &tally.ends {
            known.insert(end.id);
            let record = records.0.get(&end.id);
            let by = record.map_or("not recorded", |record| record.by.as_str());
            let row = (by.to_owned(), seen(end.seen));
            *ledger.closes.entry(row).or_default() += 1;
            if !agrees(end, record, deeds) {
                ledger.tell(format!("{end:?}, recorded as {record:?}"));
            }
            if end.ending && !end.is_cut && matches!(by, "client" | "backend") {
                ledger.lost += end.owed as u64;
            }
        }
        for (id, record) in &records.0 {
            // A client may give up before it hears that it was let in.
            if !known.contains(id) && !tally.without_session.contains(id) {
                ledger.tell(format!("session {id} of no client, recorded as {record:?}"));
            }
        }
        ledger
    }

    fn tell(&mut self, what: String) {
        self.unattributed += 1;
        if self.told.len() < TOLD {
            self.told.push(what);
        }
    }
}

fn seen(seen: Seen) -> String {
    match seen {
        Seen::Own => "its own".to_owned(),
        Seen::Close(0) => "Close without a code".to_owned(),
        Seen::Close(code) => format!("Close {code}"),
        Seen::Fin => "FIN".to_owned(),
        Seen::Reset => "reset".to_owned(),
        Seen::Silence => "silence".to_owned(),
    }
}

/// Whether client, record and deeds tell one story.
fn agrees(end: &End, record: Option<&Record>, deeds: &Deeds) -> bool {
    let home = home(*end.target.ip());
    let disrupts = |deed| {
        let deeds: [fn(Ipv4Addr) -> Deed; 3] =
            [Deed::ProxyKilled, Deed::GatewayStopped, Deed::AddressMoved];
        deeds.iter().any(|disrupts| deed == disrupts(home))
    };
    // One that is as good as gone sees how it ended when it looks again.
    let unseen = if end.manner == Manner::Gone && end.ending {
        GONE + WRITING
    } else {
        Duration::ZERO
    };
    let ended_from = end.at.checked_sub(unseen).unwrap_or(end.at);
    let has_left = deeds.explain((ended_from, end.at), disrupts);
    // Whoever writes is answered or reset, wherever the address is by then. Nothing follows a Close, and the address may
    // have moved before the answer.
    let waits_in_silence = end.ending && matches!(end.manner, Manner::Closes | Manner::ReadsLate);
    if end.seen == Seen::Silence && !(waits_in_silence && has_left) {
        return false;
    }
    // A gateway that lost an address keeps its sessions for a while, and another deed may end them first.
    let recorded_by = end.at + if has_left { KEPT } else { WRITING };
    let did = |wanted: &dyn Fn(Deed) -> bool| deeds.explain((ended_from, recorded_by), wanted);
    let Some(record) = record else {
        // Records of a killed proxy die with it. Those of other proxies do not.
        let gateway = end.served.map_or(home, |served| served.gateway);
        return did(&|deed| deed == Deed::ProxyKilled(gateway));
    };
    // Where the client learned who served it, the record must say the same.
    if let (Some(served), Some(server)) = (end.served, record.server)
        && (served.server != server || served.gateway != address(record.gateway))
    {
        return false;
    }
    let on_server = |deed: fn(Ipv4Addr) -> Deed| {
        record
            .server
            .is_some_and(|server| did(&|done| done == deed(server)))
    };
    let code_is_one_of = |codes: &[u16]| match end.seen {
        Seen::Close(code) => codes.contains(&code),
        // A frame that was cut, or a client that ended it at the same moment.
        Seen::Own | Seen::Fin | Seen::Reset | Seen::Silence => true,
    };
    let port = end.target.port();
    let drains = did(&|deed| {
        deed == Deed::GatewayStopped(address(record.gateway)) || deed == Deed::ListenerRemoved(port)
    }) || on_server(Deed::EndpointRemoved);
    let limited = did(&|deed| deed == Deed::Limited) && code_is_one_of(&LIMIT_CODES);
    // Clients of a lost server are told one after another, those of a full one when a frame has ended, and some meanwhile
    // by another order; the cause stays.
    let told_of_server =
        code_is_one_of(&[1012]) || limited || (drains && code_is_one_of(&DRAIN_CODES));
    match record.by.as_str() {
        "client" => end.ending || end.is_cut || has_left,
        // What it was told may not have come to it before the address was elsewhere.
        "backend" => matches!(end.manner, Manner::Asks(asked) if record.code == Some(asked)
            && (end.seen == Seen::Close(asked) || end.is_cut || (has_left && code_is_one_of(&[])))),
        "backend_lost" => on_server(Deed::ServerDown) && told_of_server,
        "backend_silent" => on_server(Deed::ServerFrozen) && told_of_server,
        "client_silent" => (end.manner == Manner::Gone && end.ending) || has_left,
        "limit" => limited,
        "rebalanced" => did(&|deed| deed == Deed::Rebalanced) && told_of_server,
        "endpoint_gone" => on_server(Deed::EndpointRemoved) && code_is_one_of(&DRAIN_CODES),
        "listener_gone" => {
            did(&|deed| deed == Deed::ListenerRemoved(port)) && code_is_one_of(&DRAIN_CODES)
        }
        "left" | "stopped" => {
            let gateway = address(record.gateway);
            (did(&|deed| deed == Deed::GatewayStopped(gateway)) || has_left)
                && code_is_one_of(&DRAIN_CODES)
        }
        "address_lost" => has_left && code_is_one_of(&[]),
        _ => false,
    }
}

/// The gateway's own address.
pub(super) fn address(gateway: Gateway) -> Ipv4Addr {
    match gateway {
        Gateway::One => Ipv4Addr::new(192, 168, 1, 14),
        Gateway::Two => Ipv4Addr::new(192, 168, 1, 15),
    }
}

/// Of the gateway that holds a virtual address while all is well.
pub(super) fn home(target: Ipv4Addr) -> Ipv4Addr {
    address(if target == VIP_SERVER1 {
        Gateway::One
    } else {
        Gateway::Two
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;
    use std::time::Instant;

    use super::super::stream::Way;
    use super::*;

    fn end(manner: Manner, seen: Seen, ending: bool) -> End {
        End {
            id: 1,
            manner,
            target: SocketAddrV4::new(VIP_SERVER1, 8020),
            way: Way::Plain,
            served: None,
            at: Instant::now(),
            seen,
            ending,
            is_cut: false,
            owed: 0,
        }
    }

    fn record(by: &str, code: Option<u16>) -> Record {
        Record {
            gateway: Gateway::One,
            server: Some(Ipv4Addr::LOCALHOST),
            by: by.to_owned(),
            code,
        }
    }

    #[test]
    fn an_end_needs_a_record_that_agrees_and_a_deed() {
        let mut deeds = Deeds::default();
        let lost = record("backend_lost", None);
        let polite = Manner::Closes;
        let told = |seen| end(polite, seen, false);
        assert!(!agrees(&told(Seen::Close(1012)), Some(&lost), &deeds));
        deeds.begin(Deed::ServerDown(Ipv4Addr::LOCALHOST));
        assert!(agrees(&told(Seen::Close(1012)), Some(&lost), &deeds));
        assert!(agrees(&told(Seen::Reset), Some(&lost), &deeds));
        // Another code than the proxy's, no record at all, nothing seen.
        assert!(!agrees(&told(Seen::Close(1000)), Some(&lost), &deeds));
        assert!(!agrees(&told(Seen::Close(1012)), None, &deeds));
        assert!(!agrees(&told(Seen::Silence), Some(&lost), &deeds));
        // Sessions are moved where that is wanted.
        let moved = record("rebalanced", None);
        assert!(!agrees(&told(Seen::Close(1012)), Some(&moved), &deeds));
        deeds.begin(Deed::Rebalanced);
        assert!(agrees(&told(Seen::Close(1012)), Some(&moved), &deeds));
        assert!(!agrees(&told(Seen::Close(1001)), Some(&moved), &deeds));
        // What the proxy lays at a client's door the client must have done.
        let own = record("client", Some(1000));
        assert!(!agrees(&told(Seen::Reset), Some(&own), &deeds));
        assert!(agrees(&end(polite, Seen::Own, true), Some(&own), &deeds));
        // A server's code must have arrived as it was asked for.
        let asked = record("backend", Some(4001));
        let asks = |code, seen| end(Manner::Asks(code), seen, true);
        assert!(agrees(&asks(4001, Seen::Close(4001)), Some(&asked), &deeds));
        assert!(!agrees(
            &asks(4001, Seen::Close(1000)),
            Some(&asked),
            &deeds
        ));
        assert!(!agrees(
            &asks(3000, Seen::Close(3000)),
            Some(&asked),
            &deeds
        ));
    }

    #[test]
    fn who_was_as_good_as_gone_saw_it_late() {
        let mut deeds = Deeds::default();
        let earlier = Instant::now().checked_sub(Duration::from_secs(28)).unwrap();
        deeds.happened(Deed::ServerDown(Ipv4Addr::LOCALHOST), earlier);
        let lost = record("backend_lost", None);
        let told = |manner| end(manner, Seen::Close(1012), true);
        assert!(agrees(&told(Manner::Gone), Some(&lost), &deeds));
        assert!(!agrees(&told(Manner::Closes), Some(&lost), &deeds));
    }

    #[test]
    fn only_who_has_sent_its_close_may_hear_nothing() {
        let mut deeds = Deeds::default();
        let own = record("client", None);
        let silent = |manner, ending| end(manner, Seen::Silence, ending);
        assert!(!agrees(&silent(Manner::Closes, true), Some(&own), &deeds));
        deeds.begin(Deed::ProxyKilled(address(Gateway::One)));
        for record in [None, Some(&own)] {
            assert!(agrees(&silent(Manner::Closes, true), record, &deeds));
            assert!(agrees(&silent(Manner::ReadsLate, true), record, &deeds));
            assert!(!agrees(&silent(Manner::Closes, false), record, &deeds));
            assert!(!agrees(&silent(Manner::Asks(1000), true), record, &deeds));
        }
    }
}
