//! The admin port: `/metrics`, `/healthz`, `/readyz`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    encoding::text::encode, metrics::gauge::ConstGauge, registry::Registry as Metrics,
};
use tokio::{net::TcpListener, sync::watch, time::sleep};

use crate::{recompute::Published, registry::Registry};

/// A request header that takes longer is not worth waiting for.
const HEADER: Duration = Duration::from_secs(10);

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Admin {
    /// What nodes say.
    pub registry: Arc<Registry>,
    /// What nodes are told.
    pub published: watch::Receiver<Option<Arc<Published>>>,
    /// Whether this replica leads.
    pub leads: watch::Receiver<bool>,
    /// Whether there is a certificate to serve with.
    pub tls: watch::Receiver<Option<Arc<rustls::ServerConfig>>>,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, admin: Admin) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection on the admin port");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = admin.answer(request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection to the admin port ended");
            }
        });
    }
}

impl Admin {
    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let (status, body) = match path {
            "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match self.not_ready() {
                None => (StatusCode::OK, "ok\n".to_owned()),
                Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            "/metrics" => match self.metrics() {
                Ok(text) => (StatusCode::OK, text),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => (
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz and /readyz\n".to_owned(),
            ),
        };
        let mut answer = Response::new(Full::from(body));
        *answer.status_mut() = status;
        answer
    }

    fn not_ready(&self) -> Option<&'static str> {
        if self.published.borrow().is_none() {
            Some("the API server has not answered the first lists")
        } else if self.tls.borrow().is_none() {
            Some("there is no certificate: no replica has made an authority")
        } else {
            None
        }
    }

    fn metrics(&self) -> Result<String, std::fmt::Error> {
        let mut metrics = Metrics::with_prefix("wsha_controller");
        let views = self.registry.views();
        let connected = views.values().filter(|view| view.connected).count();
        let mut gauge = |name, help, value: i64| {
            metrics.register(name, help, ConstGauge::new(value));
        };
        gauge(
            "leader",
            "1 on the replica that writes",
            i64::from(*self.leads.borrow()),
        );
        gauge(
            "connected_nodes",
            "Gateway nodes with a stream to this replica",
            crate::status::count(connected),
        );
        let published = self.published.borrow();
        let told = published
            .as_ref()
            .map_or(0, |published| published.told.nodes.len());
        gauge(
            "told_nodes",
            "Nodes that have a part in any pool",
            crate::status::count(told),
        );
        gauge(
            "sequence",
            "The highest sequence that was read",
            published
                .as_ref()
                .map_or(0, |published| published.told.sequence),
        );
        drop(published);
        let mut text = String::new();
        encode(&mut text, &metrics)?;
        Ok(text)
    }
}
