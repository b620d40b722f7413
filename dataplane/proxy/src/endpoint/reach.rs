//! The way to an endpoint, and what taking it tells.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    Access, Endpoint,
    check::{CHECK_TIMEOUT, check},
    fault::{Fault, SOUND, classify, fault_of_tls},
};
use crate::{
    dial::dial,
    live::Shared,
    proxy_protocol,
    stream::Stream,
    tls::{self, ClientTls},
};

/// How long an endpoint that has done its part of TLS may take to refuse ours.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Why a connection to an endpoint did not come about.
#[derive(Debug)]
pub(crate) enum ConnectFault {
    /// The endpoint's: the next one may do better.
    Endpoint {
        fault: Fault,
        /// It was not known to have one.
        is_news: bool,
    },
    /// Ours: no descriptor, no port; the others would fail alike.
    Local(io::Error),
}

/// Connects to `endpoint` in `limit`, if there is so much time `left`, and records what that tells of it.
/// It gets `header` first.
pub(crate) async fn connect(
    endpoint: &Arc<Endpoint>,
    header: &[u8],
    limit: Duration,
    left: Duration,
    shared: &Arc<Shared>,
) -> Result<Stream, ConnectFault> {
    let reached = reach(endpoint.address, endpoint.access().tls, header);
    let fault = match timeout(limit.min(left), reached).await {
        Ok(Ok(stream)) => {
            endpoint.set_fault(SOUND, shared);
            return Ok(stream);
        }
        Ok(Err(Unreached::Fault(fault))) => fault,
        Ok(Err(Unreached::Local(error))) => return Err(ConnectFault::Local(error)),
        Err(_elapsed) if left < limit.min(CHECK_TIMEOUT) => {
            // The client had used up the time, or others had. That proves nothing: it is looked at.
            check(endpoint, shared);
            return Err(ConnectFault::Endpoint {
                fault: Fault::TimedOut,
                is_news: false,
            });
        }
        Err(_elapsed) => Fault::TimedOut,
    };
    let is_news = endpoint.set_fault(fault as u8, shared);
    check(endpoint, shared);
    Err(ConnectFault::Endpoint { fault, is_news })
}

/// What it said instead of an answer may be that it refuses TLS: an endpoint that speaks TLS 1.3 has not
/// seen our certificate yet when the handshake is over for us (RFC 8446 section 4.4).
pub(crate) fn heard(endpoint: &Arc<Endpoint>, error: &io::Error, shared: &Arc<Shared>) {
    if tls::error(error).is_some() {
        endpoint.set_fault(fault_of_tls(error) as u8, shared);
        check(endpoint, shared);
    }
}

/// Why an endpoint was not reached.
pub(crate) enum Unreached {
    Fault(Fault),
    /// This host's fault.
    Local(io::Error),
}

/// A connection to `address` on which `header` has gone out, secured by `tls` if it is to be.
pub(crate) async fn reach(
    address: SocketAddr,
    tls: Option<ClientTls>,
    header: &[u8],
) -> Result<Stream, Unreached> {
    let mut stream = match dial(address).await {
        Ok(stream) => Stream::from(stream),
        Err(error) => {
            return Err(match classify(&error) {
                Some(fault) => Unreached::Fault(fault),
                None => Unreached::Local(error),
            });
        }
    };
    let Some(tls) = tls else {
        // It may have closed already and still have said why: what is read decides.
        drop(stream.write_all(header).await);
        return Ok(stream);
    };
    let secured = async {
        stream.write_all(header).await?;
        stream
            .secure(tls.connect().map_err(io::Error::other)?)
            .await
    };
    let secured = secured.await;
    secured.map_err(|error| Unreached::Fault(fault_of_tls(&error)))?;
    Ok(stream)
}

/// Reaches an endpoint and leaves it again. With TLS its word on our certificate is waited for, which it may
/// say last.
pub(super) async fn visit(endpoint: &Endpoint) -> Result<(), Unreached> {
    let Access { tls, header } = endpoint.access();
    let header = header.map(proxy_protocol::own).unwrap_or_default();
    let mut stream = reach(endpoint.address, tls, header).await?;
    if stream.is_secure() {
        let last = async {
            stream.shutdown().await?;
            while stream.read(&mut [0; 512]).await? > 0 {}
            Ok(())
        };
        if let Ok(Err(error)) = timeout(LAST_WORD, last).await
            && tls::error(&error).is_some()
        {
            return Err(Unreached::Fault(fault_of_tls(&error)));
        }
    }
    Ok(())
}
