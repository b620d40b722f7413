//! The proxy that this process is paired with.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use node_api::{PoolRef, VirtualRouter};

use crate::{
    ipc::{ProxyToVrrp, UsableEndpoints, VrrpToProxy},
    sys::{
        channel::Channel, life::End, memory::Shared, netlink::Sockets, pages::PairPage, realtime,
    },
    vrrp::{
        inbox::{Event, Places, Sender},
        machine::Bell,
        messages::PairingNumber,
    },
};

/// A proxy that does not take a message for this long hangs.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longest message of a proxy: room for 10,000 listeners.
const LONGEST: u32 = 1 << 20;
/// Stack of the threads here: they do next to nothing, and memory is locked.
const STACK: usize = 128 * 1024;
/// Above the machine thread: it only rings its bell.
const WATCHER_PRIORITY: i32 = 51;

/// Below the machine and the netlink thread: the address matters more.
const RESET_PRIORITY: i32 = 30;
/// By then the address is gone, and no reset leaves any more (the linger is 120 ms at most).
const RESET_WITHIN: Duration = Duration::from_millis(120);

/// Where clients are served, as the agent wants it: not as the proxy says, which is not trusted with the sockets of
/// others. Shared with the threads that wait for a proxy's end.
pub(super) type Served = Arc<Mutex<Vec<SocketAddr>>>;

/// One pairing.
#[derive(Debug)]
pub(super) struct Pairing {
    pub(super) number: PairingNumber,
    pub(super) page: &'static PairPage,
    channel: Channel,
    /// The proxy holds its life mutex and is watched.
    pub(super) is_watched: bool,
    /// The machine thread sees it turn its loops.
    pub(super) beats: bool,
    accepting: HashSet<SocketAddr>,
    /// Its end was counted already: it hung before.
    pub(super) is_counted: bool,
}

/// Usable endpoints by pool; kept over pairings, until the new proxy says otherwise.
pub(super) type Usable = HashMap<PoolRef, UsableEndpoints>;

impl Pairing {
    /// Takes the page and the socket, holds vrrp's life mutex with the calling thread, and starts
    /// to listen.
    pub(super) fn begin(
        number: PairingNumber,
        fds: Vec<OwnedFd>,
        sender: &Sender,
        bell: &Arc<Bell>,
    ) -> io::Result<Self> {
        let Ok([page, socket]) = <[OwnedFd; 2]>::try_from(fds) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a pairing comes with two descriptors",
            ));
        };
        let page = Shared::<PairPage>::from_fd(page)?.leak();
        page.vrrp_life.hold()?;
        let channel = Channel::new(UnixStream::from(socket), PATIENCE)?;
        listen(
            number,
            channel.try_clone()?,
            sender.clone(),
            Arc::clone(bell),
        )?;
        Ok(Self {
            number,
            page,
            channel,
            is_watched: false,
            beats: false,
            accepting: HashSet::new(),
            is_counted: false,
        })
    }

    /// Starts to wait for the end of the proxy, which holds its mutex by now.
    pub(super) fn watch(
        &mut self,
        sender: &Sender,
        bell: &Arc<Bell>,
        served: &Served,
    ) -> io::Result<()> {
        let (number, page) = (self.number, self.page);
        let (sender, bell) = (sender.clone(), Arc::clone(bell));
        let (channel, served) = (self.channel.try_clone()?, Arc::clone(served));
        spawn("proxy-watch", move || {
            // The machine thread reports whether real-time priority is to be had at all.
            drop(realtime::real_time_or_favoured(WATCHER_PRIORITY));
            match page.proxy_life.wait_for_end() {
                Ok(end) => {
                    bell.proxy_died(number);
                    if end == End::Died {
                        end_sockets(&served, &channel);
                    }
                    // Now: it ends the pairing, and with it the channel that was looked at.
                    sender.send(Event::ProxyGone(number));
                }
                Err(error) => tracing::warn!(%error, "cannot watch the life of the proxy"),
            }
        })?;
        self.is_watched = true;
        Ok(())
    }

    /// Tells the proxy something; `false`: it is not there any more.
    pub(super) fn tell(&self, message: &VrrpToProxy) -> bool {
        self.channel.send(message, &[]).is_ok()
    }

    pub(super) fn set_accepting(&mut self, listeners: Vec<SocketAddr>) {
        self.accepting = listeners.into_iter().collect();
    }

    /// The first listener that a virtual router needs and that does not accept.
    pub(super) fn missing(&self, router: &VirtualRouter, ports: &[u16]) -> Option<SocketAddr> {
        router
            .client_addresses()
            .flat_map(|address| {
                ports
                    .iter()
                    .map(move |port| SocketAddr::new(address, *port))
            })
            .find(|listener| !self.accepting.contains(listener))
    }
}

impl Drop for Pairing {
    fn drop(&mut self) {
        self.channel.shutdown();
    }
}

/// Has clients of a proxy that is dying know at once. As long as it has not closed its end of the channel, its files are
/// still open, and no other proxy has its place.
fn end_sockets(served: &Served, channel: &Channel) {
    drop(realtime::real_time_or_favoured(RESET_PRIORITY));
    let served = served
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let begun = Instant::now();
    let is_dying = || channel.is_open() && begun.elapsed() < RESET_WITHIN;
    if let Err(error) = Sockets::open().and_then(|mut sockets| sockets.end(&served, is_dying)) {
        tracing::warn!(%error, "cannot end the sockets of the proxy that died");
    }
}

/// Reads what the proxy says. End-of-file is the second sign of its death.
fn listen(
    number: PairingNumber,
    channel: Channel,
    sender: Sender,
    bell: Arc<Bell>,
) -> io::Result<()> {
    spawn("proxy-read", move || {
        let places = Places::default();
        loop {
            match channel.receive_at_most::<ProxyToVrrp>(LONGEST, 0) {
                Ok(Some((message, _))) => {
                    sender.send(Event::Proxy(number, message, places.take()));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "cannot understand the proxy");
                    break;
                }
            }
        }
        bell.proxy_died(number);
        sender.send(Event::ProxyGone(number));
    })
}

/// Starts a thread that ends by itself.
pub(in crate::vrrp) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(body)
        .map(drop)
}
