//! Listening sockets for several threads.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use crate::sys::listen;

/// Sockets that listen on one address, among which the kernel spreads new connections
/// (`SO_REUSEPORT`). Port 0 gives all of them the same free port.
pub fn listen_group(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut group: Vec<TcpListener> = Vec::with_capacity(count);
    for _ in 0..count {
        let address = match group.first() {
            None => address,
            Some(first) => first.local_addr()?,
        };
        let socket = listen::socket(address)?;
        group.push(listen::listen(socket, address)?.into());
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_shares_a_port() {
        let group = listen_group("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let ports: Vec<_> = group.iter().map(|s| s.local_addr().unwrap()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0].port() != 0 && ports.iter().all(|port| *port == ports[0]));
    }
}
