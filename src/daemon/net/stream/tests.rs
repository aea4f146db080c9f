//! Tests of streams on TCP and unix sockets.

use super::*;

use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use socket2::Type;

async fn connect(address: &SockAddr) -> io::Result<Stream> {
    let socket = Socket::new(address.domain(), Type::STREAM.nonblocking(), None)?;
    Stream::connect(socket, address, Keepalive::On).await
}

/// A listening socket, a stream that is connected to it, and the stream's other end.
async fn pair() -> (Stream, Stream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = SockAddr::from(listener.local_addr().unwrap());
    let connected = connect(&address).await.unwrap();
    let accepted = Socket::from(listener.accept().unwrap().0);
    accepted.set_nonblocking(true).unwrap();
    (connected, Stream::accepted(accepted, Keepalive::On).unwrap())
}

#[tokio::test]
async fn nagle_is_off_on_accepted_and_on_connected_sockets() {
    let (connected, accepted) = pair().await;
    assert!(connected.fd.get_ref().tcp_nodelay().unwrap());
    assert!(accepted.fd.get_ref().tcp_nodelay().unwrap());
}

#[tokio::test]
async fn what_stays_on_this_host_is_not_paced() {
    let (connected, accepted) = pair().await;
    for stream in [connected, accepted] {
        assert!(stream.fd.get_ref().tcp_congestion().unwrap().starts_with(b"reno\0"));
    }
}

#[tokio::test]
async fn a_reset_is_noticed_without_reading() {
    let (connected, accepted) = pair().await;
    drop(connected);
    assert_eq!(accepted.failed().await.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_panic_is_no_clean_end_for_the_peer() {
    let (connected, accepted) = pair().await;
    let task = tokio::spawn(async move {
        let _held = connected;
        tokio::task::yield_now().await;
        panic!("a bug in one connection");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(accepted.failed().await.kind(), io::ErrorKind::ConnectionReset);
}

/// What came before the end of the stream is read, then the end itself,
/// though the readiness was cleared in between.
#[tokio::test]
async fn the_end_is_read_after_a_short_read() {
    let (connected, accepted) = pair().await;
    connected.write_all(b"last").await.unwrap();
    connected.shutdown_write().unwrap();
    let mut bytes = [0; 100];
    assert_eq!(accepted.readable().await.unwrap().read(&mut bytes).unwrap(), Some(4));
    assert_eq!(accepted.readable().await.unwrap().read(&mut bytes).unwrap(), Some(0));
}

#[tokio::test]
async fn input_is_awaited_and_left_there() {
    let (connected, accepted) = pair().await;
    connected.write_all(b"x").await.unwrap();
    poll_fn(|cx| accepted.poll_has_input(cx)).await;
    assert_eq!(accepted.try_read(&mut [0; 9]).unwrap(), Some(1));
    assert_eq!(accepted.try_read(&mut [0; 9]).unwrap(), None);
}

/// Reads until so many bytes have come and nothing is left. Only then does the next read
/// wait.
async fn read_all(stream: &Stream, count: usize) -> Vec<u8> {
    let mut got = Vec::new();
    let read = async {
        while got.len() < count {
            let mut bytes = [0; 100];
            let count = stream.readable().await.unwrap().read(&mut bytes).unwrap();
            got.extend_from_slice(bytes.get(..count.unwrap_or(0)).unwrap());
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(10), read).await;
    assert!(read.is_ok(), "only {got:?} came");
    let mut cx = Context::from_waker(Waker::noop());
    if let Poll::Ready(ready) = stream.poll_readable(&mut cx) {
        assert_eq!(ready.unwrap().read(&mut [0; 9]).unwrap(), None);
    }
    assert!(stream.poll_readable(&mut cx).is_pending(), "it would be read for ever");
    got
}

#[tokio::test]
async fn what_is_sent_as_urgent_has_its_place_and_holds_up_nothing() {
    let unix = || {
        let [ours, theirs] = unix_pair();
        [ours, theirs].map(|socket| Stream::accepted(socket, Keepalive::Off).unwrap())
    };
    for [from, to] in [pair().await.into(), unix()] {
        let socket = from.fd.get_ref();
        for _ in 0..2 {
            socket.send(b"abc").unwrap();
            socket.send_out_of_band(b"d!").unwrap();
            socket.send(b"ef").unwrap();
            assert_eq!(read_all(&to, 7).await, b"abcd!ef");
        }
        // From now on a short read again tells that nothing is left.
        socket.send(b"abc").unwrap();
        assert_eq!(to.readable().await.unwrap().read(&mut [0; 9]).unwrap(), Some(3));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(to.poll_readable(&mut cx).is_pending());
    }
}

/// Linux ends a read with the message that had the descriptors.
#[tokio::test]
async fn descriptors_that_are_sent_hold_up_nothing() {
    let [from, to] = unix_pair();
    let to = Stream::accepted(to, Keepalive::Off).unwrap();
    let parts = [IoSlice::new(b"abc")];
    let descriptors = [ControlMessage::ScmRights(&[from.as_raw_fd()])];
    sendmsg::<()>(from.as_raw_fd(), &parts, &descriptors, MsgFlags::empty(), None).unwrap();
    from.send(b"def").unwrap();
    assert_eq!(read_all(&to, 6).await, b"abcdef");
}

fn unix_pair() -> [Socket; 2] {
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    [one, other].map(|socket| {
        socket.set_nonblocking(true).unwrap();
        socket.into()
    })
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = SockAddr::from(listener.local_addr().unwrap());
    drop(listener);
    let error = connect(&address).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
