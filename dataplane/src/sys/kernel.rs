//! What the kernel can do.

use std::io;

/// The first release, major and minor, that keeps a protocol number with an address.
pub const IFA_PROTO: (u32, u32) = (5, 18);

/// Its release, as `uname -r` says it.
pub fn release() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(text.trim().to_owned())
}

/// Whether addresses keep a protocol number (`IFA_PROTO`).
pub fn marks_addresses() -> io::Result<bool> {
    Ok(version(&release()?).is_none_or(|version| version >= IFA_PROTO))
}

/// Major and minor number; `None`: the release begins in no known way.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(version("6.1-rc3"), Some((6, 1)));
        assert_eq!(version("custom"), None);
        assert!(version("5.9.1").unwrap() < IFA_PROTO);
        assert!(version("5.18.0").unwrap() >= IFA_PROTO);
        assert!(version("6.1.0").unwrap() >= IFA_PROTO);
        assert!(marks_addresses().unwrap(), "other tests need it");
    }
}
