//! What waits on either side, as the status tells it.

use super::*;

use tokio::select;

use crate::daemon::relay::traffic::Waiting;

/// Records of 10,000 bytes: more than a narrow stream takes, and less than another one.
const PLENTY: usize = 8;

/// Relays until the test has ended, and no longer.
async fn run_while(mut relay: Relay, test: impl Future<Output = ()>) {
    let (_trigger, shutdown) = shutdown();
    let ending = Ending::by(&shutdown);
    relay.queue(FirstRecord::Opened).unwrap();
    select! {
        ended = relay.run(Role::Decrypt, &ending) => panic!("{ended:?}"),
        () = test => {}
    }
}

/// Waits until this much is told to wait.
async fn wait_for(traffic: &Traffic, mut what: impl FnMut(Waiting) -> bool) {
    let told = async {
        while !what(traffic.waiting()) {
            sleep(CHECK / 10).await;
        }
    };
    let told = timeout(PATIENCE, told).await;
    assert!(told.is_ok(), "{:?}", traffic.waiting());
}

/// Reads what goes through the tunnel, so that nothing waits there.
fn read_away(other: &UnixStream) {
    let mut other = other.try_clone().unwrap();
    thread::spawn(move || io::copy(&mut other, &mut io::sink()));
}

/// Such as a client of `MONITOR` that hangs in its output, and pings all the same.
#[tokio::test]
async fn a_client_that_does_not_read_is_found_though_it_goes_on_sending() {
    let ((local, mut client), (tunnel, mut other)) = (narrow_pair(), pair());
    let traffic = Arc::<Traffic>::default();
    let (relay, mut session) = relay_counted_in(Arc::clone(&traffic), local, tunnel);
    read_away(&other);
    for _ in 0..PLENTY {
        other.write_all(&sealed(&mut session.sealer, 10_000)).unwrap();
    }
    let test = async {
        let mut sent = 0;
        wait_for(&traffic, |waiting| {
            client.write_all(b"x").unwrap();
            sent += 1;
            waiting.since >= CHECK * 3
        })
        .await;
        assert!(traffic.sent() > 20, "{sent}");
        let waiting = traffic.waiting();
        assert!(waiting.for_local > 0, "{waiting:?}");
        // It reads again.
        client.set_nonblocking(true).unwrap();
        wait_for(&traffic, |waiting| {
            let _nothing = client.read(&mut [0; 10_000]);
            waiting == Waiting::default()
        })
        .await;
        assert_eq!(traffic.received(), 80_000);
    };
    run_while(relay, test).await;
}

#[tokio::test]
async fn a_tunnel_that_takes_nothing_is_found_though_bytes_come_from_it() {
    let ((local, mut server), (tunnel, mut other)) = (pair(), narrow_pair());
    let traffic = Arc::<Traffic>::default();
    let (relay, mut session) = relay_counted_in(Arc::clone(&traffic), local, tunnel);
    let mut reader = server.try_clone().unwrap();
    thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
    thread::spawn(move || server.write_all(&[7; 10_000].repeat(PLENTY)));
    let test = async {
        wait_for(&traffic, |waiting| {
            other.write_all(&data(&mut session, b'x')).unwrap();
            waiting.since >= CHECK * 3
        })
        .await;
        assert!(traffic.received() > 20);
        assert!(traffic.waiting().for_tunnel > 0);
    };
    run_while(relay, test).await;
}

/// Both streams have ended, and the other end has not said that it has everything.
#[tokio::test]
async fn nothing_is_told_to_wait_for_a_local_peer_that_needs_nothing() {
    let ((local, client), (tunnel, mut other)) = (narrow_pair(), pair());
    let traffic = Arc::<Traffic>::default();
    let (relay, mut session) = relay_counted_in(Arc::clone(&traffic), local, tunnel);
    read_away(&other);
    for _ in 0..PLENTY {
        other.write_all(&sealed(&mut session.sealer, 10_000)).unwrap();
    }
    other.write_all(&session.sealer.seal_end().unwrap()).unwrap();
    client.shutdown(Half::Write).unwrap();
    let test = async {
        wait_for(&traffic, |waiting| waiting.for_local > 0).await;
        let all = thread::spawn(move || read_all(client));
        wait_for(&traffic, |waiting| waiting == Waiting::default()).await;
        assert_eq!(all.join().unwrap().len(), 80_000);
    };
    run_while(relay, test).await;
}
