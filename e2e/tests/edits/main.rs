//! Edits of the manifest under live sessions, and what a host does with files and arguments that it cannot use.

mod arguments;
mod live;
mod refused;

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use e2e::testing::{Cluster, Event, Session};

/// Live sessions with the backend that each talks to.
struct Live(Vec<(Session, Ipv4Addr)>);

impl Live {
    fn open(cluster: &Cluster, address: Ipv4Addr, port: u16, count: usize) -> Result<Self> {
        let sessions = Session::open_many(cluster.lab.client(), address, port, count)?;
        let greeted = sessions.into_iter().map(|mut session| {
            let server = session.say("hello")?;
            Ok((session, server))
        });
        Ok(Self(greeted.collect::<Result<_>>()?))
    }

    /// Fails unless each session still talks to its backend and got nothing else.
    fn undisturbed(&mut self) -> Result<()> {
        for (session, server) in &mut self.0 {
            let answered = session.say("still here?")?;
            ensure!(
                answered == *server,
                "a session moved from {server} to {answered}"
            );
            session.undisturbed()?;
        }
        Ok(())
    }

    /// Takes out those of one backend.
    fn split(&mut self, server: Ipv4Addr) -> Self {
        Self(self.0.extract_if(.., |(_, of)| *of == server).collect())
    }

    /// Fails unless each session ends by a Close with this code.
    fn end_with(&mut self, code: u16) -> Result<()> {
        for (number, (session, _)) in self.0.iter_mut().enumerate() {
            let event = session.next_event()?;
            ensure!(
                matches!(event, Event::Close(Some(told), _) if told == code),
                "session {number} got {event:?}, not Close {code}"
            );
        }
        Ok(())
    }
}
