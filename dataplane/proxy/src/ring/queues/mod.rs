//! What is shared with the kernel: the two queues of an `io_uring`, and the buffers that it fills.
//!
//! A ring is a way around filters of system calls, since the kernel does in its name what a call
//! would be refused. So a ring of ours may do the few things named here and nothing else, for good
//! (`IORING_REGISTER_RESTRICTIONS`), and it is made before the process is confined, so that the
//! filter need not let anybody make one.
#![allow(
    unsafe_code,
    reason = "memory that the kernel writes to; the crate denies unsafe code elsewhere"
)]

mod buffers;

use std::{
    fmt, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use io_uring::{
    IoUring, cqueue, opcode,
    register::Restriction,
    squeue,
    types::{CancelBuilder, Fd},
};
use tokio::io::{Interest, unix::AsyncFd};

use self::buffers::Buffers;
pub(super) use self::buffers::{BUFFERS, Filled};

/// Entries of the two queues. What is submitted beyond takes another call; what completes beyond
/// waits in the kernel.
const SUBMISSIONS: u32 = 256;
const COMPLETIONS: u32 = 4096;

/// Operations that are asked for about one socket at once, at most: to stop those there are, and others.
const OPS: usize = 6;

/// What is asked of the kernel about a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Op {
    /// To read whatever comes into a buffer, until it is cancelled.
    Receive,
    /// To say, once, that something can be read.
    AwaitInput,
    /// To say, once, that something can be written.
    AwaitRoom,
    /// To stop one of these.
    Cancel,
}

impl Op {
    /// The number by which the kernel knows the operation of a stream, and back.
    fn tag(self, stream: u32) -> u64 {
        u64::from(stream) << 2 | self as u64
    }

    fn of(tag: u64) -> (u32, Self) {
        let op = match tag & 3 {
            0 => Self::Receive,
            1 => Self::AwaitInput,
            2 => Self::AwaitRoom,
            _ => Self::Cancel,
        };
        (u32::try_from(tag >> 2).unwrap_or(u32::MAX), op)
    }
}

/// What came of an operation.
#[derive(Debug)]
pub(super) struct Completion {
    /// Of which stream.
    pub(super) stream: u32,
    pub(super) op: Op,
    /// What was read, where something was; for others nothing.
    pub(super) outcome: io::Result<Option<Filled>>,
    /// More comes of the same operation.
    pub(super) more: bool,
}

/// An `io_uring` for one worker: it may read from sockets and wait for them, and nothing else.
pub struct Ring {
    // Dropped before the memory that its operations write to, and only once there are none.
    uring: IoUring,
    buffers: Option<Buffers>,
    /// The kernel adds to its count when something has completed.
    woken: OwnedFd,
    /// Operations whose last completion was not seen.
    under_way: usize,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("under_way", &self.under_way)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes one for each of so many workers, before the process is confined. The kernel needs Linux
    /// 6.1; it may be forbidden by `kernel.io_uring_disabled` or by the filter of a container.
    pub fn open_all(workers: usize) -> io::Result<Vec<Self>> {
        (0..workers).map(|_| Self::open()).collect()
    }

    fn open() -> io::Result<Self> {
        let uring = IoUring::builder()
            // The thread that begins is the only one to use it, and completions are worked out when it
            // asks for them.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let buffers = Buffers::new()?;
        let woken = eventfd()?;
        let submitter = uring.submitter();
        // SAFETY: so many entries are there, in memory that outlives the ring or all its operations
        // (`Drop`).
        unsafe {
            submitter.register_buf_ring_with_flags(buffers.address(), BUFFERS, 0, 0)?;
        }
        submitter.register_eventfd(woken.as_raw_fd())?;
        submitter.register_restrictions(&mut [
            Restriction::sqe_op(opcode::RecvMulti::CODE),
            Restriction::sqe_op(opcode::PollAdd::CODE),
            Restriction::sqe_op(opcode::AsyncCancel::CODE),
            Restriction::sqe_flags_allowed(squeue::Flags::BUFFER_SELECT.bits()),
        ])?;
        Ok(Self {
            uring,
            buffers: Some(buffers),
            woken,
            under_way: 0,
        })
    }

