//! The inbox of control: what threads that may wait tell it.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
};

use super::messages::{FromHost, PairingNumber};
use crate::{
    ipc::{ProxyToVrrp, ToVrrp},
    sys::wait::Wake,
};

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    Agent(ToVrrp, Vec<OwnedFd>),
    AgentGone,
    Proxy(PairingNumber, ProxyToVrrp),
    ProxyGone(PairingNumber),
    Host(FromHost),
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
