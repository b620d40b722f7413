//! What a fault must not do: asked by ARP all the time, and by sessions that it does not concern.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Cluster, Gateway};
use crate::arp::{ArpWatch, Round};
use crate::control::ControlTimer;
use crate::lab::{Host, Lab, MacAddr};
use crate::probe::{Outage, Probe, Timing};
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
/// How late an echo may be for a client that nothing happens to, besides what the machine itself delays.
const LATE: Duration = Duration::from_millis(500);
/// An echo waits for so many processes in turn, and each may find a gap of the machine: proxy, backend, proxy.
const TURNS: u32 = 3;

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
    control: ControlTimer,
    started: Instant,
    addresses: Vec<IpAddr>,
    probes: Vec<(IpAddr, Probe)>,
}

impl Watch {
    /// Starts to ask for `addresses`, and a client on each of them; returns when each client has its echoes.
    pub fn start(cluster: &Cluster, addresses: &[impl Into<IpAddr> + Copy]) -> Result<Self> {
        Self::on(&cluster.lab, addresses)
    }

    /// As [`Self::start`], in any lab.
    pub fn on(lab: &Lab, addresses: &[impl Into<IpAddr> + Copy]) -> Result<Self> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| (*address).into()).collect();
        let started = Instant::now();
        let control = ControlTimer::start()?;
        let arp = ArpWatch::start(lab, &addresses, PERIOD)?;
        let probe = |address: &IpAddr| {
            let probe = Probe::start(lab.client(), *address, UNHURRIED)?;
            Ok((*address, probe))
        };
        let probes = addresses.iter().map(probe).collect::<Result<_>>()?;
        let watch = Self {
            arp,
            control,
            started,
            addresses: addresses.clone(),
            probes,
        };
        addresses
            .iter()
            .try_for_each(|address| watch.serves(*address, started))?;
        Ok(watch)
    }

    fn probe(&self, address: IpAddr) -> Result<&Probe> {
        let found = self.probes.iter().find(|(of, _)| *of == address);
        found
            .map(|(_, probe)| probe)
            .with_context(|| format!("no client of {address}"))
    }

    /// Waits until the client of `address` has had echoes in a row since `since`.
    pub fn serves(&self, address: impl Into<IpAddr>, since: Instant) -> Result<()> {
        let address = address.into();
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
    pub fn settles(
        &self,
        cluster: &Cluster,
        address: impl Into<IpAddr>,
        gateway: Gateway,
    ) -> Result<()> {
        self.settles_since(cluster, address, gateway, Instant::now())
    }

    /// As [`Self::settles`], but it may have been so at any time since `since`: for what passes by itself.
    pub fn settles_since(
        &self,
        cluster: &Cluster,
        address: impl Into<IpAddr>,
        gateway: Gateway,
        since: Instant,
    ) -> Result<()> {
        self.settles_at(address, cluster.host(gateway).mac(), since)
            .with_context(|| format!("that is the hardware address of {}", gateway.name()))
    }

    /// As [`Self::settles_since`], for any hardware address.
    pub fn settles_at(
        &self,
        address: impl Into<IpAddr>,
        mac: MacAddr,
        since: Instant,
    ) -> Result<()> {
        let address = address.into();
        self.arp
            .answered_by(address, &BTreeSet::from([mac]), ROUNDS, since, SETTLE)
            .with_context(|| format!("{mac} alone should answer for {address}"))
    }

    /// Waits until `host` has answered for `address` since `since`, whoever else did, too.
    pub fn reaches(&self, host: &Host, address: impl Into<IpAddr>, since: Instant) -> Result<()> {
        let address = address.into();
        let what = format!("{} to answer for {address}", host.name());
        wait::until(&what, SETTLE, || {
            let rounds = self.arp.rounds(address, since);
            let answers = |round: &Round| round.answers.iter().any(|mac| *mac == host.mac());
            Ok(rounds.iter().any(answers).then_some(()))
        })
    }

    /// What the client of `address` saw since `since`.
    pub fn outage(&self, address: impl Into<IpAddr>, since: Instant) -> Result<Outage> {
        let address = address.into();
        Ok(self.probe(address)?.outage(since, Instant::now()))
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

    /// Fails if the client of `address` noticed anything since `since`: a session, an echo or an attempt that was
    /// lost, or an echo that it had to wait for.
    pub fn undisturbed(&self, address: impl Into<IpAddr>, since: Instant) -> Result<()> {
        let address = address.into();
        // What it sent before now must have come back.
        self.serves(address, Instant::now())?;
        let outage = self.probe(address)?.outage(since, Instant::now());
        ensure!(
            outage.losses.is_empty() && outage.failures.is_empty(),
            "the client of {address}, whose host nothing happened to, saw {}",
            outage.saw()
        );
        let (from, to) = outage.between;
        let gap = self.control.worst(from, to);
        println!(
            "{address}: {} ms between two echoes at most, with a gap of {} ms on this machine",
            outage.longest.as_millis(),
            gap.as_millis()
        );
        ensure!(
            outage.longest <= UNHURRIED.send_every + LATE + gap * TURNS,
            "the client of {address}, whose host nothing happened to, got no echo for {} ms, and this machine had no \
             gap longer than {} ms then",
            outage.longest.as_millis(),
            gap.as_millis()
        );
        Ok(())
    }

    /// How many sessions the client of `address` lost since `since`.
    pub fn losses(&self, address: impl Into<IpAddr>, since: Instant) -> Result<usize> {
        let address = address.into();
        Ok(self.probe(address)?.losses(since))
    }
}

/// The longest span over which more than one answered, or may have: while nobody asked, they go on.
fn longest_split(rounds: &[Round]) -> Duration {
    let mut longest = Duration::ZERO;
    let mut span: Option<(Instant, Instant)> = None;
    let mut previous: Option<Instant> = None;
    for Round { asked, answers } in rounds {
        let asked = *asked;
        let is_split = answers.len() > 1;
        let was_unasked = |(_, end): (Instant, Instant)| {
            previous.is_some_and(|previous| asked - previous > GAP && previous - end <= GAP)
        };
        let goes_on = |(_, end): (Instant, Instant)| is_split && asked - end <= GAP;
        if let Some(current) = span.filter(|span| was_unasked(*span) || goes_on(*span)) {
            span = Some((current.0, asked));
        } else if is_split {
            span = Some((asked, asked));
        }
        if let Some((begin, end)) = span {
            longest = longest.max(end - begin);
        }
        previous = Some(asked);
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

    #[test]
    fn a_time_without_requests_hides_no_split() {
        let after = |mut rounds: Vec<Round>, begin: usize, pause: Duration| {
            for round in &mut rounds[begin..] {
                round.asked += pause;
            }
            rounds
        };
        let mut answers = vec![1; 500];
        answers[100..=400].fill(2);
        let pause = SPLIT;
        // Within the span, and at its end.
        let within = after(rounds(&answers), 200, pause);
        assert_eq!(longest_split(&within), PERIOD * 300 + pause);
        let at_end = after(rounds(&answers), 401, pause);
        assert_eq!(longest_split(&at_end), PERIOD * 301 + pause);
        // Elsewhere nothing was split.
        let apart = after(rounds(&answers), 450, pause);
        assert_eq!(longest_split(&apart), PERIOD * 300);
    }
}