    /// Makes this thread the one to use it, and sees whether it may. To be called in its event loop; what
    /// it gives becomes readable, anew each time, when something has completed.
    pub(super) fn begin(&mut self) -> io::Result<AsyncFd<OwnedFd>> {
        self.uring.submitter().register_enable_rings()?;
        self.cancel(u32::MAX, Op::Cancel)?;
        self.uring.submit_and_wait(1)?;
        while self.next().is_some() {}
        let completed = self.woken.try_clone()?;
        // SAFETY: an `OwnedFd` is open for as long as it lives, and nobody puts another in its place.
        Ok(unsafe { AsyncFd::register_with_interest(completed, Interest::READABLE) }?)
    }

    /// Has the kernel read from a socket until that is cancelled or fails.
    pub(super) fn receive(&mut self, stream: u32, socket: RawFd) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fd(socket), 0).build();
        self.push(&entry.user_data(Op::Receive.tag(stream)))?;
        self.under_way += 1;
        Ok(())
    }

    /// Has it say when something can be read or written.
    pub(super) fn poll(&mut self, stream: u32, socket: RawFd, op: Op) -> io::Result<()> {
        let events = match op {
            Op::AwaitRoom => libc::POLLOUT,
            _ => libc::POLLIN,
        };
        let entry = opcode::PollAdd::new(Fd(socket), events.unsigned_abs().into()).build();
        self.push(&entry.user_data(op.tag(stream)))?;
        self.under_way += 1;
        Ok(())
    }

    /// Ends one of these. Its last completion is still to come.
    pub(super) fn cancel(&mut self, stream: u32, op: Op) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(op.tag(stream)).build();
        self.push(&entry.user_data(Op::Cancel.tag(stream)))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the entries made here name no memory but that of registered buffers. A descriptor that is
        // not what it was is for the kernel to refuse.
        unsafe { self.uring.submission().push(entry) }.map_err(io::Error::other)
    }

    /// Whether all that can be asked about a socket at once has room, if need be after a submission.
    pub(super) fn has_room(&mut self) -> io::Result<bool> {
        let is_there = |uring: &mut IoUring| {
            let submission = uring.submission();
            submission.capacity() - submission.len() >= OPS
        };
        if !is_there(&mut self.uring) {
            self.submit()?;
        }
        Ok(is_there(&mut self.uring))
    }

    /// Whether the kernel has something for us, or we have for it.
    pub(super) fn has_work(&mut self) -> bool {
        let submission = self.uring.submission();
        let waits = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        waits || !self.uring.completion().is_empty()
    }

    /// One call for all that was asked, and for what has completed.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        match self.uring.submit() {
            // Interrupted, or there is no room for completions before those that are there were seen.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// What has completed next.
    pub(super) fn next(&mut self) -> Option<Completion> {
        let entry = self.uring.completion().next()?;
        let (stream, op) = Op::of(entry.user_data());
        let more = cqueue::more(entry.flags());
        if !more && op != Op::Cancel {
            self.under_way -= 1;
        }
        let filled = |number| Filled {
            number,
            len: entry.result().unsigned_abs(),
        };
        let outcome = match entry.result() {
            error @ ..0 => Err(io::Error::from_raw_os_error(-error)),
            _ => Ok(cqueue::buffer_select(entry.flags()).map(filled)),
        };
        Some(Completion {
            stream,
            op,
            outcome,
            more,
        })
    }

    /// What is in a buffer.
    pub(super) fn bytes<'a>(&'a self, filled: &'a Filled) -> &'a [u8] {
        self.buffers
            .as_ref()
            .map_or(&[], |buffers| buffers.bytes(filled))
    }

    /// Has it filled anew.
    pub(super) fn give_back(&mut self, filled: Filled) {
        if let Some(buffers) = &mut self.buffers {
            buffers.give_back(filled);
        }
    }
}

impl Ring {
    /// Ends all operations. Whether none is left.
    fn end(&mut self) -> bool {
        // Each round ends some; one that ends none tells that the kernel is not with us.
        while self.under_way > 0 {
            let before = self.under_way;
            let all = CancelBuilder::any().all();
            let entry = opcode::AsyncCancel2::new(all).build();
            let asked = self.push(&entry.user_data(Op::Cancel.tag(u32::MAX)));
            let waited = asked.and_then(|()| self.uring.submit_and_wait(1));
            while self.next().is_some() {}
            if waited.is_err() || self.under_way == before {
                return false;
            }
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may write to the buffers until no operation is left.
        if !self.end() {
            tracing::debug!(left = self.under_way, "operations are left on a ring");
            std::mem::forget(self.buffers.take());
        }
    }
}

/// eventfd(2).
fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests;
