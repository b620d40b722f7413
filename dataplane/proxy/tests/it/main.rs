//! The proxy from outside: real sockets on loopback, one module per topic.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod support;

mod echo;
