//! Tells the processes what they shall do, whenever that is not what they were told last.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use node_api::{NodeConfig, PoolRef};

use crate::{
    agent::{
        app::{App, Pairing},
        desired,
    },
    ipc::{ProxyReport, ToProxy, ToVrrp},
    sys::{channel::Channel, listen, pages::PairPage},
};

/// How long until a listener that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// How often sockets that a proxy lost are replaced.
const RESEND: Duration = Duration::from_secs(1);

impl App {
    /// Brings both processes closer to what is desired; does nothing when they are there.
    pub(super) fn reconcile(&mut self) {
        self.checks.follow(self.rollout.newest(), &self.events);
        loop {
            if let Err(error) = self.introduce() {
                tracing::error!(%error, "cannot connect vrrp and proxy with each other");
            }
            self.configure_proxy();
            self.configure_vrrp();
            let (proxy, vrrp) = (self.proxy.is_done(), self.vrrp.is_done());
            if !self.rollout.advance(proxy, vrrp, Instant::now()) {
                return;
            }
        }
    }

    /// Gives a new vrrp the table that outlives it.
    pub(super) fn introduce_table(&mut self) {
        match self.table.fd().try_clone_to_owned() {
            Ok(fd) => {
                if let Some(link) = &self.vrrp.link {
                    link.send(ToVrrp::Table, vec![fd]);
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot pass on the table of virtual routers");
                self.vrrp.kill();
            }
        }
    }

    /// Gives vrrp and proxy a page and a socket pair of their own, if either is new.
    fn introduce(&mut self) -> io::Result<()> {
        let (Some(vrrp), Some(proxy)) = (&self.vrrp.link, &self.proxy.link) else {
            return Ok(());
        };
        let paired = |pairing: &Pairing| pairing.vrrp == vrrp.id() && pairing.proxy == proxy.id();
        if self.pairing.as_ref().is_some_and(paired) {
            return Ok(());
        }
        let page = PairPage::create()?;
        let (vrrp_end, proxy_end) = Channel::pair()?;
        let copy = || page.fd().try_clone_to_owned();
        let (vrrp_page, proxy_page) = (copy()?, copy()?);
        vrrp.send(ToVrrp::Pair, vec![vrrp_page, vrrp_end.into()]);
        proxy.send(ToProxy::Pair, vec![proxy_page, proxy_end.into()]);
        self.pairing = Some(Pairing {
            vrrp: vrrp.id(),
            proxy: proxy.id(),
            page,
        });
        Ok(())
    }

    fn configure_vrrp(&mut self) {
        let Some(link) = &self.vrrp.link else { return };
        let checks = self.checks.failing();
        // A new one knows of none.
        if self.vrrp_has.is_none() {
            self.vrrp_knows.clear();
        }
        if self.vrrp_knows != checks {
            self.vrrp_knows.clone_from(&checks);
            link.send(ToVrrp::Failing { checks }, Vec::new());
        }
        let routers = desired::routers(self.rollout.for_vrrp(), &self.not_yet);
        if self.vrrp_has.as_ref() == Some(&routers) {
            return;
        }
        self.vrrp.sent += 1;
        let sequence = self.vrrp.sent;
        link.send(
            ToVrrp::Configure {
                sequence,
                routers: routers.clone(),
            },
            Vec::new(),
        );
        self.vrrp_has = Some(routers);
    }

    fn configure_proxy(&mut self) {
        let Some(link) = &self.proxy.link else { return };
        let wanted = desired::listeners(self.rollout.for_proxy());
        // Those that wait for a certificate, too, and no router for them.
        self.not_yet.retain(|at| wanted.contains_key(at));
        let config = self.keyring.fit(self.rollout.for_proxy());
        let wanted = desired::listeners(&config);
        let retry = self.retry_at.is_some_and(|at| Instant::now() >= at);
        self.proxy_has.sockets.retain(|at| wanted.contains_key(at));
        self.refused.retain(|at, _| wanted.contains_key(at));

        let (mut sockets, mut fds): (Vec<SocketAddr>, Vec<OwnedFd>) = Default::default();
        for (address, owner) in &wanted {
            if self.proxy_has.sockets.contains(address)
                || (self.refused.contains_key(address) && !retry)
            {
                continue;
            }
            match listen::open_group(*address, self.proxy_has.workers) {
                Ok(group) => {
                    sockets.push(*address);
                    fds.extend(group);
                    if self.refused.remove(address).is_some() {
                        tracing::info!(pool = %owner.0, listener = owner.1, %address, "the listener is open now");
                    }
                }
                Err(error) => {
                    let sentence = cannot_listen(*address, owner, &error);
                    if self.refused.get(address) != Some(&sentence) {
                        tracing::error!(pool = %owner.0, listener = owner.1, %address, "{sentence}");
                    }
                    self.refused.insert(*address, sentence);
                }
            }
        }
        if retry || self.refused.is_empty() || self.retry_at.is_none() {
            self.retry_at = (!self.refused.is_empty()).then(|| Instant::now() + RETRY);
        }

        let NodeConfig {
            mut pools,
            keys,
            node_name,
            ..
        } = config;
        // The proxy need not know of other nodes.
        for upstream in pools.values_mut().flat_map(|pool| &mut pool.upstreams) {
            if let Some(preference) = &mut upstream.zone_preference {
                preference.nodes.retain(|name, _| *name == node_name);
            }
        }
        let routers = pools
            .values_mut()
            .flat_map(|pool| &mut pool.virtual_routers);
        for router in routers {
            router.password = None; // it faces the clients and is not trusted
        }
        let pools = pools.into_iter().collect();
        let refused = self.refused.clone().into_iter().collect();
        let content = (pools, keys, refused);
        if sockets.is_empty() && self.proxy_has.content.as_ref() == Some(&content) {
            return;
        }
        self.proxy.sent += 1;
        self.proxy_has.sockets.extend(&sockets);
        let (pools, keys, refused) = content.clone();
        self.proxy_has.content = Some(content);
        link.send(
            ToProxy::Configure {
                sequence: self.proxy.sent,
                pools,
                keys,
                sockets,
                refused,
            },
            fds,
        );
    }

    /// A proxy closes the listeners of an address that stopped in order. If the address is back in
    /// the configuration, it needs new ones. Also notes which new listeners accept.
    pub(super) fn look_for_lost_sockets(&mut self, report: &ProxyReport) {
        let listeners = || report.pools.iter().flat_map(|pool| &pool.listeners);
        for listener in listeners().filter(|listener| listener.accepting) {
            self.not_yet.remove(&listener.address);
        }
        let lost: BTreeSet<SocketAddr> = listeners()
            .filter(|one| !one.accepting && self.proxy_has.sockets.contains(&one.address))
            .map(|one| one.address)
            .collect();
        if lost.is_empty() || self.leaving.is_some() {
            self.proxy_has.resend_at = None;
            return;
        }
        let now = Instant::now();
        let is_due = self.proxy_has.resend_at.is_none_or(|at| now >= at);
        if is_due || !self.rollout.is_settled() {
            self.proxy_has.resend_at = Some(now + RESEND);
        }
        // While a change is under way, vrrp may be stopping the address, and the report may be of
        // the time before.
        if is_due && self.rollout.is_settled() && self.proxy.is_done() {
            tracing::debug!(
                ?lost,
                "the proxy gets new sockets for listeners that it closed"
            );
            self.proxy_has.sockets.retain(|at| !lost.contains(at));
        }
    }
}

fn cannot_listen(address: SocketAddr, owner: &(PoolRef, String), error: &io::Error) -> String {
    let (pool, listener) = owner;
    let port = address.port();
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process has the port: find it with `ss -Hltnp 'sport = :{port}'` and stop it, \
             or choose another port"
        ),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: give it, or choose another port".to_owned()
        }
        _ => "it is tried again every 3 s".to_owned(),
    };
    format!("cannot listen on {address} (listener {listener} of {pool}): {error}; {remedy}")
}
