//! Clients that come back with a ticket, to this gateway or another.

use std::sync::Arc;

use proxy::tls::{Identity, MinimumVersion, ServerTls, TicketKeys};
use rustls::{ClientConfig, HandshakeKind};

use super::support::{Authority, HOST, VERSIONS, connect};
use crate::support::{Rig, echo, round_trip};

fn with_keys(identity: &Identity, keys: &[u8]) -> ServerTls {
    let keys = TicketKeys(keys.iter().map(|key| [*key; 32]).collect());
    let identities = [identity.clone()];
    ServerTls::new(&identities, MinimumVersion::Tls12, &keys).unwrap()
}

/// Connects and speaks, so that tickets are read; whether the session was resumed.
async fn resumes(rig: &Rig, client: &Arc<ClientConfig>) -> bool {
    let mut ws = connect(rig.address, client).await;
    round_trip(&mut ws, "hello").await;
    let kind = ws.get_ref().get_ref().1.handshake_kind();
    ws.close(None).await.unwrap();
    kind == Some(HandshakeKind::Resumed)
}

#[tokio::test]
async fn a_client_resumes_at_another_gateway_that_has_the_key() {
    let authority = Authority::new();
    let identity = authority.identity(&[HOST]);
    let backend = echo().await;
    let gateway = |keys: &[u8]| {
        Rig::with(&[backend], |pool| {
            pool.listeners[0].tls = Some(with_keys(&identity, keys));
        })
    };
    let (one, mut two, stranger) = (gateway(&[1]), gateway(&[1]), gateway(&[7]));
    for version in VERSIONS {
        let client = Arc::new(authority.client(&[version]));
        assert!(!resumes(&one, &client).await, "the first time");
        assert!(
            resumes(&one, &client).await,
            "{version:?}: the same gateway"
        );
        assert!(resumes(&two, &client).await, "{version:?}: another gateway");
        assert!(
            !resumes(&stranger, &client).await,
            "{version:?}: other keys"
        );
    }
    // A key that no longer seals still opens, and what it opened is sealed with the new one.
    let client = Arc::new(authority.client(&VERSIONS));
    assert!(!resumes(&one, &client).await);
    two.edit(|pool| pool.listeners[0].tls = Some(with_keys(&identity, &[2, 1])));
    assert!(resumes(&two, &client).await, "a key before the last");
    two.edit(|pool| pool.listeners[0].tls = Some(with_keys(&identity, &[3, 2])));
    assert!(resumes(&two, &client).await, "not sealed with the new key");
    two.edit(|pool| pool.listeners[0].tls = Some(with_keys(&identity, &[4])));
    assert!(!resumes(&two, &client).await, "a key that is gone");
}

#[tokio::test]
async fn without_keys_a_client_resumes_at_the_same_gateway_after_a_change_too() {
    let authority = Authority::new();
    let own = |identity: &Identity| with_keys(identity, &[]);
    let mut rig = Rig::with(&[echo().await], |pool| {
        pool.listeners[0].tls = Some(own(&authority.identity(&[HOST])));
    });
    let client = Arc::new(authority.client(&VERSIONS));
    assert!(!resumes(&rig, &client).await);
    assert!(resumes(&rig, &client).await);
    rig.edit(|pool| pool.listeners[0].tls = Some(own(&authority.identity(&[HOST]))));
    assert!(resumes(&rig, &client).await, "after a new certificate");
}
