//! Links set up and down by the kernel's own messages (rtnetlink(7)): a program started for it would take longer than
//! what is measured.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    socket,
};

/// Types of messages, flags and groups of linux/netlink.h and linux/rtnetlink.h.
const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const DELETED_ADDRESS: u16 = 21;
const REQUEST: u16 = 0x1;
const REQUEST_AND_ACK: u16 = 0x1 | 0x4;
const IPV4_ADDRESSES: u32 = 0x10;
const UP: u32 = 0x1;
/// The header of every message, and that of an address (`ifaddrmsg`).
const HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
/// The attribute that holds the address itself (`IFA_LOCAL`).
const LOCAL: u16 = 2;

/// Sets the link of this number up or down, in the caller's network namespace; returns when the kernel has done so.
pub(super) fn set(index: u32, is_up: bool) -> Result<()> {
    let flags = if is_up { UP } else { 0 };
    ask(SET_LINK, REQUEST_AND_ACK, index, flags, UP)?;
    if is_up {
        // A switch forwards as soon as it has the link. The kernel would tell the bridge up to a second later; asked
        // about the link, it does so at once.
        ask(GET_LINK, REQUEST, index, 0, 0)?;
    }
    Ok(())
}

/// Sends a request about a link and waits for its answer.
fn ask(kind: u16, how: u16, index: u32, flags: u32, change: u32) -> Result<()> {
    let socket = open(0)?;
    let mut message = Vec::with_capacity(2 * HEADER);
    message.extend(u32::try_from(2 * HEADER)?.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(how.to_ne_bytes());
    message.extend([0; 8]);
    // ifinfomsg: no family, no type; which one; its flags, and which of them are meant.
    message.extend([0; 4]);
    message.extend(index.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(change.to_ne_bytes());
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &message, &kernel, MsgFlags::empty())
        .context("cannot ask the kernel about a link")?;
    let mut answer = vec![0; 16 << 10];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    match (number(answer, 4), answer.get(HEADER..HEADER + 4)) {
        (Some(ERROR), Some(&[0, 0, 0, 0])) | (Some(NEW_LINK), _) => Ok(()),
        (Some(ERROR), Some(&[a, b, c, d])) => {
            let errno = Errno::from_raw(-i32::from_ne_bytes([a, b, c, d]));
            Err(errno).with_context(|| format!("cannot set link {index}"))
        }
        _ => bail!("the kernel's answer is none"),
    }
}

/// Opens a socket that is told of addresses that come and go in the caller's network namespace.
pub(super) fn watch_addresses() -> Result<OwnedFd> {
    open(IPV4_ADDRESSES)
}

fn open(groups: u32) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .context("cannot open a netlink socket")?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))
        .context("cannot bind a netlink socket")?;
    Ok(socket)
}

/// The IPv4 addresses that the messages of one datagram tell to be gone.
pub(super) fn removed(mut datagram: &[u8]) -> Vec<[u8; 4]> {
    let mut found = Vec::new();
    while let Some((message, rest)) = one(datagram, 4) {
        datagram = rest;
        if number(message, 4) != Some(DELETED_ADDRESS) {
            continue;
        }
        let mut attributes = message.get(HEADER + ADDRESS_HEADER..).unwrap_or_default();
        while let Some((attribute, rest)) = one(attributes, 2) {
            attributes = rest;
            if number(attribute, 2) == Some(LOCAL) {
                found.extend(
                    attribute
                        .get(4..8)
                        .and_then(|it| <[u8; 4]>::try_from(it).ok()),
                );
            }
        }
    }
    found
}

/// The first part, whose length stands in its first `width` bytes, and what follows it, at the next multiple of 4.
fn one(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let length = match width {
        2 => usize::from(number(bytes, 0)?),
        _ => u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize,
    };
    let part = bytes.get(..length).filter(|part| part.len() >= 4)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((part, rest))
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}
