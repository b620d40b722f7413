//! The admin port: `/metrics`, `/healthz`, `/readyz`.

use std::{convert::Infallible, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use crate::{
    agent::{event::Event, report::Snapshot},
    metrics,
};

/// A loop that does not turn for so long is not alive.
const PATIENCE: Duration = Duration::from_secs(2);
/// A request header that takes longer is not worth waiting for.
const HEADER: Duration = Duration::from_secs(10);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

type Answer = Response<Full<Bytes>>;

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, events: mpsc::Sender<Event>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection on the admin port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let events = events.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let events = events.clone();
                async move { Ok::<_, Infallible>(answer(&request, &events).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the admin port ended");
            }
        });
    }
}

async fn answer(request: &Request<Incoming>, events: &mpsc::Sender<Event>) -> Answer {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
        return answer;
    }
    match request.uri().path() {
        "/healthz" => match ask(events, Event::Ping).await {
            Some(()) => text(StatusCode::OK, "ok\n"),
            None => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the agent's loop does not turn\n",
            ),
        },
        "/readyz" => match ask(events, Event::Snapshot).await {
            Some(Snapshot {
                not_ready, report, ..
            }) if not_ready.is_empty() => {
                let warning = |text: &String| format!("warning: {text}\n");
                let warnings: String = report.warnings.iter().map(warning).collect();
                let stale = report.stale_reason.map(|why| format!("stale: {why}\n"));
                let stale = stale.unwrap_or_default();
                text(StatusCode::OK, format!("ok\n{stale}{warnings}"))
            }
            Some(Snapshot { not_ready, .. }) => {
                text(StatusCode::SERVICE_UNAVAILABLE, not_ready.join("\n") + "\n")
            }
            None => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the agent's loop does not turn\n",
            ),
        },
        "/metrics" => match ask(events, Event::Snapshot).await {
            Some(snapshot) => metrics_answer(snapshot),
            None => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the agent's loop does not turn\n",
            ),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n",
        ),
    }
}

async fn ask<T>(
    events: &mpsc::Sender<Event>,
    question: impl FnOnce(oneshot::Sender<T>) -> Event,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        events.send(question(reply)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
}

fn metrics_answer(snapshot: Snapshot) -> Answer {
    match metrics::encode(snapshot.samples) {
        Ok(encoded) => {
            let mut answer = Response::new(Full::from(encoded));
            let form = HeaderValue::from_static(metrics::CONTENT_TYPE);
            answer.headers_mut().insert(CONTENT_TYPE, form);
            answer
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, TEXT);
    answer
}
