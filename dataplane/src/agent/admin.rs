//! The admin port: `/metrics`, `/healthz`, `/readyz`.

use std::{convert::Infallible, sync::Arc, time::Duration};

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
    sync::{Semaphore, mpsc, oneshot},
};

use crate::{
    agent::{event::Event, report::Snapshot},
    metrics,
};

/// A loop that does not turn for so long is not alive.
const PATIENCE: Duration = Duration::from_secs(2);
/// A request header that takes longer is not worth waiting for.
const HEADER: Duration = Duration::from_secs(10);
/// More connections wait: anybody on the host may connect, and the agent needs descriptors of its
/// own.
const MOST_CONNECTIONS: usize = 512;
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

type Answer = Response<Full<Bytes>>;

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, events: mpsc::Sender<Event>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
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
            drop(place);
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
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/readyz" => match ask(events, Event::Snapshot).await {
            Ok(snapshot) => ready_answer(&snapshot),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/metrics" => match ask(events, Event::Snapshot).await {
            Ok(snapshot) => metrics_answer(snapshot),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n",
        ),
    }
}

/// The answer of the loop, or why there is none.
async fn ask<T>(
    events: &mpsc::Sender<Event>,
    question: impl FnOnce(oneshot::Sender<T>) -> Event,
) -> Result<T, &'static str> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        drop(events.send(question(reply)).await);
        answer.await
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_gone)) => Err("too many ask at once, or the agent ends\n"),
        Err(_elapsed) => Err("the agent's loop does not turn\n"),
    }
}

fn ready_answer(snapshot: &Snapshot) -> Answer {
    if !snapshot.not_ready.is_empty() {
        let why = snapshot.not_ready.join("\n") + "\n";
        return text(StatusCode::SERVICE_UNAVAILABLE, why);
    }
    let warning = |text: &String| format!("warning: {text}\n");
    let warnings: String = snapshot.report.warnings.iter().map(warning).collect();
    // Only with a controller: files that were refused are a reason not to be ready.
    let stale = snapshot.report.stale_reason.as_ref();
    let stale = stale.map_or_else(String::new, |why| format!("stale: {why}\n"));
    text(StatusCode::OK, format!("ok\n{stale}{warnings}"))
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
