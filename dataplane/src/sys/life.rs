//! A robust mutex as a sign of life.
//!
//! A process takes the mutex once and keeps it until it ends. When it is killed, the kernel marks
//! the mutex and wakes a waiter before it tears the process' memory down: 0.2 ms after the kill
//! even with a gigabyte resident, where end-of-file on a socket takes up to 100 ms.
//!
//! The kernel compares the number in the mutex with that of the ending thread in the thread's own PID
//! namespace, so owner and waiter may be in different ones, as the containers of a pod are.

use std::{
    cell::UnsafeCell,
    io,
    mem::MaybeUninit,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::sys::clock;

/// Lives in shared memory; one owner, waiters in other processes.
#[repr(C)]
#[derive(Debug)]
pub struct LifeMutex {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    holder: AtomicU64,
}

thread_local! {
    /// When this thread held a mutex for the first time, nanoseconds of `CLOCK_MONOTONIC`.
    static HOLDER: u64 = clock::monotonic_ns();
}

// SAFETY: a process-shared pthread mutex is made for concurrent use; it is only ever touched
// through the pthread calls below, and its futex word atomically.
unsafe impl Sync for LifeMutex {}

/// How a wait ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The owner ended without giving the mutex back.
    Died,
    /// Nobody owned it: the owner gave it back, or had never taken it.
    Released,
}

impl LifeMutex {
    /// Makes zeroed memory a mutex. Call once, before the page is passed on.
    pub fn init(&self) -> io::Result<()> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: `attributes` is initialised by the first call and destroyed by the last; the
        // mutex memory is ours alone until the page is passed on.
        unsafe {
            check(libc::pthread_mutexattr_init(attributes.as_mut_ptr()))?;
            let attributes = attributes.as_mut_ptr();
            check(libc::pthread_mutexattr_setpshared(
                attributes,
                libc::PTHREAD_PROCESS_SHARED,
            ))?;
            check(libc::pthread_mutexattr_setrobust(
                attributes,
                libc::PTHREAD_MUTEX_ROBUST,
            ))?;
            let result = check(libc::pthread_mutex_init(self.mutex.get(), attributes));
            libc::pthread_mutexattr_destroy(attributes);
            result
        }
    }

    /// Takes the mutex for the rest of the calling **thread's** life: call it on a thread that
    /// lives as long as the process. Does not wait.
    ///
    /// `'static`, since the kernel finds the mutex through its mapping when the thread ends: leak
    /// the page ([`leak`](super::memory::Shared::leak)) before holding.
    pub fn hold(&'static self) -> io::Result<()> {
        // SAFETY: initialised by `init` before the page was passed on.
        check(unsafe { libc::pthread_mutex_trylock(self.mutex.get()) })?;
        self.holder
            .store(HOLDER.with(|holder| *holder), Ordering::Release);
        Ok(())
    }

    /// A number of the owner, the same on all mutexes that it holds and another for whoever follows
    /// it; `None`: nobody held this one yet.
    pub fn holder(&self) -> Option<u64> {
        Some(self.holder.load(Ordering::Acquire)).filter(|holder| *holder != 0)
    }

    /// Blocks until the owner ends.
    ///
    /// Never takes the mutex: its list pointers lie on the page, the owner may be hostile, and
    /// pthread would follow them into private memory. So only the futex word is looked at, which
    /// at worst tells a lie about its owner.
    ///
    /// # Errors
    /// Where the word keeps changing, as no honest owner makes it, or what the kernel says.
    pub fn wait_for_end(&self) -> io::Result<End> {
        let word = self.word();
        for _ in 0..MOST_LOOKS {
            let seen = word.load(Ordering::Acquire);
            if seen & libc::FUTEX_OWNER_DIED != 0 {
                // The kernel woke one waiter.
                wake_all(word);
                return Ok(End::Died);
            }
            if seen & libc::FUTEX_TID_MASK == 0 {
                return Ok(End::Released);
            }
            // The kernel wakes only where a waiter announced itself.
            let waiting = seen | libc::FUTEX_WAITERS;
            let announced =
                word.compare_exchange(seen, waiting, Ordering::AcqRel, Ordering::Acquire);
            if announced.is_ok() {
                sleep_while(word, waiting)?;
            }
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the owner keeps changing its mutex",
        ))
    }

    /// The futex word, as in the kernel's contract for robust lists: owner's thread id and flags.
    fn word(&self) -> &AtomicU32 {
        // SAFETY: glibc keeps `__lock`, an aligned `int`, at the start of the mutex, and it is only
        // ever accessed atomically.
        unsafe { &*self.mutex.get().cast::<AtomicU32>() }
    }
}

#[cfg(not(target_env = "gnu"))]
compile_error!("the place of the futex word in a mutex is known for glibc only");

/// Looks at the word, each after a wake or a change of it, before the owner counts as hostile.
const MOST_LOOKS: usize = 1000;

