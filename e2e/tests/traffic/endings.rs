//! How clients are told that their session ends.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use e2e::lab::{BACKEND_PORT, PORT, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Event, Gateway, Manifest, Session, Watch, in_cluster};
use nix::sys::signal::Signal;

#[test]
fn an_orderly_stop_tells_every_client() -> Result<()> {
    in_cluster(
        "an_orderly_stop_tells_every_client",
        &Manifest::article(),
        |cluster| {
            let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
            let since = Instant::now();
            let mut told = Session::open_many(cluster.lab.client(), VIP_SERVER1, PORT, 300)?;
            let mut kept = Session::open_many(cluster.lab.client(), VIP_SERVER2, PORT, 20)?;
            cluster.stop(Gateway::One)?;
            for (number, session) in told.iter_mut().enumerate() {
                match session.next_event()? {
                    Event::Close(Some(1001), _) => {}
                    other => bail!("session {number} of {} was told {other:?}", told.len()),
                }
            }
            cluster.wait_holders(VIP_SERVER1, &["server2"])?;
            watch.settles(cluster, VIP_SERVER1, Gateway::Two)?;
            watch.serves(VIP_SERVER1, Instant::now())?;
            for session in &mut kept {
                session.say("still here")?;
                session.undisturbed()?;
            }
            watch.undisturbed(VIP_SERVER2, since)?;
            watch.never_split()
        },
    )
}

/// A backend that refuses costs the client nothing; one that dies tells its sessions by a Close.
#[test]
fn a_lost_backend_is_passed_over_and_its_sessions_told() -> Result<()> {
    in_cluster(
        "a_lost_backend_is_passed_over_and_its_sessions_told",
        &Manifest::article(),
        |cluster| {
            let mut sessions = Session::open_many(cluster.lab.client(), VIP_SERVER1, PORT, 9)?;
            let served = sessions
                .iter_mut()
                .map(|session| session.say("who"))
                .collect::<Result<Vec<_>>>()?;
            let lost = Ipv4Addr::new(192, 168, 1, 16);
            ensure!(
                served.contains(&lost),
                "{lost} serves nobody, at port {BACKEND_PORT}: {served:?}"
            );
            cluster.backends.processes()[0].signal(Signal::SIGKILL)?;
            for (session, server) in sessions.iter_mut().zip(&served) {
                if *server == lost {
                    let event = session.next_event()?;
                    ensure!(
                        matches!(event, Event::Close(Some(1012), _)),
                        "a session of the lost backend got {event:?}"
                    );
                }
            }
            let mut fresh = Session::open_many(cluster.lab.client(), VIP_SERVER1, PORT, 9)?;
            for session in &mut fresh {
                ensure!(session.say("who")? != lost, "a dead backend answered");
            }
            for (session, server) in sessions.iter_mut().zip(&served) {
                if *server != lost {
                    ensure!(session.say("who")? == *server);
                }
            }
            Ok(())
        },
    )
}
