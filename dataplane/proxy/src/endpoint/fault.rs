//! Why there is no connection to an endpoint.

use std::io;

use crate::{observe::EndpointProblem, tls};

/// It was not tried since it was listed.
pub(super) const UNTRIED: u8 = 0;
pub(super) const SOUND: u8 = 1;
pub(super) const REFUSED: u8 = 2;
pub(super) const TIMED_OUT: u8 = 3;
pub(super) const UNREACHABLE: u8 = 4;
pub(super) const WRONG_HOSTNAME: u8 = 5;
pub(super) const EXPIRED: u8 = 6;
pub(super) const UNTRUSTED: u8 = 7;
pub(super) const TLS_REFUSED: u8 = 8;
pub(super) const TLS_FAILED: u8 = 9;

/// Why there is no connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Fault {
    Refused = REFUSED,
    TimedOut = TIMED_OUT,
    Unreachable = UNREACHABLE,
    WrongHostname = WRONG_HOSTNAME,
    Expired = EXPIRED,
    Untrusted = UNTRUSTED,
    TlsRefused = TLS_REFUSED,
    TlsFailed = TLS_FAILED,
}

pub(super) fn problem_of(fault: u8) -> Option<EndpointProblem> {
    match fault {
        REFUSED => Some(EndpointProblem::Refused),
        TIMED_OUT => Some(EndpointProblem::ConnectTimeout),
        UNREACHABLE => Some(EndpointProblem::Unreachable),
        WRONG_HOSTNAME => Some(EndpointProblem::WrongHostname),
        EXPIRED => Some(EndpointProblem::ExpiredCertificate),
        UNTRUSTED => Some(EndpointProblem::UntrustedCertificate),
        TLS_REFUSED => Some(EndpointProblem::TlsRefused),
        TLS_FAILED => Some(EndpointProblem::TlsFailed),
        _ => None,
    }
}

pub(super) fn fault_of_tls(error: &io::Error) -> Fault {
    match tls::error(error).map(tls::Fault::from) {
        Some(tls::Fault::Hostname) => Fault::WrongHostname,
        Some(tls::Fault::Validity) => Fault::Expired,
        Some(tls::Fault::Untrusted) => Fault::Untrusted,
        Some(tls::Fault::Refused) => Fault::TlsRefused,
        // Who ends the connection does not speak TLS, or will not.
        Some(tls::Fault::Failed) | None => Fault::TlsFailed,
    }
}

/// Whose fault an error is: the endpoint's, or (`None`) this host's.
pub(super) fn classify(error: &io::Error) -> Option<Fault> {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => Some(Fault::Refused),
        Some(libc::ETIMEDOUT) => Some(Fault::TimedOut),
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EADDRINUSE
            | libc::EAGAIN,
        ) => None,
        _ => Some(Fault::Unreachable),
    }
}
