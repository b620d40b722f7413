//! What goes to the agent, without ever waiting for it: an agent that is stopped must not stop the
//! virtual routers. Of reports only the newest is kept.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
};

use crate::{
    ipc::{FromVrrp, VrrpReport},
    sys::channel::Channel,
};

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<FromVrrp>,
    report: Option<VrrpReport>,
    is_closed: bool,
}

/// The way to the agent.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<(Mutex<Waiting>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Outbox {
    /// Starts the thread that sends.
    pub(super) fn start(channel: Channel) -> io::Result<Self> {
        let shared = Arc::<(Mutex<Waiting>, Condvar)>::default();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("agent-send".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || send(&theirs, &channel))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Sends a message.
    pub(super) fn post(&self, message: FromVrrp) {
        self.change(|waiting| match message {
            FromVrrp::Report(report) => waiting.report = Some(report),
            message => waiting.messages.push_back(message),
        });
    }

    /// Sends what waits, then ends. An agent that is gone ends it too.
    pub(super) fn close(mut self) {
        self.change(|waiting| waiting.is_closed = true);
        if let Some(thread) = self.thread.take() {
            // A panic in it was already reported.
            drop(thread.join());
        }
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let (waiting, condition) = &*self.shared;
        change(&mut waiting.lock().unwrap_or_else(PoisonError::into_inner));
        condition.notify_one();
    }
}

fn send((waiting, condition): &(Mutex<Waiting>, Condvar), channel: &Channel) {
    loop {
        let message = {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if let Some(message) = waiting.messages.pop_front() {
                    break message;
                }
                if let Some(report) = waiting.report.take() {
                    break FromVrrp::Report(report);
                }
                if waiting.is_closed {
                    return;
                }
                waiting = condition
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        };
        if let Err(error) = channel.send(&message, &[]) {
            tracing::info!(%error, "the agent does not take messages any more");
            return;
        }
    }
}
