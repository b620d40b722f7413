//! Opening a stream: TCP, TLS, token, WebSocket; and why that fails, one sentence for each cause.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use node_api::{
    Protocol,
    stream::{PATH, fingerprint},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem, pem::PemObject},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, ClientRequestBuilder,
        error::ProtocolError,
        http::{StatusCode, Uri, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::WebSocketConfig,
    },
};

/// From the first packet to the open stream, and from there to the first message.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The longest message: a pool's endpoints are some 100 bytes each.
const LONGEST_MESSAGE: usize = 64 << 20;
/// Of a refusal's body, in a log.
const QUOTED: usize = 200;

/// An open stream.
pub(super) type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// An open stream and its version.
pub(super) type Opened = (Socket, Protocol);

/// A controller as it was given, `HOST:PORT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Target {
    /// Name or address; its certificate must carry it.
    pub(super) host: String,
    /// Port.
    pub(super) port: u16,
}

/// `--controller` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    /// No host or no port.
    #[error("--controller {0}: give it as HOST:PORT, an IPv6 address in brackets")]
    Form(String),
    /// No name that a certificate can carry.
    #[error("--controller {text}: the host is neither a name nor an address")]
    Host {
        /// As given.
        text: String,
        /// What is wrong with it.
        #[source]
        source: InvalidDnsNameError,
    },
}

impl Target {
    /// Reads `HOST:PORT`.
    pub(super) fn parse(text: &str) -> Result<Self, TargetError> {
        let form = || TargetError::Form(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse().map_err(|_| form())?;
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        if host.is_empty() || port == 0 || (bare.is_none() && host.contains(':')) {
            return Err(form());
        }
        let host = bare.unwrap_or(host).to_owned();
        match ServerName::try_from(host.as_str()) {
            Ok(_) => Ok(Self { host, port }),
            Err(source) => Err(TargetError::Host {
                text: text.to_owned(),
                source,
            }),
        }
    }
}

/// The files that make a stream trusted, on both sides. Read for each stream: they are rotated.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    /// Certificates of the authorities that the controller's certificate may come from.
    pub(super) authorities: PathBuf,
    /// The token that tells who we are.
    pub(super) token: PathBuf,
}

