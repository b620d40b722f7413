//! The proxy from outside: the seams as tables and properties, the rest with real sockets on
//! loopback, one module per topic.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod support;

mod adopt;
mod closing;
mod config;
mod counts;
mod drain;
mod echo;
mod handshake;
mod health;
mod heartbeat;
mod http;
mod http2;
mod leave;
mod limits;
mod plain;
mod pressure;
mod properties;
mod proxies;
mod rebalance;
mod record;
mod routes;
mod tls;
mod upstream;
