//! TLS in tests: an authority, certificates that come from it, a client that trusts it, and a server
//! that the client is to reach.

use std::{process::Command, sync::Arc, thread};

use futures_util::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async, tungstenite::Message};

pub(crate) const HOSTNAME: &str = "chat.example";
/// The listener with TLS of all these tests.
const LISTENER: &str = "192.168.7.110:8020";
/// 2031-01-01, when certificates end, in seconds since the Unix epoch.
pub(crate) const END: u64 = 1_924_992_000;

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        Self {
            issuer,
            certificate,
        }
    }

    /// A certificate for [`HOSTNAME`].
    pub(crate) fn issue(&self) -> Issued {
        self.issue_until(2031)
    }

    /// The same, until the first day of a year.
    pub(crate) fn issue_until(&self, year: i32) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![HOSTNAME.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
        }
    }
}

/// A session by wss://.
pub(crate) struct Session {
    ws: WebSocketStream<TlsStream<TcpStream>>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) is_resumed: bool,
}

/// A client; another one knows nothing of its sessions.
pub(crate) struct Client {
    runtime: Runtime,
    connector: TlsConnector,
}

impl Client {
    pub(crate) fn new(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            runtime: runtime(),
            connector: TlsConnector::from(Arc::new(config)),
        }
    }

    /// Opens a session; `None`: it was not accepted.
    pub(crate) fn open(&self) -> Option<Session> {
        self.runtime.block_on(async {
            let stream = TcpStream::connect(LISTENER).await.ok()?;
            let name = ServerName::try_from(HOSTNAME).unwrap();
            let tls = self.connector.connect(name, stream).await.ok()?;
            let (_, connection) = tls.get_ref();
            let certificate = connection
                .peer_certificates()?
                .first()?
                .clone()
                .into_owned();
            let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
            let (ws, _) = client_async(format!("wss://{HOSTNAME}/"), tls).await.ok()?;
            Some(Session {
                ws,
                certificate,
                is_resumed,
            })
        })
    }

    /// Sends a text through the session, and back.
    pub(crate) fn round_trip(&self, session: &mut Session, text: &str) {
        self.runtime.block_on(async {
            session.ws.send(Message::text(text)).await.unwrap();
            let answer = session.ws.next().await.unwrap().unwrap();
            assert_eq!(answer, Message::text(text));
        });
    }
}

fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}

/// Serves the endpoint of the test's pool, 192.168.7.20:8010, on this host: whatever comes goes back.
pub(crate) fn serve_endpoint() {
    let words = "addr add 192.168.7.20/24 dev eth0".split(' ');
    let done = Command::new("ip").args(words).status().unwrap();
    assert!(done.success());
    let listener = std::net::TcpListener::bind("192.168.7.20:8010").unwrap();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(mut ws) = accept_async(stream).await else {
                        return;
                    };
                    while let Some(Ok(message)) = ws.next().await {
                        if ws.send(message).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    });
}
