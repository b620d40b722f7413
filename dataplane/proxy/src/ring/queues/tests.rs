use std::{io::Write, net};

use tokio::runtime::{Builder, LocalOptions};

use super::*;

/// Runs a test with a ring that has begun, where the kernel has it.
fn with_ring(test: impl FnOnce(Ring)) {
    let mut ring = match Ring::open() {
        Ok(ring) => ring,
        Err(error) => return println!("SKIPPED: no io_uring ({error})"),
    };
    let options = LocalOptions::default();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(options);
    runtime.unwrap().block_on(async {
        ring.begin().unwrap();
        test(ring);
    });
}

#[test]
fn a_ring_reads_and_waits_and_does_nothing_else() {
    with_ring(|mut ring| {
        let (socket, nowhere) = (Fd(0), std::ptr::null());
        for entry in [
            opcode::Nop::new().build(),
            opcode::OpenAt::new(socket, c"/etc/passwd".as_ptr()).build(),
            opcode::Connect::new(socket, nowhere, 0).build(),
            opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build(),
            opcode::Send::new(socket, nowhere.cast(), 0).build(),
            opcode::Read::new(socket, nowhere.cast_mut().cast(), 0).build(),
        ] {
            ring.push(&entry.user_data(Op::AwaitInput.tag(7))).unwrap();
            ring.under_way += 1;
            ring.uring.submit_and_wait(1).unwrap();
            let refused = ring.next().unwrap().outcome.unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        }
        let more = ring.uring.submitter().register_files_sparse(1);
        assert_eq!(more.unwrap_err().raw_os_error(), Some(libc::EACCES));
    });
}

#[test]
fn a_ring_that_goes_leaves_nothing_that_writes_to_its_buffers() {
    with_ring(|mut ring| {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        ring.receive(1, socket.as_raw_fd()).unwrap();
        ring.poll(2, socket.as_raw_fd(), Op::AwaitInput).unwrap();
        ring.submit().unwrap();
        assert_eq!(ring.under_way, 2);
        assert!(ring.end(), "an operation is left");
        peer.write_all(b"late").unwrap();
        assert!(ring.next().is_none());
    });
}

#[test]
fn a_buffer_is_filled_again_when_it_was_given_back() {
    with_ring(|mut ring| {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        ring.receive(1, socket.as_raw_fd()).unwrap();
        for n in 0..3 * u32::from(BUFFERS) {
            peer.write_all(&n.to_ne_bytes()).unwrap();
            ring.uring.submit_and_wait(1).unwrap();
            let completion = ring.next().unwrap();
            assert!(completion.more);
            let filled = completion.outcome.unwrap().unwrap();
            assert_eq!(ring.bytes(&filled), n.to_ne_bytes());
            ring.give_back(filled);
        }
    });
}
