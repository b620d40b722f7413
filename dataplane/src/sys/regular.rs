//! Files that somebody else put there.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Opens a regular file to read. `None`: it is something else, as a named pipe, for whose writer we
/// would wait.
pub fn open(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    // Of the open file: another may have taken its place.
    Ok(file.metadata()?.is_file().then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::temporary::Directory;

    #[test]
    fn a_pipe_is_not_waited_for() {
        let directory = Directory::new();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open(&path).unwrap().is_none());
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert!(open(&directory.path().join("file")).unwrap().is_some());
    }
}
