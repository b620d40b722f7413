//! What goes wrong, drawn from the seed.

use std::time::Duration;

use crate::random::Random;

/// A fault; each that lasts has its end drawn with it.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Hosts of different sides no longer hear each other.
    Partition {
        sides: Vec<u8>,
        lasts: Duration,
    },
    Freeze {
        host: usize,
        lasts: Duration,
    },
    /// The thread with the machines hangs; the one that talks to the kernel does not.
    Stall {
        host: usize,
        lasts: Duration,
    },
    Suspend {
        host: usize,
        lasts: Duration,
    },
    /// The vrrp process is killed; a new one goes on or starts anew.
    Kill {
        host: usize,
        restart: Duration,
    },
    PowerOff {
        host: usize,
        lasts: Duration,
    },
    /// The proxy is killed: withdraw, then back with a hold.
    ProxyDeath {
        host: usize,
        back: Duration,
    },
    Stop {
        host: usize,
        back: Duration,
    },
    EndpointLost {
        host: usize,
        lasts: Duration,
    },
    LinkDown {
        host: usize,
        lasts: Duration,
    },
    /// It is heard, but hears nobody.
    Deaf {
        host: usize,
        lasts: Duration,
    },
    /// Somebody on the host removes the address, and keeps others from putting it back.
    AddressTaken {
        host: usize,
    },
    /// Its priority is changed, and changed back.
    Update {
        host: usize,
        priority: u8,
        lasts: Duration,
    },
    /// Half of all packets are lost.
    Storm {
        lasts: Duration,
    },
}

impl Fault {
    /// One for a segment of `hosts` hosts.
    pub(crate) fn draw(random: &mut Random, hosts: usize) -> Self {
        let host = random.below(hosts);
        let short = random.millis(5, 900);
        let long = random.millis(300, 5_000);
        match random.below(20) {
            0..3 => Self::Partition {
                sides: (0..hosts).map(|_| u8::from(random.chance(5_000))).collect(),
                lasts: long,
            },
            3 => Self::Freeze { host, lasts: short },
            4 => Self::Freeze { host, lasts: long },
            5 => Self::Suspend { host, lasts: long },
            6 => Self::Kill {
                host,
                restart: random.millis(5, 100),
            },
            7 => Self::Kill {
                host,
                restart: long,
            },
            8 => Self::PowerOff { host, lasts: long },
            9 => Self::ProxyDeath { host, back: short },
            10 => Self::Stop { host, back: long },
            11 => Self::EndpointLost { host, lasts: long },
            12 => Self::LinkDown { host, lasts: long },
            13..15 => Self::Stall { host, lasts: long },
            15 => Self::Deaf { host, lasts: long },
            16 => Self::AddressTaken { host },
            17 => Self::Update {
                host,
                priority: u8::try_from(20 + random.below(230)).unwrap(),
                lasts: long,
            },
            18 => Self::LinkDown { host, lasts: short },
            _ => Self::Storm { lasts: short },
        }
    }
}
