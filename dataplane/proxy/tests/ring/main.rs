//! What `it` asks of sessions, once more with `io_uring`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

#[allow(dead_code, reason = "what only others of `it` need")]
#[path = "../it/support.rs"]
mod support;

#[path = "../it/adopt.rs"]
mod adopt;
#[path = "../it/closing.rs"]
mod closing;
#[path = "../it/drain.rs"]
mod drain;
#[path = "../it/echo.rs"]
mod echo;
#[path = "../it/heartbeat.rs"]
mod heartbeat;
#[path = "../it/http.rs"]
mod http;
#[path = "../it/http2/mod.rs"]
mod http2;
#[path = "../it/leave.rs"]
mod leave;
#[path = "../it/limits/mod.rs"]
mod limits;
#[path = "../it/pressure.rs"]
mod pressure;
#[path = "../it/record.rs"]
mod record;
#[path = "../it/tls/mod.rs"]
mod tls;

#[tokio::test]
async fn every_worker_has_its_ring_where_the_kernel_has_them() {
    let has_rings = !support::rings().is_empty();
    let rig = support::Rig::new(&[support::echo().await]);
    let expected = if has_rings { support::WORKERS } else { 0 };
    assert_eq!(rig.proxy.snapshot().rings, expected);
    support::round_trip(&mut rig.connect().await, "hello").await;
}
