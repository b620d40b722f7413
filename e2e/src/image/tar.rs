//! A writer of tar archives (POSIX ustar), as far as images need one: the same input gives the same bytes.

use anyhow::{Result, ensure};

const BLOCK: usize = 512;

/// An archive that grows.
#[derive(Debug, Default)]
pub(super) struct Tar(Vec<u8>);

impl Tar {
    /// Adds a file of root's. Directories on the way to it need no entry.
    pub(super) fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        ensure!(
            name.len() <= 100 && name.is_ascii() && !name.starts_with('/'),
            "{name:?} cannot be the name of a file in an image"
        );
        let size = format!("{:011o}", content.len());
        ensure!(size.len() == 11, "{name} is too large for an image");
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000"); // user
        put(116, b"0000000"); // group
        put(124, size.as_bytes());
        put(136, b"00000000000"); // modified at the epoch
        put(148, b"        "); // counts as blanks in the checksum
        put(156, b"0"); // a file
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}
