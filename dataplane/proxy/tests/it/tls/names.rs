//! Which certificate a client gets, and what is none.

use std::sync::Arc;

use proxy::tls::{ClientTls, Identity, MinimumVersion, ServerTls, TicketKeys, TlsError};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use rustls::SignatureScheme;

use super::support::{
    Authority, HOST, listener, own, shown, trusting_client, trusting_client_of, try_secure,
};
use crate::support::{Rig, echo};

#[tokio::test]
async fn each_name_gets_its_certificate_and_all_others_the_first() {
    let authority = Authority::new();
    let first = authority.identity(&["first.example"]);
    let several = authority.identity(&["Chat.Example", "chat.test"]);
    let wildcard = authority.identity(&["*.apps.example"]);
    let rig = Rig::with(&[echo().await], |pool| {
        let all = [first.clone(), wildcard.clone(), several.clone()];
        pool.listeners[0].tls = Some(listener(&all));
    });
    let client = Arc::new(trusting_client());
    for (host, expected) in [
        ("first.example", &first),
        ("chat.example", &several),
        ("CHAT.test", &several),
        ("one.apps.example", &wildcard),
        ("two.one.apps.example", &first),
        ("apps.example", &first),
        ("unknown.test", &first),
        // No name is sent for an address.
        ("127.0.0.1", &first),
    ] {
        let stream = try_secure(rig.address, host, &client).await.unwrap();
        assert_eq!(shown(stream.get_ref().1), own(expected), "{host}");
    }
}

#[tokio::test]
async fn of_two_for_one_name_a_client_gets_the_one_that_it_understands() {
    let authority = Authority::new();
    let ecdsa = authority.identity(&[HOST]);
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let rsa = authority.identity_with(&[HOST], &key, |_| {});
    let rig = Rig::with(&[echo().await], |pool| {
        pool.listeners[0].tls = Some(listener(&[ecdsa.clone(), rsa.clone()]));
    });
    let stream = try_secure(rig.address, HOST, &Arc::new(trusting_client())).await;
    assert_eq!(shown(stream.unwrap().get_ref().1), own(&ecdsa));
    let only_rsa = trusting_client_of(vec![SignatureScheme::RSA_PSS_SHA256]);
    let stream = try_secure(rig.address, HOST, &Arc::new(only_rsa)).await;
    assert_eq!(shown(stream.unwrap().get_ref().1), own(&rsa));
}

#[test]
fn what_cannot_serve_is_refused_with_its_name_and_the_remedy() {
    let authority = Authority::new();
    let good = authority.identity(&[HOST]);
    let other = authority.identity(&[HOST]);
    let server = |identity: Identity| {
        ServerTls::new(&[identity], MinimumVersion::Tls12, &TicketKeys::default()).unwrap_err()
    };
    let edited = |edit: fn(&mut Identity)| {
        let mut identity = good.clone();
        edit(&mut identity);
        server(identity).to_string()
    };
    for (error, part) in [
        (
            edited(|it| it.chain.clear()),
            "tls.crt holds no certificate",
        ),
        (edited(|it| it.chain.truncate(100)), "tls.crt"),
        (edited(|it| it.key.clear()), "tls.key holds no private key"),
        (edited(|it| it.chain = it.key.clone()), "tls.crt"),
        (edited(|it| it.key = it.chain.clone()), "tls.key"),
    ] {
        assert!(error.contains("certificate default/chat-tls"), "{error}");
        assert!(error.contains(part), "{error}");
    }
    let mismatch = Identity {
        key: other.key.clone(),
        ..good.clone()
    };
    assert!(matches!(server(mismatch), TlsError::KeyMismatch { .. }));
    let none = ServerTls::new(&[], MinimumVersion::Tls12, &TicketKeys::default());
    assert_eq!(none.unwrap_err(), TlsError::NoIdentity);

    let client = |host: &str, ca: &str| ClientTls::new(host, ca.as_bytes(), None).unwrap_err();
    assert_eq!(client(HOST, ""), TlsError::NoCa);
    assert_eq!(client(HOST, "nonsense"), TlsError::NoCa);
    assert!(
        client("not a name", &authority.pem)
            .to_string()
            .contains("not a name")
    );
    assert!(!format!("{good:?}").contains("KEY"));
}

#[test]
fn those_of_the_same_content_are_equal() {
    let authority = Authority::new();
    let [one, other] = [[HOST], ["other.example"]].map(|names| authority.identity(&names));
    let keys = |keys: &[u8]| TicketKeys(keys.iter().map(|key| [*key; 32]).collect());
    let server = |identities: &[&Identity], version, ticket_keys: &[u8]| {
        let identities: Vec<_> = identities.iter().map(|it| (*it).clone()).collect();
        ServerTls::new(&identities, version, &keys(ticket_keys)).unwrap()
    };
    let (tls12, tls13) = (MinimumVersion::Tls12, MinimumVersion::Tls13);
    let same = server(&[&one, &other], tls12, &[1, 2]);
    assert_eq!(same, server(&[&one, &other], tls12, &[1, 2]));
    for different in [
        server(&[&other, &one], tls12, &[1, 2]),
        server(&[&one], tls12, &[1, 2]),
        server(&[&one, &other], tls13, &[1, 2]),
        server(&[&one, &other], tls12, &[2, 1]),
        server(&[&one, &other], tls12, &[]),
    ] {
        assert_ne!(same, different);
    }
    let client = |host, identity| ClientTls::new(host, authority.pem.as_bytes(), identity).unwrap();
    assert_eq!(client(HOST, Some(&one)), client(HOST, Some(&one)));
    assert_ne!(client(HOST, Some(&one)), client(HOST, Some(&other)));
    assert_ne!(client(HOST, Some(&one)), client(HOST, None));
    assert_ne!(client(HOST, None), client("other.example", None));
}
