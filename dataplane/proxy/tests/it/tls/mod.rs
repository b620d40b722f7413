//! TLS to clients and to endpoints.

mod clients;
mod endpoints;
mod ends;
mod idle;
mod names;
mod openssl;
mod replaced;
mod resumed;
pub(crate) mod support;
