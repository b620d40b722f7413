//! Ends TCP sockets that no process has any more (`sock_diag(7)`, `SOCK_DESTROY`).
//!
//! Whoever closed a session first keeps it in TIME-WAIT for a minute, against segments of it that are still under way
//! (RFC 9293 section 3.6), and in FIN-WAIT until the other side has answered. Such a socket takes every segment that
//! comes from the same port of the same client for one of its own, and answers one that does not fit with an
//! acknowledgement (section 3.10.7.4), never with a reset: a client that has begun another session elsewhere meanwhile
//! is not told that this host does not know it.

use std::{io, net::IpAddr};

use super::{Requests, message, sockets};

/// States of `tcp_states.h`, as bits: FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT, LAST-ACK, CLOSING.
const CLOSED_HERE: u32 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 11;
/// Those of them whose client has not acknowledged all that it was told: FIN-WAIT-1, LAST-ACK, CLOSING.
const UNACKNOWLEDGED: u32 = 1 << 4 | 1 << 9 | 1 << 11;
/// Places in `inet_diag_msg`: of the state, of the timer that runs, and of how often that one ran out since the client's
/// last answer.
const STATE: usize = 1;
const TIMER: usize = 2;
const RETRANSMITS: usize = 3;
/// The timer of a client that has no room for more: it is asked whether it has (RFC 9293 section 3.8.6.1).
const PROBES: u8 = 4;
/// Of those questions Linux answers two in a second at most (`tcp_invalid_ratelimit`): the first come faster.
const UNANSWERED_PROBES: u8 = 2;
/// Place of the inode in `inet_diag_msg`: 0 where there is no file of any process.
const INODE: usize = 68;
/// Of sockets that share a place in the kernel's table, one that is ended in the middle of a dump may hide another.
const ROUNDS: usize = 2;

/// Sockets for requests: one for the list, one for each end while the list is read, so that no list is kept.
#[derive(Debug)]
pub struct Orphans {
    list: Requests,
    ends: Requests,
}

impl Orphans {
    /// Opens them, in the network namespace of the caller.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            list: Requests::of(libc::NETLINK_SOCK_DIAG)?,
            ends: Requests::of(libc::NETLINK_SOCK_DIAG)?,
        })
    }

    /// Ends those whose own end is one of `taken`; and of those whose own end is one of `contested`, where clients
    /// were all the while, all that do not still tell something to a client that answers: it would miss the end of
    /// what it was sent. Tells how many they were.
    ///
    /// # Errors
    /// The first refusal of the kernel, after all others were ended: before Linux 6.0 it ends none in TIME-WAIT
    /// (`EOPNOTSUPP`).
    pub fn end(&mut self, taken: &[IpAddr], contested: &[IpAddr]) -> io::Result<usize> {
        let mut all = 0;
        for family in [message::AF_INET, message::AF_INET6] {
            let mut addresses = taken.iter().chain(contested);
            if !addresses.any(|it| message::family(*it) == family) {
                continue;
            }
            for _ in 0..ROUNDS {
                let ended = self.end_of_family(family, taken, contested)?;
                all += ended;
                if ended == 0 {
                    break;
                }
            }
        }
        Ok(all)
    }

    fn end_of_family(
        &mut self,
        family: u8,
        taken: &[IpAddr],
        contested: &[IpAddr],
    ) -> io::Result<usize> {
        let Self { list, ends } = self;
        let (mut ended, mut refusal) = (0, None);
        list.exchange(sockets::list(family, CLOSED_HERE), |message| {
            let Some((own, id)) = sockets::named(message.body) else {
                return;
            };
            let own = own.ip();
            let is_meant =
                taken.contains(&own) || contested.contains(&own) && !is_answered(message.body);
            if !is_meant || message::number(message.body, INODE) != Some(0) {
                return;
            }
            match ends.acknowledged(sockets::destroy(family, CLOSED_HERE, &id)) {
                Ok(()) => ended += 1,
                Err(error) if sockets::is_gone(&error) => {}
                Err(error) => refusal = refusal.take().or(Some(error)),
            }
        })?;
        refusal.map_or(Ok(ended), Err)
    }
}

/// Whether it still tells its client something, and that one answers.
fn is_answered(body: &[u8]) -> bool {
    let state = body.get(STATE).copied().unwrap_or_default();
    let most = match body.get(TIMER) {
        Some(&PROBES) => UNANSWERED_PROBES,
        _ => 0,
    };
    1_u32.checked_shl(state.into()).unwrap_or_default() & UNACKNOWLEDGED != 0
        && body.get(RETRANSMITS).is_some_and(|it| *it <= most)
}
