//! Asks over the network what a check asks.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use node_api::tracking::EXPECTED_STATUSES;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::response::{self, Found};

/// Opens a connection.
///
/// # Errors
/// Why it cannot be opened, in words.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    // Files do not say which addresses the host has, and the planner may not know them all.
    if is_own(address.ip()) {
        return Err(format!(
            "{} is an address of this very host, which says nothing of the network",
            address.ip()
        ));
    }
    let connected = TcpStream::connect(address).await;
    connected.map_err(|error| format!("cannot connect to {address}: {error}"))
}

/// Whether the kernel would send what is for `address` to itself. Asked by a socket that sends nothing.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        // Any port does: no packet leaves.
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    source().is_ok_and(|source| source == address)
}

/// Asks by GET for `path`, and compares the status of the answer.
///
/// # Errors
/// What is wrong, in words.
pub(super) async fn get(
    address: SocketAddr,
    path: &str,
    host: Option<&str>,
    expected: &[u16],
) -> Result<(), String> {
    let mut stream = connect(address).await?;
    let failed = |error: io::Error| format!("{address} does not answer: {error}");
    let request = request(address, path, host);
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut head = Vec::with_capacity(1024);
    let status = loop {
        match response::status(&head) {
            Found::Status(status) => break status,
            Found::Malformed => return Err(format!("{address} does not answer in HTTP/1")),
            Found::Incomplete if head.len() >= response::LONGEST => {
                return Err(format!("{address} answers nothing final within 8 KiB"));
            }
            Found::Incomplete => {}
        }
        let left = response::LONGEST - head.len();
        let mut part = (&mut stream).take(left as u64);
        if part.read_buf(&mut head).await.map_err(failed)? == 0 {
            return Err(format!("{address} closed the connection without an answer"));
        }
    };
    let passes = if expected.is_empty() {
        EXPECTED_STATUSES.contains(&status)
    } else {
        expected.contains(&status)
    };
    if passes {
        Ok(())
    } else {
        Err(format!("{address} answers {status}"))
    }
}

fn request(address: SocketAddr, path: &str, host: Option<&str>) -> String {
    let host = match (host, address.ip()) {
        (Some(host), _) => host.to_owned(),
        (None, IpAddr::V4(address)) => address.to_string(),
        (None, IpAddr::V6(address)) => format!("[{address}]"),
    };
    // RFC 9110 section 4.2.1: the port of http is 80 where none is named.
    let port = match address.port() {
        80 => String::new(),
        port => format!(":{port}"),
    };
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}{port}\r\nUser-Agent: wsha-check/{version}\r\nAccept: \
         */*\r\nConnection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host() {
        let request = |address: &str, host| request(address.parse().unwrap(), "/a?b", host);
        let head = |text: String| text.lines().take(2).collect::<Vec<_>>().join("|");
        let named = request("192.0.2.1:8080", Some("chat.example"));
        assert_eq!(head(named), "GET /a?b HTTP/1.1|Host: chat.example:8080");
        let plain = request("192.0.2.1:80", None);
        assert!(plain.ends_with("Connection: close\r\n\r\n"), "{plain}");
        assert_eq!(head(plain), "GET /a?b HTTP/1.1|Host: 192.0.2.1");
        let v6 = request("[2001:db8::1]:81", None);
        assert_eq!(head(v6), "GET /a?b HTTP/1.1|Host: [2001:db8::1]:81");
    }

    #[test]
    fn addresses_of_this_host_are_known() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        // 192.0.2.0/24 is for documentation (RFC 5737).
        assert!(!is_own(Ipv4Addr::new(192, 0, 2, 1).into()));
    }
}
