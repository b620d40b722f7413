//! What a configuration can have wrong.

use std::net::SocketAddr;

/// Why a configuration was refused; nothing of it was applied.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Two listeners want one address.
    #[error(
        "pools {first} and {second} both listen on {address}: give one of them another address or port"
    )]
    AddressTaken {
        /// The address.
        address: SocketAddr,
        /// Pool that has it.
        first: String,
        /// Pool that wants it too.
        second: String,
    },
    /// One server is listed twice.
    #[error(
        "pool {pool}, upstream {upstream}: endpoint {address} is listed twice: remove one entry"
    )]
    DuplicateEndpoint {
        /// The pool.
        pool: String,
        /// Its upstream.
        upstream: String,
        /// The server.
        address: SocketAddr,
    },
    /// A weight that gives no share.
    #[error("pool {pool}, upstream {upstream}: endpoint {address} has weight 0: use 1 or more")]
    ZeroWeight {
        /// The pool.
        pool: String,
        /// Its upstream.
        upstream: String,
        /// The server.
        address: SocketAddr,
    },
    /// A close code that may not be sent.
    #[error(
        "pool {pool}: drain.closeCode {code} may not be sent: use 1000-1003, 1007-1014 or 3000-4999 (RFC 6455 section 7.4)"
    )]
    CloseCode {
        /// The pool.
        pool: String,
        /// The code.
        code: u16,
    },
    /// A bounded load that leaves clients without a place.
    #[error(
        "pool {pool}, upstream {upstream}: maxLoadPercent {percent} has no room for all: use 101 or more"
    )]
    LoadPercent {
        /// The pool.
        pool: String,
        /// Its upstream.
        upstream: String,
        /// The bound.
        percent: u16,
    },
    /// Sessions that would come back to where they were.
    #[error(
        "pool {pool}, upstream {upstream}: rebalance has no meaning with a consistent hash, by which each client comes back to its endpoint: remove it or choose endpoints in another way"
    )]
    RebalancedHash {
        /// The pool.
        pool: String,
        /// Its upstream.
        upstream: String,
    },
    /// A listener that would accept nobody.
    #[error(
        "pool {pool}, listener {listener}: proxyProtocol is required and trustedProxies is empty, so nobody could connect: name the proxies that send the header"
    )]
    NoTrustedProxies {
        /// The pool.
        pool: String,
        /// Its listener.
        listener: String,
    },
    /// Two upstreams with one name.
    #[error("pool {pool}: two upstreams are called {upstream}: rename one of them")]
    DuplicateUpstream {
        /// The pool.
        pool: String,
        /// The name.
        upstream: String,
    },
    /// Routes that lead nowhere, or of which none is there.
    #[error("pool {pool}, listener {listener}: {problem}")]
    Routes {
        /// The pool.
        pool: String,
        /// Its listener.
        listener: String,
        /// What is wrong, with the remedy.
        problem: String,
    },
    /// Requests that cannot come to anything.
    #[error(
        "pool {pool}, listener {listener}: plainRequests.timeout is zero: give a duration, such as 60s"
    )]
    ZeroPlainTimeout {
        /// The pool.
        pool: String,
        /// Its listener.
        listener: String,
    },
    /// A rate at which nothing ends.
    #[error(
        "pool {pool}: drain.sessionsPerSecond is zero: give a number, or leave it out to use all of drain.timeout"
    )]
    ZeroDrainRate {
        /// The pool.
        pool: String,
    },
    /// A limit under which nothing is possible.
    #[error("pool {pool}: limits.{field} is zero: give a number, or leave it out for no limit")]
    ZeroLimit {
        /// The pool.
        pool: String,
        /// Name of the field.
        field: &'static str,
    },
    /// A time-out in which nothing can happen.
    #[error("pool {pool}, upstream {upstream}: {field} is zero: give a duration, such as 2s")]
    ZeroTimeout {
        /// The pool.
        pool: String,
        /// Its upstream.
        upstream: String,
        /// Name of the field.
        field: &'static str,
    },
}
