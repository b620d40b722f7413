//! Key material in files: a directory for each Secret, as if it was mounted there.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use node_api::{Secret, TicketKeys};

use crate::sys::regular;

/// A Secret is no larger (its documentation in Kubernetes).
const LARGEST: u64 = 1 << 20;
/// Readable, writable or executable by users who are neither the owner nor in the group.
const OTHERS: u32 = 0o007;
/// Keys of session tickets, in the directory itself.
const TICKETS: &str = "ticket.keys";

/// Why a file cannot be used, with the remedy.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// The kernel refused.
    #[error("cannot read {path} ({source}); it must be root's or the agent's own")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A named pipe or a device.
    #[error("{0} is no regular file; put a file there, or a symbolic link to one")]
    NoFile(PathBuf),
    /// It is larger than a Secret can be.
    #[error("{0} is larger than 1 MiB, which neither certificates nor keys are; correct it")]
    TooLarge(PathBuf),
    /// It holds something else.
    #[error("{0} is no text; write it in PEM")]
    NoText(PathBuf),
    /// Somebody else may know the key.
    #[error("{0} can be read by every user of this host; chmod o-rwx, and better make another key")]
    OpenToAll(PathBuf),
}

/// The directory given as `--tls-dir`.
#[derive(Clone, Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    /// Where the files of the Secret `name` are (`namespace/name`, both names of objects: the planner saw
    /// to that).
    pub(super) fn of(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is there of the Secret `name`; nothing, where nothing is.
    pub(super) fn secret(&self, name: &str) -> Result<Secret, FileError> {
        let directory = self.of(name);
        Ok(Secret {
            certificate: read(&directory.join("tls.crt"), false)?,
            key: read(&directory.join("tls.key"), true)?,
            ca: read(&directory.join("ca.crt"), false)?,
        })
    }

    /// The keys of session tickets: one a line, the one that seals first. Where the whole directory is
    /// gone, nobody has said that there are none.
    pub(super) fn tickets(&self) -> Result<Option<TicketKeys>, FileError> {
        fs::metadata(&self.0).map_err(|source| FileError::Read {
            path: self.0.clone(),
            source,
        })?;
        let text = read(&self.0.join(TICKETS), true)?;
        let keys = |text: String| {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            TicketKeys(lines.map(str::to_owned).collect())
        };
        Ok(text.map(keys))
    }
}

/// The text of a file; `None`: it is not there, or empty.
fn read(path: &Path, is_secret: bool) -> Result<Option<String>, FileError> {
    let owned = || path.to_owned();
    let failed = |source| FileError::Read {
        path: owned(),
        source,
    };
    let file = match regular::open(path) {
        Ok(Some(file)) => file,
        Ok(None) => return Err(FileError::NoFile(owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if is_secret && mode & OTHERS != 0 {
        return Err(FileError::OpenToAll(owned()));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(FileError::TooLarge(owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::NoText(owned()))?;
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::temporary::Directory as Temporary;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_secret_is_a_directory_and_what_is_empty_is_not_there() {
        let temporary = Temporary::new();
        let directory = Directory(temporary.path().to_owned());
        assert_eq!(directory.secret("default/chat").unwrap(), Secret::default());
        let place = directory.of("default/chat");
        fs::create_dir_all(&place).unwrap();
        write(&place.join("tls.crt"), "certificate", 0o644);
        write(&place.join("tls.key"), "key", 0o640);
        write(&place.join("ca.crt"), "\n", 0o644);
        let expected = Secret {
            certificate: Some("certificate".to_owned()),
            key: Some("key".to_owned()),
            ca: None,
        };
        assert_eq!(directory.secret("default/chat").unwrap(), expected);
    }

    #[test]
    fn what_every_user_can_read_is_no_secret() {
        let temporary = Temporary::new();
        let directory = Directory(temporary.path().to_owned());
        let place = directory.of("default/chat");
        fs::create_dir_all(&place).unwrap();
        write(&place.join("tls.key"), "key", 0o644);
        let error = directory.secret("default/chat").unwrap_err();
        assert!(error.to_string().contains("chmod o-rwx"), "{error}");
        write(&temporary.path().join(TICKETS), "one\n\n two \n", 0o604);
        let error = directory.tickets().unwrap_err();
        assert!(matches!(error, FileError::OpenToAll(_)), "{error}");
        write(&temporary.path().join(TICKETS), "one\n\n two \n", 0o600);
        let keys = directory.tickets().unwrap().unwrap();
        assert_eq!(keys.0, ["one", "two"]);
    }

    #[test]
    fn what_is_no_text_file_is_named() {
        let temporary = Temporary::new();
        let directory = Directory(temporary.path().to_owned());
        let place = directory.of("default/chat");
        fs::create_dir_all(place.join("ca.crt")).unwrap();
        let error = directory.secret("default/chat").unwrap_err();
        assert!(error.to_string().contains("ca.crt"), "{error}");
        fs::write(place.join("tls.crt"), [0xff]).unwrap();
        let error = directory.secret("default/chat").unwrap_err();
        assert!(matches!(error, FileError::NoText(_)), "{error}");
        let file = fs::File::create(place.join("tls.crt")).unwrap();
        file.set_len(LARGEST + 1).unwrap();
        let error = directory.secret("default/chat").unwrap_err();
        assert!(matches!(error, FileError::TooLarge(_)), "{error}");
    }
}
