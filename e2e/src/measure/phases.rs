//! When faults strike, relative to the subject's timers.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::lab::Host;
use crate::testing::inside;

/// Phases as fractions of a timer; the seed makes a run repeatable (xorshift64*).
#[derive(Debug)]
pub(super) struct Phases {
    state: u64,
    first: u32,
    /// Which part of the timer each repetition gets.
    strata: Vec<u32>,
}

impl Phases {
    pub(super) fn new(seed: u64, repeats: &Range<u32>) -> Self {
        let mut phases = Self {
            state: seed | 1,
            first: repeats.start,
            strata: (0..repeats.end.saturating_sub(repeats.start)).collect(),
        };
        for last in (1..phases.strata.len()).rev() {
            let other = phases.below(last + 1);
            phases.strata.swap(last, other);
        }
        phases
    }

    /// Any phase.
    pub(super) fn any(&mut self) -> f64 {
        f64::from(self.number()) / 2_f64.powi(32)
    }

    /// The middle of a part of the timer that no other repetition gets: the same phases for every subject, in an
    /// order of its own, so that the worst of two subjects can be compared.
    pub(super) fn stratum(&mut self, repeat: u32) -> f64 {
        let index = repeat.saturating_sub(self.first) as usize;
        let Some(stratum) = self.strata.get(index) else {
            return self.any();
        };
        let count = u32::try_from(self.strata.len()).unwrap_or(u32::MAX);
        (f64::from(*stratum) + 0.5) / f64::from(count)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from((u64::from(self.number()) * bound) >> 32).unwrap_or_default()
    }

    fn number(&mut self) -> u32 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        u32::try_from(self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap_or_default()
    }
}

/// VRRP advertisements, as a host hears them.
#[derive(Debug)]
pub(super) struct Advertisements(Socket);

impl Advertisements {
    /// Listens on `host`.
    pub(super) fn listen(host: &Host) -> Result<Self> {
        let socket = inside(host, || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112)))?;
            socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 18), &host.address())?;
            Ok(socket)
        });
        Ok(Self(socket.context("cannot listen for advertisements")?))
    }

    /// When the next advertisement of `sender` comes.
    pub(super) fn next_of(&self, sender: Ipv4Addr, bound: Duration) -> Result<Instant> {
        // What lies there was heard before.
        self.0.set_nonblocking(true)?;
        while self.receive().is_ok() {}
        self.0.set_nonblocking(false)?;
        let deadline = Instant::now() + bound;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{sender} sends no advertisement");
            }
            self.0.set_read_timeout(Some(left))?;
            match self.receive() {
                Ok(from)
                    if from
                        .as_socket_ipv4()
                        .is_some_and(|from| *from.ip() == sender) =>
                {
                    return Ok(Instant::now());
                }
                Err(error)
                    if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    return Err(error).context("cannot hear advertisements");
                }
                _ => {}
            }
        }
    }

    fn receive(&self) -> std::io::Result<SockAddr> {
        let mut buffer = [MaybeUninit::uninit(); 256];
        self.0.recv_from(&mut buffer).map(|(_, from)| from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_timer_is_struck_once() {
        let mut phases = Phases::new(7, &(40..60));
        let mut parts: Vec<f64> = (40..60)
            .map(|repeat| phases.stratum(repeat) * 20.0)
            .collect();
        let as_drawn = parts.clone();
        parts.sort_by(f64::total_cmp);
        assert_ne!(parts, as_drawn);
        for (number, part) in (0..).zip(parts) {
            assert!((part - f64::from(number) - 0.5).abs() < 1e-9, "{part}");
        }
        assert!((0.0..1.0).contains(&phases.any()));
    }
}
