//! TLS to clients and to endpoints.

mod clients;
mod endpoints;
mod ends;
mod idle;
mod names;
mod openssl;
mod replaced;
mod resumed;
mod storm;
pub(crate) mod support;
