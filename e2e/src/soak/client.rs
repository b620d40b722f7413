//! One client: opens a session, talks, ends it in one of several manners, and comes again as the article's clients
//! do.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::crowd::{Crowd, Life};
use super::random::Random;
use super::stream::Way;
use super::wire::{LARGEST, Seen, Shared, Wire};
use crate::ws::Opcode;

/// So long may an echo take, whatever is done to gateways and servers, or the session counts as silent.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often a client that waits for something sends a Ping, as the article advises: one whose address has moved
/// would else wait for a gateway that never heard of it.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// So long a client waits for the answer to its Close: more than a proxy waits for a server's.
const CLOSING: Duration = Duration::from_secs(15);

/// How long a client stays silent that is as good as gone: longer than any heartbeat of the soak takes.
pub(super) const GONE: Duration = Duration::from_secs(15);

/// How a client behaves.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Manner {
    /// Waits for its echoes and closes in order.
    Closes,
    /// Asks its server to close with this code.
    Asks(u16),
    /// Ends the session without a Close, by FIN or by reset, or with all that share its connection.
    Leaves,
    /// Sends large messages and does not read for a while; then as [`Self::Closes`].
    ReadsLate,
    /// Neither reads nor writes any more: its host is gone, and nobody was told.
    Gone,
}

impl Manner {
    fn draw(random: &mut Random) -> Self {
        match random.between(1, 100) {
            1..=70 => Self::Closes,
            71..=80 => Self::Leaves,
            81..=88 => Self::ReadsLate,
            89..=92 => Self::Gone,
            _ => Self::Asks(random.one_of(&[1000, 1001, 1011, 3000, 4001])),
        }
    }
}

/// A session, at its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) id: u64,
    pub(super) manner: Manner,
    pub(super) target: SocketAddrV4,
    pub(super) way: Way,
    /// Who served it, as far as the client learned.
    pub(super) served: Option<Served>,
    /// When it was over.
    pub(super) at: Instant,
    pub(super) seen: Seen,
    /// Whether the client had begun to end it.
    pub(super) ending: bool,
    /// Whether a client has cut off the connection that it shared with others.
    pub(super) is_cut: bool,
    /// Messages whose echoes did not come.
    pub(super) owed: usize,
}

/// Who served a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    pub(super) server: Ipv4Addr,
    pub(super) gateway: Ipv4Addr,
}

/// Comes again and again until the crowd is to disperse.
pub(super) async fn come_again(crowd: Rc<Crowd>, shared: Rc<Shared>, mut random: Random) {
    // Not all at once.
    sleep(random.time(Duration::ZERO, crowd.pace.arrival)).await;
    while !crowd.is_over() {
        let id = crowd.next_id();
        let mut random = random.fork(id);
        let (target, way) = crowd.target(&mut random);
        match Wire::open(&shared, (target, way), id).await {
            Ok(mut wire) => {
                crowd.opened();
                let manner = Manner::draw(&mut random);
                let mut ending = false;
                let lived = live(&mut wire, manner, &crowd, &mut random, &mut ending).await;
                let served = wire.told.as_deref().and_then(served);
                let life = Life {
                    echoed: wire.echoed,
                    bytes: wire.bytes,
                };
                let end = lived.map(|seen| End {
                    id,
                    manner,
                    target,
                    way,
                    served,
                    at: Instant::now(),
                    seen,
                    ending,
                    is_cut: wire.is_cut(),
                    owed: wire.owed(),
                });
                crowd.ended(end, life);
            }
            Err(error) => crowd.turned_away(id, &error),
        }
        sleep(random.time(Duration::from_millis(5), Duration::from_millis(200))).await;
    }
}

