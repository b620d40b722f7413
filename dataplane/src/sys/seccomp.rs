//! The system calls that the proxy may make; all others fail with `EPERM`.
//!
//! Failing, not killing: a call that nobody thought of, in a library or in a path seldom taken,
//! must not end every session of the host. What the list is about is what must never succeed:
//! starting programs, opening files, tracing, sockets other than TCP, anything with the kernel's
//! configuration, executable memory.
//!
//! A ring of `io_uring` does in the kernel's name what a filter would refuse, so none can be made. Where
//! sessions are read by rings these are made before, and may themselves do very little ([`proxy::Ring`]).

use std::{collections::BTreeMap, env::consts::ARCH};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
    SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule, TargetArch,
};

/// Why the filter could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// This machine's architecture has no filter.
    #[error("system call filters are not available on {ARCH}")]
    Architecture(#[source] seccompiler::BackendError),
    /// The list cannot be expressed.
    #[error("cannot compile the system call filter")]
    Compile(#[source] seccompiler::BackendError),
    /// The kernel refused it.
    #[error("cannot put the system call filter in force: the kernel needs CONFIG_SECCOMP_FILTER")]
    Apply(#[source] seccompiler::Error),
}

/// Calls that are allowed or not, by what the process is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Calls {
    /// Those of every proxy.
    Common,
    /// And to use the rings that it has.
    Rings,
}

/// Puts the filter in force for all threads of the process, those to come included, for good.
/// Sets `no_new_privs`, without which the kernel takes no filter from an unprivileged process.
pub fn confine(calls: Calls) -> Result<(), SeccompError> {
    for program in programs(calls)? {
        seccompiler::apply_filter_all_threads(&program).map_err(SeccompError::Apply)?;
    }
    Ok(())
}

/// The filters, in the order in which they are to be applied. The kernel takes the strictest
/// answer of all.
fn programs(calls: Calls) -> Result<[BpfProgram; 2], SeccompError> {
    let architecture = TargetArch::try_from(ARCH).map_err(SeccompError::Architecture)?;
    let compile = |rules, otherwise, on_match| {
        SeccompFilter::new(rules, otherwise, on_match, architecture)
            .and_then(TryInto::try_into)
            .map_err(SeccompError::Compile)
    };
    // `clone3` passes its flags in memory, where a filter cannot look. The C library falls back to
    // `clone` if it is told that there is no such call.
    let no_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([
        compile(
            no_clone3,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        )?,
        compile(
            allowed(calls).map_err(SeccompError::Compile)?,
            SeccompAction::Errno(libc::EPERM.unsigned_abs()),
            SeccompAction::Allow,
        )?,
    ])
}

/// Calls that are allowed whatever their arguments.
const PLAIN: &[libc::c_long] = &[
    // Streams.
    libc::SYS_connect,
    // To connect from a certain port; nobody can listen there.
    libc::SYS_bind,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_read,
    libc::SYS_readv,
    // What was opened before, such as the account of memory.
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_fstat,
    // Event loops.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads, time, signals.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Answered by the other filter.
    libc::SYS_clone3,
];

/// Calls that newer architectures no longer have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[libc::SYS_poll, libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// From `linux/sockios.h`, which the crate `libc` lacks.
const SIOCOUTQNSD: libc::c_ulong = 0x894b;

const AF_UNIX: u64 = libc::AF_UNIX.unsigned_abs() as u64;

/// `IORING_REGISTER_ENABLE_RINGS`: a ring that was made before, and bound to what it may do, begins.
const REGISTER_ENABLE_RINGS: u64 = 12;

type Rules = BTreeMap<i64, Vec<Rule>>;

fn allowed(calls: Calls) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = PLAIN
        .iter()
        .chain(OLDER)
        .map(|call| (*call, Vec::new()))
        .collect();
    // TCP only. The kernel keeps flags (non-blocking, close-on-exec) in the bits above the type.
    let stream = || masked(1, 0xf, libc::SOCK_STREAM);
    rules.insert(
        libc::SYS_socket,
        vec![
            Rule::new(vec![equal(0, libc::AF_INET)?, stream()?])?,
            Rule::new(vec![equal(0, libc::AF_INET6)?, stream()?])?,
        ],
    );
    // Two ends of one's own, which the event loop makes for itself.
    rules.insert(libc::SYS_socketpair, one_of(0, &[AF_UNIX])?);
    // Threads yes, processes no.
    rules.insert(
        libc::SYS_clone,
        vec![Rule::new(vec![masked(
            0,
            libc::CLONE_THREAD,
            libc::CLONE_THREAD,
        )?])?],
    );
    // Memory is never executable.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![Rule::new(vec![masked(2, libc::PROT_EXEC, 0)?])?]);
    }
    // An abort signals the own process; no other may be signalled.
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    rules.insert(libc::SYS_tgkill, vec![Rule::new(vec![equal(0, own)?])?]);
    rules.insert(
        libc::SYS_ioctl,
        one_of(
            1,
            &[libc::FIONBIO, libc::TIOCOUTQ, libc::FIONREAD, SIOCOUTQNSD],
        )?,
    );
    rules.insert(
        libc::SYS_fcntl,
        one_of(
            1,
            &[
                libc::F_GETFL,
                libc::F_SETFL,
                libc::F_GETFD,
                libc::F_SETFD,
                libc::F_DUPFD_CLOEXEC,
            ]
            .map(i32::unsigned_abs)
            .map(u64::from),
        )?,
    );
    // Names of threads, and of anonymous memory (the C library's allocator).
    rules.insert(
        libc::SYS_prctl,
        one_of(
            0,
            &[libc::PR_SET_NAME, libc::PR_SET_VMA]
                .map(i32::unsigned_abs)
                .map(u64::from),
        )?,
    );
    // The size of a shared page, asked by descriptor.
    rules.insert(
        libc::SYS_statx,
        vec![Rule::new(vec![masked(
            2,
            libc::AT_EMPTY_PATH,
            libc::AT_EMPTY_PATH,
        )?])?],
    );
    if calls == Calls::Rings {
        rules.insert(libc::SYS_io_uring_enter, Vec::new());
        rules.insert(
            libc::SYS_io_uring_register,
            one_of(1, &[REGISTER_ENABLE_RINGS])?,
        );
    }
    Ok(rules)
}

