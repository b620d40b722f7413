//! What is decided of a client before TLS begins with it, which costs more than all the rest of its
//! handshake: whether there would be room for it, and when its turn is.
//!
//! There are two queues. In that of the pool clients wait for as long as `handshakesPerSecond` wants. In
//! that of the worker each waits until the event loop has looked at all sockets after the one before it,
//! so that sessions and handshakes under way wait for one beginning at most, however many clients come
//! together.

use std::{pin::pin, time::Duration};

use tokio::{
    task::yield_now,
    time::{Instant, timeout},
};

use super::{Failure, fill, queue_up};
use crate::{
    client::{self, Ends},
    limits::{Arriving, GatewayArriving, Turn},
    live::{Pool, Route},
    stats::HandshakeResult,
    stream::Stream,
    tls::HELLO_MAX,
    worker::Worker,
};

/// What a client got that may begin TLS.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// It is counted among those on their way, until it asks. Not so one that is only to be told that
    /// there is no room.
    pub(super) arriving: Option<(Arriving, GatewayArriving)>,
    /// Its handshake has had its turn.
    pub(super) has_turn: bool,
    /// How long it has waited.
    pub(super) waited: Duration,
}

/// Waits until TLS may begin with a client whose first message is whole.
///
/// One that has no room here is told so behind TLS, as nothing else would be understood, as long as few
/// are. That is decided anew when it asks: there may be room by then.
pub(super) async fn pass(
    worker: &Worker,
    route: &Route,
    client: &mut Stream,
    ends: Ends,
    received: &mut Vec<u8>,
) -> Result<Pass, Failure> {
    let Pool {
        admission, limits, ..
    } = &*route.pool;
    let begun = Instant::now();
    let patience = route.routing.patience() / 2;
    // Where a proxy may name its client it will do so when it asks.
    let is_proxy = client::is_trusted(&route.trusted_proxies, ends.source.ip());
    let source = (!is_proxy).then(|| ends.source.ip());
    let room = admission.arrive(limits, source);
    let gateway = &worker.shared.gateway;
    let room = room.and_then(|arriving| {
        let arriving = (arriving, gateway.arrive()?);
        Ok((arriving, queue_up(&route.pool, gateway, patience)?))
    });
    let (arriving, turn) = match room {
        Ok((arriving, turn)) => (Some(arriving), turn),
        Err(_) if worker.may_tell() => (None, Turn::default()),
        Err(limit) => {
            admission.hit(limit);
            return Err(dropped(client));
        }
    };
    let has_turn = arriving.is_some();
    let begins = async {
        turn.comes().await;
        timeout(patience, worker.wait_to_begin()).await.is_ok()
    };
    match stay(worker, client, received, begins).await {
        Some(true) => turn.begin(),
        // The worker has more to do than it can.
        Some(false) => return Err(dropped(client)),
        None => return Err(Failure::Silent(HandshakeResult::ClientGone)),
    }
    Ok(Pass {
        arriving,
        has_turn,
        waited: begun.elapsed(),
    })
}

/// A reset, as a TCP server sends that has no room: it tells the client at once, and leaves nothing
/// behind in the kernel.
fn dropped(client: &mut Stream) -> Failure {
    client.reset();
    Failure::Silent(HandshakeResult::Dropped)
}

/// Waits for its turn with a client; `None`: it has not stayed.
async fn stay(
    worker: &Worker,
    client: &mut Stream,
    received: &mut Vec<u8>,
    turn: impl Future<Output = bool>,
) -> Option<bool> {
    let mut turn = pin!(turn);
    loop {
        tokio::select! {
            biased;
            turn = &mut turn => return Some(turn),
            read = fill(worker, client, received), if received.len() < HELLO_MAX => {
                if !matches!(read, Ok(n) if n > 0) {
                    return None;
                }
            }
        }
    }
}

impl Worker {
    /// Waits until all that came before have begun, and the event loop has looked at its sockets since.
    async fn wait_to_begin(&self) {
        // It is never closed.
        if let Ok(first) = self.beginnings.acquire().await {
            // Comes back after the loop has looked, and behind what was ready then.
            yield_now().await;
            drop(first);
        }
    }
}