/// The session from its first message to its end.
async fn live(
    wire: &mut Wire,
    manner: Manner,
    crowd: &Crowd,
    random: &mut Random,
    ending: &mut bool,
) -> Result<Seen> {
    let until = Instant::now() + random.time(crowd.pace.shortest, crowd.pace.longest);
    wire.send(true, Opcode::Text, b"who", random);
    if let Some(seen) = await_in(wire, random, |wire| wire.told.is_some()).await? {
        return Ok(seen);
    }
    while Instant::now() < until && !crowd.is_over() {
        for _ in 0..random.between(1, 3) {
            let (length, frame) = message(random);
            wire.say(length, frame, random);
        }
        if manner == Manner::ReadsLate && random.chance(30) {
            wire.reads = false;
            (0..4).for_each(|_| wire.say(LARGEST / 8, usize::MAX, random));
            let pause = random.time(Duration::from_millis(500), Duration::from_secs(2));
            wire.run(Instant::now() + pause, |_| false).await?;
            wire.reads = true;
        }
        if let Some(seen) = await_in(wire, random, |wire| wire.owed() == 0).await? {
            return Ok(seen);
        }
        let pause = random.time(crowd.pace.quickest, crowd.pace.slowest);
        wire.run(Instant::now() + pause, |_| false).await?;
        if let Some(seen) = wire.seen {
            return Ok(seen);
        }
    }
    *ending = true;
    end(wire, manner, random).await
}

/// Ends the session in its manner.
async fn end(wire: &mut Wire, manner: Manner, random: &mut Random) -> Result<Seen> {
    match manner {
        Manner::Closes | Manner::ReadsLate => {
            wire.send(true, Opcode::Close, &1000_u16.to_be_bytes(), random);
            // Nothing may follow a Close, so no heartbeat either.
            wire.run(Instant::now() + CLOSING, |_| false).await?;
            Ok(match wire.seen {
                Some(Seen::Close(1000)) => Seen::Own,
                Some(seen) => seen,
                None => Seen::Silence,
            })
        }
        Manner::Asks(code) => {
            let ask = format!("close {code} as asked");
            wire.send(true, Opcode::Text, ask.as_bytes(), random);
            let seen = await_in(wire, random, |_| false).await?;
            Ok(seen.unwrap_or(Seen::Silence))
        }
        Manner::Leaves => {
            wire.leave(random)?;
            Ok(Seen::Own)
        }
        Manner::Gone => {
            wire.reads = false;
            wire.run(Instant::now() + GONE, |_| false).await?;
            wire.reads = true;
            let soon = Instant::now() + Duration::from_secs(1);
            wire.run(soon, |_| false).await?;
            // Where heartbeats were off or slow, it is the client that ends it after all.
            Ok(wire.seen.unwrap_or(Seen::Own))
        }
    }
}

/// Waits until `done`, with heartbeats; else how the session ended.
async fn await_in(
    wire: &mut Wire,
    random: &mut Random,
    done: impl Fn(&Wire) -> bool,
) -> Result<Option<Seen>> {
    let until = Instant::now() + PATIENCE;
    loop {
        if wire.run(Instant::now() + HEARTBEAT, &done).await? {
            return Ok(None);
        }
        if wire.seen.is_some() {
            return Ok(wire.seen);
        }
        if Instant::now() > until {
            return Ok(Some(Seen::Silence));
        }
        wire.send(true, Opcode::Ping, b"", random);
    }
}

/// Size of a message, and of its frames.
fn message(random: &mut Random) -> (usize, usize) {
    let size = |random: &mut Random, low, high| low + random.index(high - low);
    let length = match random.between(1, 1000) {
        1..=850 => size(random, 16, 1024),
        851..=980 => size(random, 1024, 32 << 10),
        981..=996 => size(random, 32 << 10, 128 << 10),
        _ => size(random, 256 << 10, LARGEST),
    };
    let frame = if random.chance(10) {
        1 + length / 3
    } else {
        usize::MAX
    };
    (length, frame)
}

/// What a server answers to `who`.
fn served(answer: &str) -> Option<Served> {
    let (server, gateway) = answer.split_once(' ')?;
    Some(Served {
        server: server.parse().ok()?,
        gateway: gateway.parse().ok()?,
    })
}

impl Crowd {
    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }
}
