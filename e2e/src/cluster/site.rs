//! Where a control plane runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use crate::lab::{Host, Process, Room};
use crate::testing::inside;

/// Port of an API server that has its network for itself.
const PORT: u16 = 6443;

/// Where a control plane runs.
#[derive(Debug)]
pub enum Site {
    /// On the machine's loopback interface; several at once have ports of their own. Needs no root.
    Loopback(Room),
    /// On a host of a lab, where the other hosts reach it.
    Host(Host),
}

/// A port that is ours until this is dropped, whether the server that shares it runs or not.
#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) port: u16,
    _socket: Option<Socket>,
}

impl Site {
    /// Loopback, with a directory that goes when it is dropped.
    pub fn loopback() -> Result<Self> {
        Room::new().map(Self::Loopback)
    }

    /// A directory that goes with it.
    pub fn dir(&self) -> &Path {
        match self {
            Self::Loopback(room) => room.dir(),
            Self::Host(host) => host.dir(),
        }
    }

    /// The address under which the API server is reached.
    pub fn address(&self) -> Ipv4Addr {
        match self {
            Self::Loopback(_) => Ipv4Addr::LOCALHOST,
            Self::Host(host) => host.address(),
        }
    }

    /// Addresses to listen on.
    pub(super) fn bind_address(&self) -> Ipv4Addr {
        match self {
            Self::Loopback(_) => Ipv4Addr::LOCALHOST,
            Self::Host(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Starts a program there. Output goes to `NAME.log` in the directory.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        match self {
            Self::Loopback(room) => room.spawn(name, command),
            Self::Host(host) => host.spawn(name, command),
        }
    }

    /// Runs a program there to its end.
    pub fn output(&self, command: Command) -> Result<Output> {
        match self {
            Self::Loopback(room) => room.output(command),
            Self::Host(host) => host.output(command),
        }
    }

    /// A port for the API server.
    pub(super) fn reserve(&self) -> Result<Reserved> {
        if let Self::Host(_) = self {
            return Ok(Reserved {
                port: PORT,
                _socket: None,
            });
        }
        let bound = || -> io::Result<(Socket, u16)> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            // The server sets it too. Ours never listens, so all connections are the server's.
            socket.set_reuse_port(true)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            let port = socket
                .local_addr()?
                .as_socket()
                .map(|address| address.port());
            Ok((socket, port.unwrap_or_default()))
        };
        let (socket, port) = bound().context("cannot reserve a port")?;
        Ok(Reserved {
            port,
            _socket: Some(socket),
        })
    }

    /// Whether something listens on `port` there.
    pub(super) fn listens(&self, port: u16) -> Result<bool> {
        let address = SocketAddr::from((IpAddr::V4(self.address()), port));
        let connects = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
        match self {
            Self::Loopback(_) => Ok(connects()),
            Self::Host(host) => inside(host, || Ok(connects())),
        }
    }
}
