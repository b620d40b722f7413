//! Certificates of a CA of the test's own, and what speaks TLS with them.

use std::{net::SocketAddr, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use proxy::tls::{ClientTls, Identity, MinimumVersion, ServerTls, TicketKeys};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        ClientConnection,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tokio_tungstenite::WebSocketStream;

use crate::support::{Rig, listen, soon, unlimited};

pub(crate) const HOST: &str = "chat.example";

pub(crate) type Tls = client::TlsStream<TcpStream>;

pub(crate) type Wss = WebSocketStream<Tls>;

pub(crate) type Version = &'static SupportedProtocolVersion;

pub(crate) const VERSIONS: [Version; 2] = [&TLS12, &TLS13];

/// What makes certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        // Each has a name of its own, or a stranger would only be found by its signature.
        let name = format!("CA {:x?}", &key.public_key_raw()[1..9]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub(crate) fn identity(&self, names: &[&str]) -> Identity {
        self.identity_with(names, &KeyPair::generate().unwrap(), |_| {})
    }

    pub(crate) fn identity_with(
        &self,
        names: &[&str],
        key: &KeyPair,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        edit(&mut params);
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Identity {
            name: "default/chat-tls".to_owned(),
            chain: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        Arc::new(roots)
    }

    /// A client that trusts it.
    pub(crate) fn client(&self, versions: &[Version]) -> ClientConfig {
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// How the proxy is to speak to endpoints that it has made certificates for.
    pub(crate) fn to_endpoints(&self) -> ClientTls {
        ClientTls::new(HOST, self.pem.as_bytes(), None).unwrap()
    }

    /// A server with this certificate.
    pub(crate) fn server(identity: &Identity) -> ServerConfig {
        serving(WebPkiClientVerifier::no_client_auth(), identity)
    }

    /// A server that wants certificates of this CA.
    pub(crate) fn asking_server(&self, identity: &Identity) -> ServerConfig {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider());
        serving(verifier.build().unwrap(), identity)
    }
}

fn serving(clients: Arc<dyn ClientCertVerifier>, identity: &Identity) -> ServerConfig {
    let (chain, key) = parsed(identity);
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap()
}

fn parsed(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(&identity.chain);
    let chain = chain.collect::<Result<_, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_slice(&identity.key).unwrap())
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A listener's TLS with these certificates and nothing special.
pub(crate) fn listener(identities: &[Identity]) -> ServerTls {
    ServerTls::new(identities, MinimumVersion::Tls12, &TicketKeys::default()).unwrap()
}

/// A proxy whose listener has a certificate for [`HOST`].
pub(crate) fn rig(backends: &[SocketAddr]) -> (Rig, Authority) {
    let authority = Authority::new();
    let rig = Rig::with(backends, |pool| {
        pool.access_log = Some(100);
        pool.listeners[0].tls = Some(listener(&[authority.identity(&[HOST])]));
    });
    (rig, authority)
}

/// Accepts every certificate, to look at it, and signatures of these kinds.
#[derive(Debug)]
struct Any(Vec<SignatureScheme>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// A client that looks at no certificate.
pub(crate) fn trusting_client() -> ClientConfig {
    let algorithms = provider().signature_verification_algorithms;
    trusting_client_of(algorithms.supported_schemes())
}

/// One that understands signatures of these kinds only.
pub(crate) fn trusting_client_of(schemes: Vec<SignatureScheme>) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(schemes)))
        .with_no_client_auth()
}

/// The certificate that the server has shown, as it stands in the identity's PEM.
pub(crate) fn shown(connection: &ClientConnection) -> CertificateDer<'static> {
    connection.peer_certificates().unwrap()[0].clone()
}

pub(crate) fn own(identity: &Identity) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(&identity.chain).unwrap()
}

pub(crate) async fn try_secure(
    address: SocketAddr,
    host: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<Tls> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    secure_on(stream, host, config).await
}

pub(crate) async fn secure_on(
    stream: TcpStream,
    host: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<Tls> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    soon(connector.connect(name, stream)).await
}

/// A client of [`HOST`] that has done all handshakes.
pub(crate) async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Wss {
    let stream = try_secure(address, HOST, config).await.unwrap();
    upgrade(stream).await
}

pub(crate) async fn upgrade(stream: Tls) -> Wss {
    let url = format!("wss://{HOST}/");
    let upgraded =
        tokio_tungstenite::client_async_with_config(url, stream, Some(unlimited())).await;
    upgraded.unwrap().0
}

/// A backend that runs `serve` for each connection that comes to TLS with it.
pub(crate) async fn backend<F>(
    config: ServerConfig,
    serve: impl Fn(server::TlsStream<TcpStream>) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, serve) = (acceptor.clone(), Arc::clone(&serve));
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream).await;
                }
            });
        }
    });
    address
}

/// A backend that speaks TLS and sends back what it gets.
pub(crate) async fn echo(config: ServerConfig) -> SocketAddr {
    backend(config, |stream| async move {
        let accepted = tokio_tungstenite::accept_async_with_config(stream, Some(unlimited())).await;
        let Ok(mut ws) = accepted else { return };
        while let Some(Ok(message)) = ws.next().await {
            if (message.is_text() || message.is_binary()) && ws.send(message).await.is_err() {
                break;
            }
        }
    })
    .await
}
