//! Links and addresses of the host over rtnetlink: synchronous requests and a subscription.

mod message;
mod neighbour;
mod orphans;
mod route;
mod said;
mod sockets;
mod virtual_link;

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

pub use message::{Address, Change, Link, OWN_PROTOCOL};
use message::{DUMP_INTERRUPTED, Message, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, Request};
pub use orphans::Orphans;
pub use route::DefaultRoute;
pub use said::{Said, said};
pub use sockets::Sockets;
pub use virtual_link::{ArpSettings, NewVirtualLink, VirtualLink};

/// Larger than any datagram that the kernel makes for a dump.
const BUFFER: usize = 64 * 1024;
/// A dump that keeps being interrupted is taken as it is after so many tries.
const TRIES: usize = 5;

/// A socket for requests, each answered before the next.
#[derive(Debug)]
pub struct Requests {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        Self::of(libc::NETLINK_ROUTE)
    }

    /// Opens one for another part of the kernel.
    fn of(protocol: libc::c_int) -> io::Result<Self> {
        Ok(Self {
            fd: open(protocol, 0, false)?,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Holds `address` for `lifetime` seconds from now on: adds it, or sets the lifetime of the
    /// one that is there.
    pub fn hold(&mut self, index: u32, address: IpAddr, lifetime: u32) -> io::Result<()> {
        self.acknowledged(Request::add_address(index, address, lifetime))
    }

    /// Removes an address. That it, or its interface, is not there is success.
    pub fn remove(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        self.removed(Request::remove_address(index, address))
    }

    /// The same for one that is none of ours, as the kernel told of it.
    pub fn remove_foreign(&mut self, told: &Address) -> io::Result<()> {
        let Address {
            index,
            address,
            prefix,
            ..
        } = *told;
        self.removed(Request::remove_with_prefix(index, address, prefix))
    }

    fn removed(&mut self, request: Request) -> io::Result<()> {
        match self.acknowledged(request) {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENXIO)
                ) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// All interfaces, then all addresses.
    pub fn dump(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = self.dump_of(message::RTM_GETLINK)?;
        changes.append(&mut self.dump_of(message::RTM_GETADDR)?);
        Ok(changes)
    }

    /// All ways out of the on-link networks.
    pub fn default_routes(&mut self) -> io::Result<Vec<DefaultRoute>> {
        let mut routes = self.collect(message::RTM_GETROUTE, |message| {
            route::default_routes(message.kind, message.body)
        })?;
        routes.sort_unstable();
        routes.dedup();
        Ok(routes)
    }

    /// Forgets neighbours of an interface that the kernel has asked for in vain so far: it asks for
    /// each once a second only, so that what was asked for while nobody could hear it would keep
    /// packets waiting. The next packet asks at once.
    pub fn forget_unresolved(&mut self, index: u32) -> io::Result<()> {
        let mut found = Vec::new();
        self.exchange(neighbour::dump(index), |message| {
            found.extend(neighbour::unresolved(message, index));
        })?;
        for address in found {
            match self.acknowledged(neighbour::remove(index, address)) {
                // Answered, or given up, by now.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn dump_of(&mut self, kind: u16) -> io::Result<Vec<Change>> {
        // The method itself is not general enough in its lifetimes.
        let read = |message: &Message<'_>| message.change();
        self.collect(kind, read)
    }

    fn collect<T, I: IntoIterator<Item = T>>(
        &mut self,
        kind: u16,
        read: impl Fn(&Message<'_>) -> I,
    ) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for _ in 0..TRIES {
            found.clear();
            let mut interrupted = false;
            self.exchange(Request::dump(kind), |message| {
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                found.extend(read(message));
            })?;
            if !interrupted {
                break;
            }
        }
        Ok(found)
    }

    fn acknowledged(&mut self, request: Request) -> io::Result<()> {
        self.exchange(request, |_| {})
    }

    /// Sends a request and hands over its answers, up to the acknowledgement or the end of a dump.
    fn exchange(&mut self, request: Request, mut each: impl FnMut(&Message<'_>)) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.finish(self.sequence);
        // SAFETY: the buffer is valid for its length. A netlink socket sends to the kernel unless
        // told otherwise.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        loop {
            let length = receive(self.fd.as_fd(), &mut self.buffer)?;
            let datagram = self.buffer.get(..length).unwrap_or(&[]);
            for message in message::messages(datagram) {
                // Answers to an earlier request that was given up.
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        return match message.error() {
                            Some(0) => Ok(()),
                            Some(error) => Err(io::Error::from_raw_os_error(error)),
                            None => Err(io::ErrorKind::InvalidData.into()),
                        };
                    }
                    _ => each(&message),
                }
            }
        }
    }
}

/// A subscription to changes of links and addresses. Subscribe before the first dump.
#[derive(Debug)]
pub struct Events {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Events {
    /// Subscribes.
    pub fn subscribe() -> io::Result<Self> {
        Self::of(libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR)
    }

    /// Subscribes to routes as well, which wake up but are not handed over.
    pub fn subscribe_with_routes() -> io::Result<Self> {
        let routes = libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;
        let addresses = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        Self::of(libc::RTMGRP_LINK | addresses | routes)
    }

    fn of(groups: libc::c_int) -> io::Result<Self> {
        Ok(Self {
            fd: open(libc::NETLINK_ROUTE, groups.cast_unsigned(), true)?,
            buffer: vec![0; BUFFER],
        })
    }

    /// Hands over all changes that wait. `false`: some were lost, a dump must follow.
    pub fn take(&mut self, mut each: impl FnMut(Change)) -> io::Result<bool> {
        self.read(|message| {
            if let Some(change) = message.change() {
                each(change);
            }
        })
    }

    /// Takes all that waits; whether any of it is about more than addresses of ours: each of these is
    /// renewed twice a second.
    pub fn take_news(&mut self) -> io::Result<bool> {
        let mut is_news = false;
        let complete = self.read(|message| is_news |= !message.is_of_own_address())?;
        Ok(is_news || !complete)
    }

    fn read(&mut self, mut each: impl FnMut(&Message<'_>)) -> io::Result<bool> {
        let mut complete = true;
        loop {
            let length = match receive(self.fd.as_fd(), &mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(complete),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    complete = false;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for message in message::messages(self.buffer.get(..length).unwrap_or(&[])) {
                if message.kind == NLMSG_OVERRUN {
                    complete = false;
                }
                each(&message);
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open(protocol: libc::c_int, groups: u32, nonblocking: bool) -> io::Result<OwnedFd> {
    let kind =
        libc::SOCK_RAW | libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: plain numbers; the result is checked.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, known to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: an all-zero `sockaddr_nl` is a valid value.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = u16::try_from(libc::AF_NETLINK).unwrap_or(0);
    address.nl_groups = groups;
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    // SAFETY: the address is valid for the stated length.
    let result = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
    if result == 0 {
        Ok(fd)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the buffer is valid for its length.
        let length =
            unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if let Ok(length) = usize::try_from(length) {
            return Ok(length);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
