//! The directory of programs that checks may run: what only root can have put there.
//!
//! Looked at before each run. Nobody but root can change what was found until it runs, since nobody else
//! may write to the file, to the directory, or to a directory above it.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Root.
const OWNER: u32 = 0;
/// Writable by the group or by others.
const WRITABLE: u32 = 0o022;
/// In such a directory only who owns an entry may replace it.
const STICKY: u32 = 0o1000;
/// Executable by anybody.
const EXECUTABLE: u32 = 0o111;

/// Why a program is not run.
#[derive(Debug, thiserror::Error)]
pub(in crate::agent) enum CheckDirError {
    /// It cannot be looked at.
    #[error("cannot look at {path}: {source}")]
    Look {
        /// What.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// No directory.
    #[error("--check-dir {0} is no directory; name one that holds the programs of checks")]
    NoDirectory(PathBuf),
    /// It, or one above it, is not root's alone.
    #[error("{0} must be root's, and writable by nobody else: chown root and chmod go-w")]
    OfOthers(PathBuf),
    /// A link, a device, a directory.
    #[error("{0} is no regular file; put the program itself there, not a symbolic link to it")]
    NoFile(PathBuf),
    /// It cannot be run.
    #[error("{0} is not executable; chmod a+rx")]
    NotExecutable(PathBuf),
}

/// The directory given as `--check-dir`, found in order.
#[derive(Clone, Debug)]
pub(in crate::agent) struct CheckDir(PathBuf);

impl CheckDir {
    /// Looks at `path`.
    pub(in crate::agent) fn open(path: &Path) -> Result<Self, CheckDirError> {
        let real = path.canonicalize().map_err(look(path))?;
        let directory = Self(real);
        if !directory.0.is_dir() {
            return Err(CheckDirError::NoDirectory(path.to_owned()));
        }
        directory.check()?;
        Ok(directory)
    }

    /// The program of that name, if it may be run. The name is that of a file, not a path: the planner
    /// saw to that.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf, CheckDirError> {
        self.check()?;
        let path = self.0.join(name);
        // Not what a symbolic link leads to.
        let metadata = fs::symlink_metadata(&path).map_err(look(&path))?;
        if !metadata.is_file() || path.parent() != Some(&self.0) {
            Err(CheckDirError::NoFile(path))
        } else if !is_roots(&metadata) {
            Err(CheckDirError::OfOthers(path))
        } else if metadata.permissions().mode() & EXECUTABLE == 0 {
            Err(CheckDirError::NotExecutable(path))
        } else {
            Ok(path)
        }
    }

    fn check(&self) -> Result<(), CheckDirError> {
        for (level, path) in self.0.ancestors().enumerate() {
            let metadata = fs::symlink_metadata(path).map_err(look(path))?;
            let is_sticky = level > 0 && metadata.mode() & STICKY != 0;
            let is_safe = is_roots(&metadata) || (metadata.uid() == OWNER && is_sticky);
            if !metadata.is_dir() || !is_safe {
                return Err(CheckDirError::OfOthers(path.to_owned()));
            }
        }
        Ok(())
    }
}

fn is_roots(metadata: &Metadata) -> bool {
    metadata.uid() == OWNER && metadata.mode() & WRITABLE == 0
}

fn look(path: &Path) -> impl FnOnce(io::Error) -> CheckDirError {
    let path = path.to_owned();
    move |source| CheckDirError::Look { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{
        temporary::Directory,
        users::{self, Identity},
    };

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn give(path: &Path, uid: u32) {
        users::give(path, Identity { uid, gid: 0 }).unwrap();
    }

    #[test]
    fn only_what_is_roots_alone_is_run() {
        if users::effective_uid() != 0 {
            println!("SKIPPED: needs root to own files");
            return;
        }
        let temporary = Directory::new();
        let path = temporary.path().join("checks");
        fs::create_dir(&path).unwrap();
        set_mode(&path, 0o755);
        let file = path.join("router");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        set_mode(&file, 0o755);
        let directory = CheckDir::open(&path).unwrap();
        let refused = |name: &str| directory.program(name).unwrap_err().to_string();
        assert_eq!(directory.program("router").unwrap(), file);
        assert!(refused("other").starts_with("cannot look at"));

        std::os::unix::fs::symlink("/bin/true", path.join("link")).unwrap();
        assert!(refused("link").contains("is no regular file"));
        assert!(refused("..").contains("is no regular file"));
        assert!(refused("../checks/router").contains("is no regular file"));
        set_mode(&file, 0o644);
        assert!(refused("router").contains("is not executable"));
        set_mode(&file, 0o775);
        assert!(refused("router").contains("writable by nobody else"));
        set_mode(&file, 0o755);
        give(&file, 65534);
        assert!(refused("router").contains("must be root's"));
        give(&file, 0);

        for (place, name) in [(&path, "checks"), (&temporary.path().to_owned(), "above")] {
            set_mode(place, 0o777);
            assert!(refused("router").contains("must be root's"), "{name}");
            assert!(CheckDir::open(&path).is_err(), "{name}");
            set_mode(place, 0o755);
            give(place, 65534);
            assert!(refused("router").contains("must be root's"), "{name}");
            give(place, 0);
            directory.program("router").unwrap();
        }
        let file = CheckDir::open(&file).unwrap_err();
        assert!(file.to_string().contains("is no directory"), "{file}");
    }
}
