//! Whether an interface has its link, asked of the driver itself.
//!
//! rtnetlink tells of it, too, but the kernel gathers such news for up to a second after the one
//! before, and shows the old state until then in everything that it keeps beside the driver's.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `ETHTOOL_GLINK` of `linux/ethtool.h`.
const GET_LINK: u32 = 0x0a;

/// `struct ethtool_value` of `linux/ethtool.h`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Asks drivers for the state of links.
#[derive(Debug)]
pub struct LinkQuery(OwnedFd);

impl LinkQuery {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: plain numbers; the result is checked.
        let raw = unsafe { libc::socket(libc::AF_INET, kind, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, known to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// Whether the interface with this index is switched on and has a carrier. Waits for the
    /// kernel's RTNL lock, which others may hold for long.
    ///
    /// # Errors
    /// `ENODEV` where there is no such interface, `EOPNOTSUPP` where its driver does not tell.
    pub fn has_link(&self, index: u32) -> io::Result<bool> {
        // SAFETY: an all-zero `ifreq` is a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_ifindex =
            libc::c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        // Each time anew: an interface may be renamed.
        // SAFETY: `request` is valid for the call, which fills in the name.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFNAME, &raw mut request) })?;
        let mut value = EthtoolValue {
            command: GET_LINK,
            data: 0,
        };
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: `request` and `value`, to which it points, are valid for the call; this command
        // reads and writes an `ethtool_value`.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) })?;
        Ok(value.data != 0)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let query = LinkQuery::open().unwrap();
        let error = query.has_link(0x7fff_ffff).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn loopback_of_this_host_has_its_link() {
        let query = LinkQuery::open().unwrap();
        // Interface 1 of every namespace; where it is switched off, it says so.
        assert!(query.has_link(1).is_ok());
    }
}