/// Why there is no stream, or no longer one.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    /// The name leads nowhere.
    #[error("its name cannot be resolved")]
    Resolve(#[source] io::Error),
    /// The name has no address.
    #[error("its name has no address: no replica runs, or the Service does not choose any")]
    NoAddress,
    /// The kernel refused a file.
    #[error("cannot read {path}, which is needed to open a stream")]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// `--controller-ca` holds nothing that can be used.
    #[error("{path} holds no certificate in PEM form; --controller-ca names the authority's")]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in `--controller-ca` is damaged.
    #[error("a certificate in {path} cannot be read")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// What is in the token file cannot be a token.
    #[error("{path} holds no token; --token-file names the projected ServiceAccount token")]
    NoToken {
        /// The file.
        path: PathBuf,
    },
    /// TLS cannot be set up at all.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
    /// It does not listen, or packets do not arrive.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// Something takes too long.
    #[error("it did not answer within {} s", PATIENCE.as_secs())]
    Late,
    /// It is not the controller, as far as we know.
    #[error("its certificate is not accepted ({reason}); {path} must hold its authority's")]
    Certificate {
        /// What is wrong with it.
        reason: rustls::CertificateError,
        /// `--controller-ca`.
        path: PathBuf,
    },
    /// TLS failed for another reason.
    #[error("cannot agree on TLS")]
    Tls(#[source] io::Error),
    /// 401.
    #[error(
        "it refused our token (401{quote}): {path} has expired, or is not of the data plane's \
         service account and of the stream's audience"
    )]
    Unauthorized {
        /// `--token-file`.
        path: PathBuf,
        /// What it said.
        quote: String,
    },
    /// 403.
    #[error("it does not let this pod in (403{quote}): the token is not one of the data plane's")]
    Forbidden {
        /// What it said.
        quote: String,
    },
    /// Any other status.
    #[error("it answered {status} instead of opening a stream{quote}")]
    Status {
        /// The status.
        status: StatusCode,
        /// What it said.
        quote: String,
    },
    /// Versions too far apart.
    #[error(
        "it takes none of the versions that this node speaks ({}): the two are too far apart; update \
         the older",
        Protocol::spoken_in_words()
    )]
    Subprotocol,
    /// It does not speak WebSocket.
    #[error("it does not speak WebSocket as it should")]
    WebSocket(#[source] tungstenite::Error),
    /// The stream broke.
    #[error("the stream broke")]
    Broken(#[source] tungstenite::Error),
    /// It ended the stream.
    #[error("it closed the stream{0}")]
    Closed(String),
    /// Nothing came, no pong either.
    #[error("it said nothing for {} ms", .0.as_millis())]
    Silent(Duration),
    /// It did not read.
    #[error("it took nothing for {} ms", .0.as_millis())]
    Stuck(Duration),
    /// What it says makes no sense.
    #[error("it said something that cannot be understood")]
    Unreadable(#[source] node_api::DecodeError),
    /// It did not say who it is.
    #[error("its first message was not its welcome")]
    NoWelcome,
}

/// Opens a stream to one address of the target.
pub(super) async fn open(
    target: &Target,
    address: SocketAddr,
    credentials: &Credentials,
) -> Result<Opened, Cause> {
    let connector = connector(&credentials.authorities)?;
    let token = token(&credentials.token)?;
    let opened = async {
        let tcp = TcpStream::connect(address).await.map_err(Cause::Connect)?;
        tcp.set_nodelay(true).map_err(Cause::Connect)?;
        let name = ServerName::try_from(target.host.clone())
            .map_err(|error| Cause::Tls(io::Error::other(error)))?;
        let tls = connector.connect(name, tcp).await;
        let tls = tls.map_err(|error| tls_cause(error, &credentials.authorities))?;
        let (socket, protocol) = upgrade(tls, target, &token).await.map_err(|error| {
            // With TLS 1.3 the other side may refuse after we are done.
            websocket_cause(error, &credentials.token)
        })?;
        Ok((socket, protocol.ok_or(Cause::Subprotocol)?))
    };
    let opened = tokio::time::timeout(PATIENCE, opened).await;
    opened.map_err(|_| Cause::Late)?
}

async fn upgrade(
    tls: TlsStream<TcpStream>,
    target: &Target,
    token: &str,
) -> Result<(Socket, Option<Protocol>), tungstenite::Error> {
    let host = if target.host.contains(':') {
        format!("[{}]", target.host)
    } else {
        target.host.clone()
    };
    let uri: Uri = format!("wss://{host}:{}{PATH}", target.port).parse()?;
    let request =
        ClientRequestBuilder::new(uri).with_header("Authorization", format!("Bearer {token}"));
    let request = Protocol::spoken().fold(request, ClientRequestBuilder::with_sub_protocol);
    let config = WebSocketConfig::default()
        .max_message_size(Some(LONGEST_MESSAGE))
        .max_frame_size(Some(LONGEST_MESSAGE));
    let (socket, answer) = client_async_with_config(request, tls, Some(config)).await?;
    // That it is one of those offered was checked.
    let chosen = answer.headers().get(SEC_WEBSOCKET_PROTOCOL);
    let chosen = chosen.and_then(|name| Protocol::named(name.to_str().ok()?));
    Ok((socket, chosen))
}

/// The authorities in a bundle, as a controller is told; empty where there is none to be read, which
/// whoever opens a stream says.
pub(super) fn fingerprints(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let certificates = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
    certificates
        .map(|certificate| fingerprint(&certificate))
        .collect()
}

fn connector(path: &Path) -> Result<TlsConnector, Cause> {
    let text = read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error: pem::Error| Cause::Authority {
            path: path.to_owned(),
            source: rustls::Error::General(error.to_string()),
        })?;
        roots.add(certificate).map_err(|source| Cause::Authority {
            path: path.to_owned(),
            source,
        })?;
    }
    if roots.is_empty() {
        let path = path.to_owned();
        return Err(Cause::NoAuthority { path });
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(Cause::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn token(path: &Path) -> Result<String, Cause> {
    let text = read(path)?;
    let token = text.trim_ascii();
    match std::str::from_utf8(token) {
        Ok(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(token.to_owned())
        }
        _ => Err(Cause::NoToken {
            path: path.to_owned(),
        }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Cause> {
    fs::read(path).map_err(|source| Cause::File {
        path: path.to_owned(),
        source,
    })
}

fn tls_cause(error: io::Error, authorities: &Path) -> Cause {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => Cause::Certificate {
            reason: reason.clone(),
            path: authorities.to_owned(),
        },
        _ => Cause::Tls(error),
    }
}

fn websocket_cause(error: tungstenite::Error, token: &Path) -> Cause {
    match error {
        tungstenite::Error::Http(response) => {
            let quote = quote(response.body().as_deref().unwrap_or_default());
            match response.status() {
                StatusCode::UNAUTHORIZED => Cause::Unauthorized {
                    path: token.to_owned(),
                    quote,
                },
                StatusCode::FORBIDDEN => Cause::Forbidden { quote },
                status => Cause::Status { status, quote },
            }
        }
        tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
            Cause::Subprotocol
        }
        error => Cause::WebSocket(error),
    }
}

/// The beginning of what the other side says about itself, fit for a log.
fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text
        .trim()
        .chars()
        .take(QUOTED)
        .map(|one| if one.is_control() { ' ' } else { one })
        .collect();
    if text.is_empty() {
        text
    } else {
        format!(": {text:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::temporary::Directory;

    #[test]
    fn a_controller_is_a_host_and_a_port() {
        for (text, host) in [
            ("wsha-controller.wsha.svc:8443", "wsha-controller.wsha.svc"),
            ("192.168.7.1:8443", "192.168.7.1"),
            ("[fd00::1]:8443", "fd00::1"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, 8443), "{text}");
        }
        for text in [
            "",
            "host",
            "host:",
            ":8443",
            "host:0",
            "host:x",
            "fd00::1:8443",
            "a b:1",
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn files_that_do_not_serve_are_named() {
        let directory = Directory::new();
        let path = directory.path().join("file");
        let said = |cause: &Cause| crate::agent::chain(cause);
        let missing = connector(&path).err().unwrap();
        assert!(said(&missing).contains("cannot read"), "{missing}");
        for (text, words) in [
            ("", "holds no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "cannot be read",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let cause = connector(&path).err().unwrap();
            assert!(said(&cause).contains(words), "{}", said(&cause));
        }
        for text in ["", "\n", "two words", "\u{e4}"] {
            fs::write(&path, text).unwrap();
            let cause = token(&path).unwrap_err();
            assert!(said(&cause).contains("holds no token"), "{text}");
        }
        fs::write(&path, "abc.def\n").unwrap();
        assert_eq!(token(&path).unwrap(), "abc.def");
    }

    #[test]
    fn quotes_are_short_and_in_one_line() {
        assert_eq!(quote(b" \n"), "");
        assert_eq!(quote(b"no\nsuch"), ": \"no such\"");
        assert!(quote(&[b'x'; 4096]).len() < 256);
    }
}
