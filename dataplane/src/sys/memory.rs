//! Memory that processes share by passing a descriptor.

use std::{
    ffi::CStr,
    fs::File,
    io,
    mem::ManuallyDrop,
    ops::Deref,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr::NonNull,
};

/// Types that may live in shared memory.
///
/// # Safety
/// All-zero bytes must be a valid value, the layout must be `repr(C)` and free of pointers, and
/// every field must be safe to access while other processes write to it (atomics, process-shared
/// mutexes).
pub unsafe trait Shareable: Sync {}

/// Its size is fixed for good: nobody who has it can end the others by shrinking it (`SIGBUS`). It
/// comes from the agent, so receivers need not look.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// A `T` in anonymous memory that other processes can map too.
#[derive(Debug)]
pub struct Shared<T: Shareable> {
    fd: OwnedFd,
    memory: NonNull<T>,
}

// SAFETY: the mapping stays valid for the life of the value on whatever thread it is, and
// `Shareable` demands that concurrent access to `T` is sound.
unsafe impl<T: Shareable> Send for Shared<T> {}
// SAFETY: as above; only `&T` is handed out.
unsafe impl<T: Shareable> Sync for Shared<T> {}

impl<T: Shareable> Shared<T> {
    /// New zeroed memory, named `name` in `/proc/PID/maps`.
    pub fn create(name: &CStr) -> io::Result<Self> {
        // SAFETY: `name` is a valid C string; the result is checked.
        let raw = unsafe {
            libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
        };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just opened and belongs to nobody else.
        let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(raw) };
        let file = File::from(fd);
        file.set_len(size_of::<T>() as u64)?;
        // SAFETY: plain numbers; the result is checked.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Self::map(file.into())
    }

    /// Maps memory that another process created.
    ///
    /// # Errors
    /// `InvalidData` if it is too small for a `T`; else what `mmap` says.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        if file.metadata()?.len() < size_of::<T>() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "shared page is smaller than this version expects",
            ));
        }
        Self::map(file.into())
    }

    fn map(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: a fresh mapping chosen by the kernel, of at least `size_of::<T>()` bytes.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { fd, memory })
    }

    /// Keeps the mapping for the rest of the process, and gives the descriptor back.
    pub fn leak(self) -> &'static T {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so the descriptor is closed here and only here.
        drop(unsafe { std::ptr::read(&raw const this.fd) });
        // SAFETY: as in `deref`; nobody unmaps it any more.
        unsafe { this.memory.as_ref() }
    }

    /// Maps memory whose descriptor this process was started with, by its number.
    ///
    /// # Errors
    /// If there is no such descriptor, or as [`Self::from_fd`].
    pub fn inherited(number: RawFd) -> io::Result<Self> {
        // SAFETY: plain system call with numbers.
        let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else knows it.
        Self::from_fd(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(copy) })
    }

    /// A descriptor that the processes started from now on inherit, for as long as it is kept.
    pub fn to_inherit(&self) -> io::Result<OwnedFd> {
        Ok(nix::unistd::dup(&self.fd)?)
    }

    /// The descriptor to pass on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<T: Shareable> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped for the life of `self`, page-aligned, and any bytes are a valid `T` by
        // the contract of `Shareable`.
        unsafe { self.memory.as_ref() }
    }
}

impl<T: Shareable> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length and nothing borrows it any more.
        unsafe {
            libc::munmap(self.memory.as_ptr().cast(), size_of::<T>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pages::PairPage;

    #[test]
    fn a_page_keeps_its_size() {
        let page = PairPage::create().unwrap();
        let file = File::from(page.fd().try_clone_to_owned().unwrap());
        assert!(file.set_len(0).is_err());
        assert!(Shared::<PairPage>::from_fd(file.into()).is_ok());
    }
}
