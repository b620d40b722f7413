//! The proxy's side of a pairing with a vrrp process.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{PoisonError, RwLock, mpsc::SyncSender},
    thread,
    time::Duration,
};

use node_api::PoolRef;

use crate::{
    ipc::{ProxyToVrrp, UsableEndpoints, VrrpToProxy},
    proxy::served::Input,
    sys::{channel::Channel, life::End, memory::Shared, pages::PairPage},
};

/// How long vrrp may leave its socket full. It is told little: a full one means that it hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the workers' beats go: the page of the newest pairing.
#[derive(Debug, Default)]
pub(super) struct Beats(RwLock<Option<&'static PairPage>>);

impl Beats {
    /// Records that the loop of `worker` turned.
    pub(super) fn beat(&self, worker: usize) {
        let page = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = page {
            page.beats.beat(worker);
        }
    }

    fn move_to(&self, page: &'static PairPage) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(page);
    }
}

/// A vrrp that watches this process and leads its planned stops.
#[derive(Debug)]
pub(super) struct Pairing {
    /// Tells the messages of successive pairings apart.
    pub(super) number: u64,
    channel: Channel,
    accepting: Option<Vec<SocketAddr>>,
    usable: BTreeMap<PoolRef, UsableEndpoints>,
}

impl Drop for Pairing {
    fn drop(&mut self) {
        // Ends the thread that receives.
        self.channel.shutdown();
    }
}

impl Pairing {
    /// Begins a pairing: takes the life mutex for the calling thread, which must live as long as
    /// the process, moves the beats to the new page, and says so.
    ///
    /// # Errors
    /// What the system said, with what was attempted.
    pub(super) fn begin(
        number: u64,
        [page, socket]: [OwnedFd; 2],
        workers: usize,
        beats: &Beats,
        inputs: &SyncSender<Input>,
    ) -> io::Result<Self> {
        // Never unmapped: the kernel finds the mutex there when the thread ends.
        let page = Shared::<PairPage>::from_fd(page)?.leak();
        page.proxy_life.hold()?;
        page.beats.begin(workers);
        beats.move_to(page);

        let channel = Channel::new(UnixStream::from(socket), PATIENCE)?;
        let receiving = channel.try_clone()?;
        let inputs = inputs.clone();
        thread::Builder::new()
            .name("from-vrrp".to_owned())
            .spawn(move || receive(number, page, &receiving, &inputs))?;
        channel.send(&ProxyToVrrp::Holding, &[])?;
        Ok(Self {
            number,
            channel,
            accepting: None,
            usable: BTreeMap::new(),
        })
    }

    /// Tells what is news of `accepting` (listener addresses) and `usable` (endpoints by pool).
    pub(super) fn tell(
        &mut self,
        accepting: Vec<SocketAddr>,
        usable: &BTreeMap<PoolRef, UsableEndpoints>,
    ) -> io::Result<()> {
        if self.accepting.as_ref() != Some(&accepting) {
            let message = ProxyToVrrp::Accepting {
                listeners: accepting.clone(),
            };
            self.channel.send(&message, &[])?;
            self.accepting = Some(accepting);
        }
        for (pool, endpoints) in usable {
            if self.usable.get(pool) != Some(endpoints) {
                let message = ProxyToVrrp::Usable {
                    pool: pool.clone(),
                    endpoints: endpoints.clone(),
                };
                self.channel.send(&message, &[])?;
            }
        }
        self.usable.clone_from(usable);
        Ok(())
    }

    /// Answers a [`VrrpToProxy::Leave`].
    pub(super) fn left(&self, addresses: Vec<std::net::IpAddr>) -> io::Result<()> {
        self.channel.send(&ProxyToVrrp::Left { addresses }, &[])
    }
}

fn receive(number: u64, page: &'static PairPage, channel: &Channel, inputs: &SyncSender<Input>) {
    let mut is_watched = false;
    loop {
        let input = match channel.receive::<VrrpToProxy>() {
            Ok(Some((message, _))) => Input::Vrrp(number, message),
            Ok(None) => Input::VrrpGone(number),
            Err(error) => {
                tracing::error!(%error, "cannot understand vrrp");
                Input::VrrpGone(number)
            }
        };
        // It holds its mutex before it says a word.
        if !std::mem::replace(&mut is_watched, true) {
            watch(number, page, inputs.clone());
        }
        let over = matches!(input, Input::VrrpGone(_));
        if inputs.send(input).is_err() || over {
            return;
        }
    }
}

/// Waits for the mark that vrrp was killed, which comes long before end-of-file where much memory is
/// to be torn down.
fn watch(number: u64, page: &'static PairPage, inputs: SyncSender<Input>) {
    let watching = thread::Builder::new()
        .name("vrrp-watch".to_owned())
        .spawn(move || match page.vrrp_life.wait_for_end() {
            // A proxy that ends does not care.
            Ok(End::Died) => drop(inputs.send(Input::VrrpGone(number))),
            Ok(End::Released) => {}
            Err(error) => tracing::warn!(%error, "cannot watch the life of vrrp"),
        });
    if let Err(error) = watching {
        tracing::warn!(%error, "cannot watch the life of vrrp");
    }
}
