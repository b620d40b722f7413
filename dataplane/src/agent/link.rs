//! The connection to one of the other processes.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use serde::Serialize;

use crate::sys::channel::Channel;

/// Messages that may wait; a process that leaves more unread hangs.
const QUEUE: usize = 32;
/// The threads encode and decode messages, nothing more.
pub(super) const STACK: usize = 256 << 10;

/// Sends without waiting: a thread of its own does. Ends the connection when dropped.
#[derive(Debug)]
pub(super) struct Link<M> {
    id: u64,
    channel: Channel,
    queue: SyncSender<(M, Vec<OwnedFd>)>,
}

impl<M: Serialize + Send + 'static> Link<M> {
    /// Takes over the sending side of `channel`; `id` tells this connection from later ones.
    pub(super) fn start(id: u64, channel: Channel) -> io::Result<Self> {
        let (queue, parcels) = sync_channel(QUEUE);
        let sending = channel.try_clone()?;
        thread::Builder::new()
            .name(format!("send-{id}"))
            .stack_size(STACK)
            .spawn(move || deliver::<M>(&sending, &parcels))?;
        Ok(Self { id, channel, queue })
    }

    /// Which connection this is.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Sends a message; its descriptors are closed here once it is on its way. A process that
    /// does not read is cut off, which shows as the end of the connection.
    pub(super) fn send(&self, message: M, fds: Vec<OwnedFd>) {
        if self.queue.try_send((message, fds)).is_err() {
            self.cut();
        }
    }

    /// Ends the connection, for both sides.
    pub(super) fn cut(&self) {
        self.channel.shutdown();
    }
}

impl<M> Drop for Link<M> {
    fn drop(&mut self) {
        self.channel.shutdown();
    }
}

fn deliver<M: Serialize>(channel: &Channel, parcels: &Receiver<(M, Vec<OwnedFd>)>) {
    for (message, fds) in parcels {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        if let Err(error) = channel.send(&message, &fds) {
            tracing::debug!(%error, "cannot send to another process of this host");
            channel.shutdown();
            return;
        }
    }
}
