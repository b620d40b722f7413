//! The run directory: where the sockets are.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    agent::claim::{ClaimError, step},
    sys::users::{self, Identity},
};

/// Where run directories are made by default.
const RUN_ROOT: &str = "/run/wsha";

/// `/run/wsha/` and a hash of the state directory's canonical path, so that several agents can
/// share a `/run`.
pub(super) fn default_path(state_dir: &Path) -> PathBuf {
    // FNV-1a: short, and the same in every release.
    let hash = state_dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    Path::new(RUN_ROOT).join(format!("{hash:016x}"))
}

/// Makes what is missing of `path`, open to pass through, since the proxy has a socket in it. What
/// is there already is somebody's, stays as it is, and must serve as it is.
pub(super) fn make(path: &Path, proxy_user: Identity) -> Result<(), ClaimError> {
    let missing: Vec<_> = path
        .ancestors()
        .take_while(|one| !one.as_os_str().is_empty() && !one.exists())
        .collect();
    for level in missing.into_iter().rev() {
        let is_root = level == Path::new(RUN_ROOT);
        let mode = if is_root { 0o755 } else { 0o711 };
        match fs::DirBuilder::new().mode(mode).create(level) {
            // Another agent was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            result => result.map_err(step("make run directory", level))?,
        }
        // The umask takes bits away.
        fs::set_permissions(level, fs::Permissions::from_mode(mode))
            .map_err(step("set the mode of", level))?;
    }
    check(path, proxy_user)
}

fn check(path: &Path, proxy_user: Identity) -> Result<(), ClaimError> {
    let real = path
        .canonicalize()
        .map_err(step("find run directory", path))?;
    let metadata = fs::metadata(&real).map_err(step("look at", &real))?;
    if !metadata.is_dir() {
        return Err(step("use run directory", path)(
            io::ErrorKind::NotADirectory.into(),
        ));
    }
    let ours = users::effective_uid();
    if metadata.uid() != ours || metadata.mode() & 0o022 != 0 {
        return Err(ClaimError::RunDirOfOthers {
            run_dir: path.to_owned(),
            uid: ours,
        });
    }
    for level in real.ancestors() {
        let metadata = fs::metadata(level).map_err(step("look at", level))?;
        if !may_pass(&metadata, proxy_user) {
            return Err(ClaimError::RunDirClosed {
                run_dir: path.to_owned(),
                level: level.to_owned(),
                uid: proxy_user.uid,
            });
        }
    }
    Ok(())
}

fn may_pass(directory: &fs::Metadata, user: Identity) -> bool {
    let bit = match (directory.uid(), directory.gid()) {
        _ if user.uid == 0 => return true,
        (uid, _) if uid == user.uid => 0o100,
        (_, gid) if gid == user.gid => 0o010,
        _ => 0o001,
    };
    directory.mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::temporary::Directory;

    const STRANGER: Identity = Identity {
        uid: 65534,
        gid: 65534,
    };

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn each_state_directory_has_a_run_directory_of_its_own() {
        // 64 bits of FNV-1a, computed by hand: the name must not change between releases.
        assert_eq!(
            default_path(Path::new("a")),
            Path::new("/run/wsha/af63dc4c8601ec8c")
        );
        assert_ne!(
            default_path(Path::new("/var/lib/wsha")),
            default_path(Path::new("/var/lib/wsha2"))
        );
    }

    #[test]
    fn every_level_that_is_made_can_be_passed_through() {
        let directory = Directory::new();
        set_mode(directory.path(), 0o755);
        let path = directory.path().join("a/b/c");
        make(&path, STRANGER).unwrap();
        for level in path.ancestors().take(3) {
            assert_eq!(mode(level), 0o711, "{}", level.display());
        }
        make(&path, STRANGER).unwrap();
    }

    #[test]
    fn what_was_there_before_stays_as_it_is() {
        let directory = Directory::new();
        let path = directory.path().join("run");
        set_mode(directory.path(), 0o755);
        fs::create_dir(&path).unwrap();
        set_mode(&path, 0o750);
        let error = make(&path, STRANGER).unwrap_err();
        assert!(matches!(error, ClaimError::RunDirClosed { .. }), "{error}");
        assert_eq!(mode(&path), 0o750);
        // As /tmp: others could put sockets of their own there.
        set_mode(&path, 0o1777);
        let error = make(&path, STRANGER).unwrap_err();
        assert!(
            matches!(error, ClaimError::RunDirOfOthers { .. }),
            "{error}"
        );
        assert_eq!(mode(&path), 0o1777);
        set_mode(&path, 0o755);
        make(&path, STRANGER).unwrap();
        assert_eq!(mode(&path), 0o755);

        set_mode(directory.path(), 0o700);
        let error = make(&path, STRANGER).unwrap_err();
        assert!(error.to_string().contains("chmod o+x"), "{error}");
    }
}
