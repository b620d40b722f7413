//! The vrrp process against the kernel: namespaces, real sockets, real addresses. Agent and proxy
//! are played by the test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, outside test functions"
)]

mod addresses;
mod carrier;
mod conflicts;
mod cost;
mod filter;
mod ipv6;
mod isolation;
mod lab;
mod node;
mod orphans;
mod partition;
mod proxy_life;
mod routers;
mod sockets;
mod tracking;
mod unicast;
mod vmac;
mod wire;

/// The virtual address of most tests; its VRID is 110.
const ADDRESS: &str = "192.168.1.110";
/// The same of IPv6; its VRID is 16.
const ADDRESS_V6: &str = "fd00:1::110";
