//! Requests that ask for no session, where a listener brings them to endpoints as well (`plainRequests`).
//!
//! `connection` takes one after the other from a client, `asked` is a request that may go on, `attempt`
//! finds an endpoint for it, `exchange` moves it and its `answer`, whose `content` is framed anew for
//! each side, with its `trailer`; `head` is what becomes of heads.
//!
//! A connection to an endpoint carries one request: an endpoint that closed one which was kept would look
//! like one that fails.

mod answer;
mod asked;
mod attempt;
mod connection;
mod content;
mod exchange;
mod head;
mod trailer;

use self::asked::Asked;
pub(crate) use self::connection::serve;
