//! Tells systemd how we are (`sd_notify`); without systemd, nothing happens.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// The way to the service manager.
#[derive(Debug)]
pub(super) struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// As the environment says (`NOTIFY_SOCKET`).
    pub(super) fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Self(None);
        };
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
            _ => SocketAddr::from_pathname(&name),
        };
        let open = || -> io::Result<_> {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok((socket, address?))
        };
        match open() {
            Ok(way) => Self(Some(way)),
            Err(error) => {
                tracing::warn!(%error, "cannot reach the service manager at NOTIFY_SOCKET");
                Self(None)
            }
        }
    }

    /// Sends assignments such as `READY=1`, one a line.
    pub(super) fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.0 {
            // A manager that does not listen for a moment gets the next one.
            drop(socket.send_to_addr(text.as_bytes(), address));
        }
    }
}

/// How often the service manager wants to hear from us, halved for safety; `None`: it does not ask.
pub(super) fn watchdog_interval() -> Option<Duration> {
    let asked_of: Option<u32> = env::var("WATCHDOG_PID")
        .ok()
        .and_then(|pid| pid.parse().ok());
    if asked_of.is_some_and(|pid| pid != std::process::id()) {
        return None;
    }
    let period: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (period > 0).then(|| Duration::from_micros(period / 2))
}
