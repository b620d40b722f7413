//! Advertisements as they cross the switch, with the kernel's time of their arrival there.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, bind, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::Judge;
use crate::control::real_time;
use crate::lab::{BRIDGE, Lab};

/// `ETH_P_IP`.
const ETHERTYPE: u16 = 0x0800;
/// IP protocol of VRRP.
const VRRP: u8 = 112;
/// So long the thread waits at most before it sees that it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Room for seconds of advertisements, should the thread have to wait.
const BACKLOG: usize = 4 << 20;

/// Judges by the first virtual address: stacks number their virtual routers differently.
type Judges = BTreeMap<Ipv4Addr, Judge>;

/// Follows virtual routers on the wire.
#[derive(Debug)]
pub struct Capture {
    judges: Arc<Mutex<Judges>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Follows each virtual address by its judge, from now on.
    pub fn start(lab: &Lab, judges: impl IntoIterator<Item = (Ipv4Addr, Judge)>) -> Result<Self> {
        let socket = lab.on_switch(open)??;
        let judges = Arc::new(Mutex::new(judges.into_iter().collect::<Judges>()));
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, judging) = (Arc::clone(&stop), Arc::clone(&judges));
        let thread = thread::Builder::new()
            .name("capture".into())
            .spawn(move || {
                // Not for the times, which are the kernel's: so that nothing is lost.
                real_time();
                while !ended.load(Ordering::Relaxed) {
                    if let Some((at, address, source, priority)) = receive(&socket) {
                        let mut judges = judging.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(judge) = judges.get_mut(&address) {
                            judge.note(at, source, priority);
                        }
                    }
                }
            })?;
        Ok(Self {
            judges,
            stop,
            thread: Some(thread),
        })
    }

    /// What the judges say by now.
    pub fn judges(&self) -> Vec<Judge> {
        let judges = self.judges.lock().unwrap_or_else(PoisonError::into_inner);
        judges.values().cloned().collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Opens a packet socket on the bridge, in the calling thread's network namespace.
fn open() -> Result<Socket> {
    let protocol = Protocol::from(i32::from(ETHERTYPE.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("packet socket")?;
    let mut links = getifaddrs()?.filter(|entry| entry.interface_name == BRIDGE);
    let link: Option<LinkAddr> = links.find_map(|entry| entry.address?.as_link_addr().copied());
    let link = link.ok_or_else(|| anyhow!("no interface {BRIDGE}"))?;
    bind(socket.as_raw_fd(), &link).context("bind the packet socket")?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("times of arrival")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BACKLOG).context("room for advertisements")?;
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    Ok(socket)
}

/// An advertisement: its time of arrival, first address, source and priority. `None`: nothing came, or something else.
fn receive(socket: &Socket) -> Option<(Duration, Ipv4Addr, Ipv4Addr, u8)> {
    let mut frame = [0; 256];
    let mut room = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut buffers = [IoSliceMut::new(&mut frame)];
    let received = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut room),
        MsgFlags::empty(),
    );
    let received = received.ok()?;
    let at = received.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _ => None,
    })?;
    let (address, source, priority) = advertisement(&frame)?;
    Some((at, address, source, priority))
}

/// First address, source and priority of an IPv4 advertisement of either version (RFC 9568 section 5.2, RFC 3768
/// section 5.3).
fn advertisement(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, u8)> {
    let ip = frame.get(14..)?;
    let header = usize::from(*ip.first()? & 0x0f) * 4;
    if *ip.get(9)? != VRRP {
        return None;
    }
    let source: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
    let vrrp = ip.get(header..header + 12)?;
    let address: [u8; 4] = vrrp.get(8..)?.try_into().ok()?;
    let [kind, _, priority] = *vrrp.first_chunk()?;
    matches!(kind, 0x21 | 0x31).then_some((address.into(), source.into(), priority))
}
