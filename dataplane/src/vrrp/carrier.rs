//! The thread that notices a lost link within milliseconds: it asks the driver over and over.
//!
//! News over rtnetlink are immediate after a quiet second and up to a second late after others. The
//! question takes the kernel's RTNL lock, so it is asked on a thread that may wait, and what it finds
//! goes to the machine thread without a detour: the addresses must go at once.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use super::machine::Bell;
use crate::sys::{carrier::LinkQuery, wait::Wake};

/// A lost link is to be noticed within 10 ms, of which the machine and the netlink thread need some.
const EVERY: Duration = Duration::from_millis(4);

/// What was found of one interface.
#[derive(Debug)]
pub(super) struct Carrier(AtomicBool);

impl Carrier {
    /// There, until found otherwise.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    /// Whether the interface has its link, or its driver does not tell.
    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// An interface to look at, for as long as anyone else has its [`Carrier`].
pub(super) type Watched = (u32, Weak<Carrier>);

/// The thread's state.
#[derive(Debug)]
pub(super) struct Watch {
    query: LinkQuery,
    orders: mpsc::Receiver<Watched>,
    /// By interface: each family has a segment of its own there, and the question is one.
    watched: Vec<(u32, Vec<Weak<Carrier>>)>,
    bell: Arc<Bell>,
    control: Arc<Wake>,
}

impl Watch {
    /// Rings the bell of the machine thread and wakes control when anything changes.
    pub(super) fn new(
        orders: mpsc::Receiver<Watched>,
        bell: Arc<Bell>,
        control: Arc<Wake>,
    ) -> io::Result<Self> {
        Ok(Self {
            query: LinkQuery::open()?,
            orders,
            watched: Vec::new(),
            bell,
            control,
        })
    }

    /// Runs until nobody can give it an order any more.
    pub(super) fn run(mut self) {
        loop {
            let order = if self.watched.is_empty() {
                self.orders
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.orders.recv_timeout(EVERY)
            };
            match order {
                Ok((index, carrier)) => self.watch(index, carrier),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn watch(&mut self, index: u32, carrier: Weak<Carrier>) {
        match self.watched.iter_mut().find(|(of, _)| *of == index) {
            Some((_, carriers)) => carriers.push(carrier),
            None => self.watched.push((index, vec![carrier])),
        }
    }

    fn look(&mut self) {
        let Self {
            query,
            bell,
            control,
            ..
        } = self;
        self.watched.retain_mut(|(index, carriers)| {
            carriers.retain(|carrier| carrier.strong_count() > 0);
            if carriers.is_empty() {
                return false;
            }
            match query.has_link(*index) {
                Ok(is_there) => {
                    for carrier in carriers.iter().filter_map(Weak::upgrade) {
                        if carrier.0.swap(is_there, Ordering::AcqRel) != is_there {
                            bell.wake.wake();
                            control.wake();
                        }
                    }
                    true
                }
                // rtnetlink tells, as for an interface that is gone.
                Err(error) => error.raw_os_error() != Some(libc::EOPNOTSUPP),
            }
        });
    }
}
