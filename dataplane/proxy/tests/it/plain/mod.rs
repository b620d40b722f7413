//! Requests that ask for no session, where they are brought to endpoints.

mod connection;
mod content;
mod curl;
mod ends;
mod http2;
mod retry;
mod strict;
mod support;
mod time;
