//! A client of the API server: JSON over HTTP/1.1 over TLS, one connection each.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where the API server is, and as whom to speak to it.
#[derive(Clone, Debug)]
pub struct Access {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    authorization: String,
}

/// A TLS client that trusts the certificates of a PEM text and nothing else.
pub fn trusting(pem: &[u8]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.context("no certificate")?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl Access {
    /// From a kubeconfig that the [control plane](crate::cluster::ControlPlane) wrote.
    pub fn read(kubeconfig: &Path) -> Result<Self> {
        let config: Value = serde_json::from_slice(&fs::read(kubeconfig)?)?;
        let text = |pointer: &str| {
            let value = config.pointer(pointer).and_then(Value::as_str);
            value.with_context(|| format!("no {pointer} in {}", kubeconfig.display()))
        };
        let server = text("/clusters/0/cluster/server")?;
        let address = server.trim_start_matches("https://").parse()?;
        let authority = fs::read(text("/clusters/0/cluster/certificate-authority")?)?;
        Ok(Self {
            address,
            tls: trusting(&authority)?,
            authorization: format!("Bearer {}", text("/users/0/user/token")?),
        })
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Api> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Api {
            sender,
            authorization: self.authorization.clone(),
        })
    }
}

/// A connection to the API server.
#[derive(Debug)]
pub struct Api {
    sender: SendRequest<Full<Bytes>>,
    authorization: String,
}

impl Api {
    /// Makes an object, or calls what is called like that.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        self.call("POST", path, Some(("application/json", body)))
            .await
    }

    /// Changes an object by a merge patch.
    pub async fn patch(&mut self, path: &str, body: &Value) -> Result<Value> {
        let body = Some(("application/merge-patch+json", body));
        self.call("PATCH", path, body).await
    }

    /// Reads.
    pub async fn get(&mut self, path: &str) -> Result<Value> {
        self.call("GET", path, None).await
    }

    /// Begins a watch: what follows is one JSON object a line.
    pub async fn watch(&mut self, path: &str) -> Result<Lines> {
        let answer = self.send("GET", path, None).await?;
        Ok(Lines {
            body: answer.into_body(),
            rest: Vec::new(),
        })
    }

    async fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value> {
        let answer = self.send(method, path, body).await?;
        let status = answer.status();
        let content = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!(
                "{method} {path}: {status}: {}",
                String::from_utf8_lossy(&content)
            );
        }
        Ok(serde_json::from_slice(&content)?)
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kubernetes")
            .header("authorization", &self.authorization)
            .header("accept", "application/json");
        let mut content = Bytes::new();
        if let Some((type_, body)) = body {
            request = request.header("content-type", type_);
            content = serde_json::to_vec(body)?.into();
        }
        self.sender.ready().await?;
        let sent = self.sender.send_request(request.body(Full::new(content))?);
        sent.await.with_context(|| format!("{method} {path}"))
    }
}

/// The lines of a watch.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next one.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            let frame = self.body.frame().await.context("the watch has ended")??;
            if let Ok(data) = frame.into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }
}