/// Arguments are compared by their lower half: that is what the kernel looks at in these calls.
fn equal(argument: u8, value: i32) -> Result<Condition, seccompiler::BackendError> {
    let value = u64::from(value.unsigned_abs());
    Condition::new(argument, Length::Dword, Compare::Eq, value)
}

fn masked(argument: u8, mask: i32, value: i32) -> Result<Condition, seccompiler::BackendError> {
    let compare = Compare::MaskedEq(u64::from(mask.unsigned_abs()));
    let value = u64::from(value.unsigned_abs());
    Condition::new(argument, Length::Dword, compare, value)
}

fn one_of(argument: u8, values: &[u64]) -> Result<Vec<Rule>, seccompiler::BackendError> {
    let rule = |value: &u64| {
        let condition = Condition::new(argument, Length::Dword, Compare::Eq, *value)?;
        Rule::new(vec![condition])
    };
    values.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{self, Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsRawFd,
        process::Command,
        sync::Arc,
        thread,
    };

    use rustls::{
        ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig,
        ServerConnection, SideData, crypto::aws_lc_rs, pki_types::PrivateKeyDer,
    };

    use super::*;

    /// Runs `test` on a thread with the filter, which does not reach the other tests.
    fn confined<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
        confined_to(Calls::Common, test)
    }

    fn confined_to<T: Send + 'static>(
        calls: Calls,
        test: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let run = move || {
            for program in programs(calls).unwrap() {
                seccompiler::apply_filter(&program).unwrap();
            }
            test()
        };
        thread::spawn(run).join().unwrap()
    }

    fn assert_refused(what: &str, error: &io::Error) {
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{what}: {error}");
    }

    /// Makes a call that must not come about.
    fn attempt(what: &str, call: libc::c_long, arguments: [i32; 3]) {
        let [a, b, c] = arguments.map(libc::c_long::from);
        // SAFETY: numbers only, of which no memory is reached should the call come about.
        let result = unsafe { libc::syscall(call, a, b, c, 0, 0, 0) };
        assert_eq!(result, -1, "{what} came about");
        assert_refused(what, &io::Error::last_os_error());
    }

    #[test]
    fn what_a_proxy_has_no_business_with_is_refused() {
        confined(|| {
            assert_refused("spawn", &Command::new("/bin/true").spawn().unwrap_err());
            assert_refused("open", &File::open("/etc/passwd").unwrap_err());
            let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap_err();
            assert_refused("listen", &elsewhere);
            for (what, call) in [
                ("execve", libc::SYS_execve),
                ("execveat", libc::SYS_execveat),
                ("process", libc::SYS_clone),
                ("ptrace", libc::SYS_ptrace),
                ("process_vm_readv", libc::SYS_process_vm_readv),
                ("kill", libc::SYS_kill),
                ("tgkill of another", libc::SYS_tgkill),
                ("mount", libc::SYS_mount),
                ("unshare", libc::SYS_unshare),
                ("setns", libc::SYS_setns),
                ("bpf", libc::SYS_bpf),
                ("io_uring_setup", libc::SYS_io_uring_setup),
                ("io_uring_enter", libc::SYS_io_uring_enter),
                ("io_uring_register", libc::SYS_io_uring_register),
                ("keyctl", libc::SYS_keyctl),
                ("setuid", libc::SYS_setuid),
                ("seccomp", libc::SYS_seccomp),
                ("memfd_create", libc::SYS_memfd_create),
            ] {
                attempt(what, call, [0; 3]);
            }
            let raw = libc::SOCK_RAW;
            for (what, family, kind) in [
                ("Unix socket", libc::AF_UNIX, libc::SOCK_STREAM),
                ("netlink socket", libc::AF_NETLINK, raw),
                ("packet socket", libc::AF_PACKET, raw),
                ("raw socket", libc::AF_INET, raw),
                ("UDP socket", libc::AF_INET, libc::SOCK_DGRAM),
            ] {
                attempt(what, libc::SYS_socket, [family, kind, 0]);
            }
            let executable = libc::PROT_READ | libc::PROT_EXEC;
            attempt("executable memory", libc::SYS_mmap, [0, 4096, executable]);
            attempt("making it so", libc::SYS_mprotect, [0, 4096, executable]);
            attempt("dumpable", libc::SYS_prctl, [libc::PR_SET_DUMPABLE, 1, 0]);
        });
    }

    #[test]
    fn with_rings_none_can_be_made_nor_given_other_rights() {
        confined_to(Calls::Rings, || {
            attempt("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]);
            // IORING_REGISTER_BUFFERS, IORING_REGISTER_FILES, IORING_REGISTER_RESTRICTIONS
            for what in [0, 2, 11] {
                attempt("registration", libc::SYS_io_uring_register, [-1, what, 0]);
            }
            let enter = libc::SYS_io_uring_enter;
            // SAFETY: numbers only, and no descriptor of a ring.
            let result = unsafe { libc::syscall(enter, -1, 0, 0, 0, 0, 0) };
            let error = io::Error::last_os_error();
            assert_eq!((result, error.raw_os_error()), (-1, Some(libc::EBADF)));
        });
    }

    #[test]
    fn connections_threads_and_memory_work() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        confined(move || {
            let echo = move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = vec![0; 1 << 20];
                stream.read_exact(&mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
            };
            let named = thread::Builder::new().name("echo".to_owned());
            let server = named.spawn(echo).unwrap();
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let sender = thread::spawn(move || writer.write_all(&vec![7; 1 << 20]).unwrap());
            let mut received = vec![0; 1 << 20];
            stream.read_exact(&mut received).unwrap();
            assert!(received.iter().all(|byte| *byte == 7));
            sender.join().unwrap();
            server.join().unwrap();
        });
    }

    #[test]
    fn what_waits_in_a_socket_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        confined(move || {
            for request in [libc::TIOCOUTQ, SIOCOUTQNSD, libc::FIONREAD] {
                let mut bytes: libc::c_int = -1;
                // SAFETY: the descriptor is open, and each request writes one int, which lives over the call.
                let result = unsafe { libc::ioctl(stream.as_raw_fd(), request, &raw mut bytes) };
                assert_eq!((result, bytes), (0, 0), "{request:#x}");
            }
        });
    }

    /// Keys are read, and random numbers drawn, without a file or a call that is not there.
    #[test]
    fn tls_comes_about() {
        let name = "chat.example";
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let identity = proxy::tls::Identity {
            name: name.to_owned(),
            chain: made.cert.pem().into_bytes(),
            key: made.signing_key.serialize_pem().into_bytes(),
        };
        confined(move || {
            let keys = proxy::tls::TicketKeys(vec![[7; 32]]);
            let oldest = proxy::tls::MinimumVersion::Tls12;
            proxy::tls::ServerTls::new(&[identity], oldest, &keys).unwrap();

            let provider = || Arc::new(aws_lc_rs::default_provider());
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
            let mut server = ServerConnection::new(Arc::new(config)).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(made.cert.der().clone()).unwrap();
            let config = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = name.try_into().unwrap();
            let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
            while client.is_handshaking() || server.is_handshaking() {
                pass_on(&mut client, &mut server);
                pass_on(&mut server, &mut client);
            }
        });
    }

    fn pass_on<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>)
    where
        A: SideData,
        B: SideData,
    {
        let mut sent = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut sent).unwrap();
        }
        let mut sent = sent.as_slice();
        while !sent.is_empty() {
            to.read_tls(&mut sent).unwrap();
            to.process_new_packets().unwrap();
        }
    }
}
