//! What a client asks for, once it may have it.

use std::{sync::Arc, time::Duration};

use super::{content::Framing, head};
use crate::{
    client::{self, Ends},
    config::PlainRequests,
    handshake::{Body, PlainRequest},
    limits::{Gateway, GatewayPlace, Place},
    live::Route,
    open::{self, Admitted, Failure},
    record::Entry,
    stream::Stream,
};

/// A request on its way to an endpoint.
pub(super) struct Asked {
    /// What it asks for, by which its upstream is chosen.
    pub(super) host: Vec<u8>,
    pub(super) target: Vec<u8>,
    /// How long it may take to find an endpoint for it, and how long it may then stand still.
    pub(super) limit: Duration,
    pub(super) timeout: Duration,
    /// The head for the endpoint.
    pub(super) head: Vec<u8>,
    /// Where its content ends, and how the endpoint gets it.
    pub(super) body: Body,
    pub(super) framing: Framing,
    /// Who asks, and where it has connected to.
    pub(super) ends: Ends,
    /// What it is known by, where endpoints are chosen by that.
    pub(super) key: Option<u64>,
    _place: (Place, GatewayPlace),
    /// Its connection may carry another one behind it.
    pub(super) persists: bool,
    /// Two endpoints may carry it out.
    pub(super) is_idempotent: bool,
    pub(super) is_head: bool,
    pub(super) is_old: bool,
    pub(super) is_http2: bool,
}

impl Asked {
    /// Whether the client, which has come by `ends`, may have what it asks for.
    pub(super) fn admit(
        route: &Route,
        gateway: &Arc<Gateway>,
        settings: PlainRequests,
        request: &PlainRequest<'_>,
        ends: Ends,
        client: &Stream,
        entry: &mut Entry,
    ) -> Result<Self, Failure> {
        let admitted = open::enter(route, gateway, &request.asks, ends, client, entry)?;
        let Admitted {
            limit,
            ends: found,
            key,
            place,
        } = admitted;
        let is_trusted = client::is_trusted(&route.trusted_proxies, ends.source.ip());
        let body = client.content(request.body);
        let framing = match body {
            Body::Length(length) => Framing::Length(length),
            Body::Chunked(_) | Body::UntilEnd => Framing::Chunked,
        };
        Ok(Self {
            host: request.asks.host.to_vec(),
            target: request.asks.target.to_vec(),
            limit,
            timeout: settings.timeout,
            head: head::request(request, framing, ends, is_trusted, client),
            body,
            framing,
            ends: found,
            key,
            _place: place,
            persists: request.persists() && !client.is_http2(),
            is_idempotent: request.is_idempotent(),
            is_head: request.method == b"HEAD",
            is_old: request.is_old,
            is_http2: client.is_http2(),
        })
    }

    /// Whether it may be asked of another endpoint, after one that has its head has failed: it was not whole
    /// there, or does no harm when it is carried out twice (RFC 9110 section 9.2.2).
    pub(super) fn is_repeatable(&self) -> bool {
        self.is_idempotent || self.body != Body::Length(0)
    }
}
