//! What sessions are read by, if not by epoll.

use crate::{cli::Io, sys::seccomp::Calls};

/// The rings of all workers; none, and they read by epoll.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) rings: Vec<proxy::Ring>,
    /// Why there are none, where they were asked for.
    pub(super) refused: Option<String>,
}

impl Rings {
    /// Makes what is asked for, before the process is confined. Where that is refused, sessions are served
    /// all the same.
    pub(super) fn open(io: Io, workers: usize) -> Self {
        let opened = match io {
            Io::Epoll => Ok(Vec::new()),
            Io::IoUring => proxy::Ring::open_all(workers),
        };
        let (rings, refused) = match opened {
            Ok(rings) => (rings, None),
            Err(error) => (Vec::new(), Some(remedy(&error))),
        };
        if let Some(refused) = &refused {
            tracing::warn!("{refused}");
        }
        Self { rings, refused }
    }

    /// The system calls that they take.
    pub(super) fn calls(&self) -> Calls {
        if self.rings.is_empty() {
            Calls::Common
        } else {
            Calls::Rings
        }
    }
}

/// What to do about it.
fn remedy(error: &std::io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "allow it in the container's seccomp profile and in sysctl kernel.io_uring_disabled"
        }
        Some(libc::ENOSYS | libc::EINVAL) => "it takes Linux 6.1 or later with CONFIG_IO_URING",
        _ => "see what the kernel lacks",
    };
    format!(
        "sessions are read by epoll, as io_uring is refused ({error}): {why}, or leave --io out"
    )
}
