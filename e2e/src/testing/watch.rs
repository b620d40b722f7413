//! What a fault must not do: asked by ARP all the time, and by sessions that it does not concern.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Cluster, Gateway, client};
use crate::arp::{ArpWatch, Round};
use crate::probe::{Probe, Timing};
use crate::wait;

/// How long two hosts may answer for one address: the lease of 2 s and one more second.
pub const SPLIT: Duration = Duration::from_secs(3);
/// Bound against hangs for a lab to settle after a fault.
pub const SETTLE: Duration = Duration::from_mins(1);
/// How often each address is asked for.
const PERIOD: Duration = Duration::from_millis(10);
/// Two rounds with two answers belong to one span when no more than this lies between them: an answer may be late.
const GAP: Duration = Duration::from_millis(250);
/// So many rounds in a row with the same one answer: settled.
const ROUNDS: usize = 20;

/// A client that is never hurried: what it loses is lost, not late.
const UNHURRIED: Timing = Timing {
    send_every: Duration::from_millis(50),
    lost_after: Duration::from_secs(4),
    connect_timeout: Duration::from_millis(500),
    redial_after: Duration::from_millis(20),
};

/// Watches addresses by ARP, and sessions through them, from its start to its end.
#[derive(Debug)]
pub struct Watch {
    arp: ArpWatch,
    started: Instant,
    addresses: Vec<Ipv4Addr>,
    probes: Vec<(Ipv4Addr, Probe)>,
}

impl Watch {
    /// Starts to ask for `addresses`, and a client on each of them; returns when each client has its echoes.
    pub fn start(cluster: &Cluster, addresses: &[Ipv4Addr]) -> Result<Self> {
        let started = Instant::now();
        let arp = ArpWatch::start(&cluster.lab, addresses, PERIOD)?;
        let probe = |address: &Ipv4Addr| {
            Ok((
                *address,
                Probe::start(client(&cluster.lab), *address, UNHURRIED)?,
            ))
        };
        let probes = addresses.iter().map(probe).collect::<Result<_>>()?;
        let watch = Self {
            arp,
            started,
            addresses: addresses.to_vec(),
            probes,
        };
        addresses
            .iter()
            .try_for_each(|address| watch.serves(*address, started))?;
        Ok(watch)
    }

    fn probe(&self, address: Ipv4Addr) -> Result<&Probe> {
        let found = self.probes.iter().find(|(of, _)| *of == address);
        found
            .map(|(_, probe)| probe)
            .with_context(|| format!("no client of {address}"))
    }

    /// Waits until the client of `address` has had echoes in a row since `since`.
    pub fn serves(&self, address: Ipv4Addr, since: Instant) -> Result<()> {
        let probe = self.probe(address)?;
        let steady = probe.steady(since, 10, SETTLE);
        steady.map(drop).with_context(|| {
            format!(
                "the client of {address} gets no echoes; it saw {}",
                probe.outage(since, Instant::now()).saw()
            )
        })
    }

    /// Waits until `gateway` answers for `address`, and nobody else.
    pub fn settles(&self, cluster: &Cluster, address: Ipv4Addr, gateway: Gateway) -> Result<()> {
        let mac = cluster.host(gateway).mac();
        let since = Instant::now();
        wait::until(
            &format!("{} alone to answer ARP for {address}", gateway.name()),
            SETTLE,
            || {
                let rounds = self.arp.rounds(address, since);
                // The last round is still open.
                let closed = rounds
                    .split_last()
                    .map(|(_, closed)| closed)
                    .unwrap_or_default();
                let alike = closed
                    .iter()
                    .rev()
                    .take_while(|round| round.answers.iter().eq([&mac]))
                    .take(ROUNDS)
                    .count();
                Ok((alike == ROUNDS).then_some(()))
            },
        )
    }

    /// Fails if two hosts answered for one address for longer than [`SPLIT`] since the start.
    pub fn never_split(&self) -> Result<()> {
        for address in &self.addresses {
            let rounds = self.arp.rounds(*address, self.started);
            ensure!(
                rounds.len() > ROUNDS,
                "ARP for {address} was asked {} times only",
                rounds.len()
            );
            let split = longest_split(&rounds);
            println!(
                "{address}: two hosts answered for {} ms at most",
                split.as_millis()
            );
            ensure!(
                split <= SPLIT,
                "two hosts answered for {address} for {} ms",
                split.as_millis()
            );
        }
        Ok(())
    }

    /// Fails if the client of `address` lost anything since `since`: a session, an echo, an attempt.
    pub fn undisturbed(&self, address: Ipv4Addr, since: Instant) -> Result<()> {
        // What it sent before now must have come back.
        self.serves(address, Instant::now())?;
        let outage = self.probe(address)?.outage(since, Instant::now());
        ensure!(
            outage.losses.is_empty() && outage.failures.is_empty(),
            "the client of {address}, whose host nothing happened to, saw {}",
            outage.saw()
        );
        Ok(())
    }

    /// How many sessions the client of `address` lost since `since`.
    pub fn losses(&self, address: Ipv4Addr, since: Instant) -> Result<usize> {
        Ok(self.probe(address)?.losses(since))
    }
}

/// The longest span over which more than one answered.
fn longest_split(rounds: &[Round]) -> Duration {
    let mut longest = Duration::ZERO;
    let mut span: Option<(Instant, Instant)> = None;
    for round in rounds.iter().filter(|round| round.answers.len() > 1) {
        let begin = match span {
            Some((begin, end)) if round.asked - end <= GAP => begin,
            _ => round.asked,
        };
        span = Some((begin, round.asked));
        longest = longest.max(round.asked - begin);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::MacAddr;

    /// Rounds 10 ms apart; for each, how many hosts answered.
    fn rounds(answers: &[u8]) -> Vec<Round> {
        let begin = Instant::now();
        let round = |(number, count): (u32, &u8)| Round {
            asked: begin + PERIOD * number,
            answers: (0..*count).map(|host| MacAddr([host; 6])).collect(),
        };
        (0..).zip(answers).map(round).collect()
    }

    #[test]
    fn a_split_lasts_from_its_first_to_its_last_round() {
        let all_alone = vec![1; 500];
        assert_eq!(longest_split(&rounds(&all_alone)), Duration::ZERO);
        let mut split = all_alone.clone();
        split[100..=400].fill(2);
        assert_eq!(longest_split(&rounds(&split)), PERIOD * 300);
        // A lost answer or two do not end it.
        split[200] = 1;
        split[300] = 0;
        assert_eq!(longest_split(&rounds(&split)), PERIOD * 300);
        // Two spans are not one.
        split[150..=200].fill(1);
        assert_eq!(longest_split(&rounds(&split)), PERIOD * 199);
    }
}
