//! The inbox of control: what threads that may wait tell it.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
};

use super::{
    isolation::Word,
    messages::{FromHost, PairingNumber, RouterId},
    neighbours::Conflict,
};
use crate::{
    ipc::{ProxyToVrrp, ToVrrp},
    sys::wait::Wake,
};

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    Agent(ToVrrp, Vec<OwnedFd>),
    AgentGone,
    Proxy(PairingNumber, ProxyToVrrp, Place),
    ProxyGone(PairingNumber),
    Host(FromHost),
    /// Who else answers for addresses that this host holds: all of them.
    Conflicts(Vec<Conflict>),
    /// What is to be said of whether virtual routers are cut off: all of it.
    Isolation(Vec<(RouterId, Word)>),
}

/// Puts events into the inbox.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    events: mpsc::Sender<Event>,
    wake: Arc<Wake>,
}

impl Sender {
    pub(super) fn new(wake: Arc<Wake>) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel();
        (Self { events, wake }, receiver)
    }

    /// Sends; a control that ended does not care.
    pub(super) fn send(&self, event: Event) {
        drop(self.events.send(event));
        self.wake.wake();
    }

    pub(super) fn host(&self, news: FromHost) {
        self.send(Event::Host(news));
    }
}

/// How many messages of a proxy may wait in the inbox: whoever broke into it must not fill memory
/// that is locked.
const MOST_WAITING: usize = 64;

/// The places for messages of one proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<(Mutex<usize>, Condvar)>);

/// One place, given back when the message is done with.
#[derive(Debug)]
pub(super) struct Place(Places);

impl Places {
    /// Waits for a free place.
    pub(super) fn take(&self) -> Place {
        let (taken, freed) = &*self.0;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken >= MOST_WAITING {
            taken = freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += 1;
        Place(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (taken, freed) = &*self.0.0;
        *taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_floods_waits_for_control() {
        let places = Places::default();
        let (sender, waiting) = mpsc::channel();
        let flood = {
            let places = places.clone();
            std::thread::spawn(move || {
                for number in 0..2 * MOST_WAITING {
                    sender.send((number, places.take())).unwrap();
                }
            })
        };
        let mut seen = 0;
        while let Ok((number, place)) = waiting.recv() {
            assert_eq!(number, seen);
            assert!(*places.0.0.lock().unwrap() <= MOST_WAITING);
            seen += 1;
            drop(place);
        }
        flood.join().unwrap();
        assert_eq!(seen, 2 * MOST_WAITING);
        assert_eq!(*places.0.0.lock().unwrap(), 0);
    }
}