/// Sleeps until woken; returns at once if the word differs.
fn sleep_while(word: &AtomicU32, value: u32) -> io::Result<()> {
    // SAFETY: the word is valid for the call, and a null time-out means none.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            std::ptr::null::<libc::timespec>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}

fn wake_all(word: &AtomicU32) {
    // SAFETY: the word is valid for the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// pthread calls return the error instead of setting `errno`.
fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsRawFd, process::Command, ptr, sync::mpsc, thread};

    use super::*;
    use crate::sys::{memory::Shared, pages::PairPage};

    /// The end of the owning thread is what the kernel does for each thread of a killed process.
    #[test]
    fn a_waiter_learns_that_the_owner_ended() {
        let page = PairPage::create().unwrap();
        let theirs = page.fd().try_clone_to_owned().unwrap();
        let (held, wait_held) = mpsc::channel();
        let (end, wait_end) = mpsc::channel::<()>();
        let owner = thread::spawn(move || {
            let page = Shared::<PairPage>::from_fd(theirs).unwrap();
            let page = page.leak();
            page.proxy_life.hold().unwrap();
            held.send(()).unwrap();
            assert!(wait_end.recv().is_err(), "ends when the other side lets go");
        });
        wait_held.recv().unwrap();
        drop(end);
        assert_eq!(page.proxy_life.wait_for_end().unwrap(), End::Died);
        owner.join().unwrap();
        assert_eq!(
            page.proxy_life.wait_for_end().unwrap(),
            End::Died,
            "and stays so"
        );
    }

    /// A page whose mutex a thread held that has ended.
    fn page_of_the_dead() -> &'static PairPage {
        let page = PairPage::create().unwrap().leak();
        thread::spawn(|| page.proxy_life.hold().unwrap())
            .join()
            .unwrap();
        page
    }

    /// The waiter must not follow them: the owner can point them anywhere in the waiter's memory.
    #[test]
    fn list_pointers_on_the_page_are_not_followed() {
        let page = page_of_the_dead();
        let private = Box::leak(Box::new([0x5555_usize; 16]));
        let target = ptr::from_mut(private).addr();
        // All but the futex word: whatever glibc keeps where.
        let mutex = page.proxy_life.mutex.get().cast::<usize>();
        for at in 1..size_of::<libc::pthread_mutex_t>() / size_of::<usize>() {
            // SAFETY: within the mutex, which no thread uses any more.
            unsafe { mutex.add(at).write(target + 64) };
        }
        assert_eq!(page.proxy_life.wait_for_end().unwrap(), End::Died);
        assert!(private.iter().all(|word| *word == 0x5555), "{private:x?}");
    }

    #[test]
    fn the_owner_is_told_from_whoever_follows_it() {
        let page = || PairPage::create().unwrap().leak();
        let (first, again, next) = (page(), page(), page());
        assert_eq!(first.proxy_life.holder(), None);
        let owner = thread::spawn(|| {
            first.proxy_life.hold().unwrap();
            again.proxy_life.hold().unwrap();
        });
        owner.join().unwrap();
        thread::spawn(|| next.proxy_life.hold().unwrap())
            .join()
            .unwrap();
        assert!(first.proxy_life.holder().is_some());
        assert_eq!(first.proxy_life.holder(), again.proxy_life.holder());
        assert_ne!(first.proxy_life.holder(), next.proxy_life.holder());
    }

    /// Set in the process that the test below starts: the number of the page's descriptor.
    const HELD: &str = "WSHA_TEST_HELD_PAGE";

    /// Not a test of its own: the one below runs it as a process that is killed.
    #[test]
    fn holds_a_page_for_good() {
        let Ok(number) = std::env::var(HELD) else {
            return;
        };
        let page = Shared::<PairPage>::inherited(number.parse().unwrap());
        let page = page.unwrap().leak();
        page.proxy_life.hold().unwrap();
        loop {
            thread::park();
        }
    }

    /// The word holds a number that means another process here, or none: vrrp and proxy are in
    /// different containers of a pod.
    #[test]
    fn the_end_of_an_owner_in_another_pid_namespace_is_seen() {
        if crate::sys::users::effective_uid() != 0 {
            println!("SKIPPED: needs root to make a PID namespace");
            return;
        }
        let page = PairPage::create().unwrap();
        let inherited = page.to_inherit().unwrap();
        let page = page.leak();
        let mut owner = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "sys::life::tests::holds_a_page_for_good"])
            .env(HELD, inherited.as_raw_fd().to_string())
            .spawn()
            .unwrap();
        let id = loop {
            assert!(owner.try_wait().unwrap().is_none(), "it lives");
            if page.proxy_life.holder().is_some() {
                break page.proxy_life.word().load(Ordering::Acquire) & libc::FUTEX_TID_MASK;
            }
            thread::yield_now();
        };
        assert!(
            id != 0 && id < owner.id(),
            "{id} counts in a namespace of its own"
        );
        let waiter = thread::spawn(|| page.proxy_life.wait_for_end().unwrap());
        owner.kill().unwrap();
        assert_eq!(waiter.join().unwrap(), End::Died);
        owner.wait().unwrap();
    }

    /// It would keep a thread of real-time priority busy.
    #[test]
    fn an_owner_that_keeps_changing_the_word_is_given_up() {
        let page = PairPage::create().unwrap().leak();
        let word = page.proxy_life.word();
        let (done, is_done) = mpsc::channel::<()>();
        word.store(1, Ordering::Release);
        let hostile = thread::spawn(move || {
            while is_done.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let value = word.load(Ordering::Acquire);
                word.store(value % 1000 + 1, Ordering::Release);
                wake_all(word);
            }
        });
        let end = page.proxy_life.wait_for_end();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(done);
        hostile.join().unwrap();
    }

    #[test]
    fn every_waiter_learns_of_it() {
        let page = PairPage::create().unwrap().leak();
        let (held, wait_held) = mpsc::channel();
        let (end, wait_end) = mpsc::channel::<()>();
        let owner = thread::spawn(move || {
            page.proxy_life.hold().unwrap();
            held.send(()).unwrap();
            assert!(wait_end.recv().is_err());
        });
        wait_held.recv().unwrap();
        let wait = || thread::spawn(|| page.proxy_life.wait_for_end().unwrap());
        let waiters = [wait(), wait(), wait()];
        drop(end);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), End::Died);
        }
        owner.join().unwrap();
    }
}
