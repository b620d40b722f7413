//! Lines of JSON that arrive whole where others write, too.
//!
//! On a host, the proxy, VRRP and the agent share one journal, or one file. What is written at once stays together
//! there, but a buffer that is written when it is full ends amid a line, and another's line comes between.

use std::io::{self, Write};

use serde::Serialize;

/// What a pipe takes as one, whoever else writes to it (`PIPE_BUF`, pipe(7)); files and journals take more.
const AT_ONCE: usize = 4096;

/// Gathers lines and writes as many at once as stay together.
#[derive(Debug)]
pub(super) struct Lines<W> {
    to: W,
    /// Whole lines.
    gathered: Vec<u8>,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(to: W) -> Self {
        Self {
            to,
            gathered: Vec::with_capacity(2 * AT_ONCE),
        }
    }

    /// Adds a line; those before it are written when there is no room for it beside them.
    ///
    /// # Errors
    ///
    /// As the writer's. A value that cannot be serialized leaves nothing behind.
    pub(super) fn push(&mut self, line: &impl Serialize) -> io::Result<()> {
        let before = self.gathered.len();
        if let Err(error) = serde_json::to_writer(&mut self.gathered, line) {
            self.gathered.truncate(before);
            return Err(error.into());
        }
        self.gathered.push(b'\n');
        if before > 0 && self.gathered.len() > AT_ONCE {
            self.to.write_all(&self.gathered[..before])?;
            self.gathered.drain(..before);
        }
        Ok(())
    }

    /// Writes what has gathered.
    ///
    /// # Errors
    ///
    /// As the writer's.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.gathered)?;
        self.gathered.clear();
        // A line of many kilobytes is rare, and its room is not kept for the next.
        self.gathered.shrink_to(2 * AT_ONCE);
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, each time.
    #[derive(Debug, Default)]
    struct Writes(Vec<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_write_ends_amid_a_line() {
        let mut lines = Lines::new(Writes::default());
        // From 1 to a good 5,000 bytes, so that every border is met.
        let texts: Vec<_> = (0..2000).map(|i| "x".repeat(i * i % 5003)).collect();
        for text in &texts {
            lines.push(text).unwrap();
        }
        lines.flush().unwrap();
        let writes = &lines.to.0;
        for write in writes {
            let of_lines = write.split_inclusive(|byte| *byte == b'\n').count();
            assert_eq!(write.last(), Some(&b'\n'));
            assert!(write.len() <= AT_ONCE || of_lines == 1, "{}", write.len());
        }
        assert!(writes.len() < texts.len(), "short lines go together");
        let whole = writes.concat();
        let read: Vec<String> = whole
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(read, texts);
    }
}
