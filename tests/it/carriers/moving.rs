//! Bulk leaves its carrier for a session of its own, whatever happens to either connection.

use super::*;

/// Far more than stays on a carrier.
const BULK: usize = 8 << 20;

#[test]
fn bulk_has_a_session_of_its_own_and_small_requests_have_not() {
    let line = Line::to(Server::echo().address);
    let mut small = line.connect();
    round_trip(&mut small, b"before");
    send_both_ways(line.connect(), BULK);
    assert_eq!(line.connected(), 2);
    for _ in 0..200 {
        round_trip(&mut small, &noise(1, 4000));
    }
    assert_eq!(line.connected(), 2);
    drop(small);
    for daemon in [&line.sender, &line.receiver] {
        wait_until("both have ended", || daemon.log.count("reason=finished") == 2);
    }
}

/// One way each, and half-closed before.
#[test]
fn bulk_of_one_direction_is_moved_as_well() {
    let sent = noise(3, BULK);
    let answer = sent.clone();
    let server = Server::start(move |mut stream| {
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).unwrap();
        assert_eq!(asked, b"all of it");
        stream.write_all(&answer).unwrap();
    });
    let line = Line::to(server.address);
    let mut client = line.connect();
    client.write_all(b"all of it").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (got, end) = read_to_end(&mut client);
    assert!(got == sent && end == End::Clean);
    assert_eq!(line.connected(), 2);
}

/// The session of its own cannot be had, or is cut while the stream moves or later. Either the
/// stream goes on, or both peers are reset.
#[test]
fn a_stream_is_whole_or_reset_wherever_its_session_is_cut() {
    for way in [Way::ToReceiver, Way::ToSender] {
        for at in 0..6 {
            let line = Line::tampered(Server::echo().address, move |number| {
                Box::new(move |unit: Unit| {
                    if number == 1 && (unit.way, unit.number) == (way, at) {
                        vec![Act::End]
                    } else {
                        vec![Act::Forward(unit.bytes)]
                    }
                })
            });
            let mut other = line.connect();
            round_trip(&mut other, b"before");
            let is_whole = is_whole_or_reset(line.connect());
            // The handshake or JOIN was cut: the stream stays.
            if at == 0 || (way, at) == (Way::ToReceiver, 1) {
                assert!(is_whole, "{way:?}, unit {at}");
            }
            round_trip(&mut other, b"after");
        }
    }
}

/// The carrier is cut while a stream moves, or behind that.
#[test]
fn a_stream_is_whole_or_reset_wherever_its_carrier_is_cut() {
    for way in [Way::ToReceiver, Way::ToSender] {
        for at in (2..80).step_by(6) {
            let line = Line::tampered(Server::echo().address, move |number| {
                Box::new(move |unit: Unit| {
                    if number == 0 && (unit.way, unit.number) == (way, at) {
                        vec![Act::End]
                    } else {
                        vec![Act::Forward(unit.bytes)]
                    }
                })
            });
            is_whole_or_reset(line.connect());
        }
    }
}

/// Each piece of either connection is late, so that what moves overtakes what does not.
#[test]
fn nothing_is_lost_where_one_connection_is_later_than_the_other() {
    for late in [0, 1] {
        let line = Line::tampered(Server::echo().address, move |number| {
            Box::new(move |unit: Unit| {
                if number == late && unit.number > 1 {
                    thread::sleep(std::time::Duration::from_millis(2));
                }
                vec![Act::Forward(unit.bytes)]
            })
        });
        send_both_ways(line.connect(), BULK / 4);
        assert_eq!(line.connected(), 2);
    }
}

/// Sends bytes to an echo and looks at them, then ends well.
fn send_both_ways(client: TcpStream, count: usize) {
    let sent = noise(7, count);
    let mut reader = client.try_clone().unwrap();
    let expected = sent.clone();
    let read = thread::spawn(move || {
        let (got, end) = read_to_end(&mut reader);
        assert!(got == expected && end == End::Clean);
    });
    let mut writer = client;
    writer.write_all(&sent).unwrap();
    writer.shutdown(Shutdown::Write).unwrap();
    read.join().unwrap();
}

/// Sends bytes to an echo. What comes back is a beginning of them, and all of them where the
/// end is clean. Returns whether it is.
fn is_whole_or_reset(client: TcpStream) -> bool {
    let sent = noise(7, BULK / 4);
    let mut reader = client.try_clone().unwrap();
    let read = thread::spawn(move || read_to_end(&mut reader));
    let mut writer = client;
    // A reset that the write is told is not told to the read again.
    let is_written = writer.write_all(&sent).is_ok();
    let is_written = is_written && writer.shutdown(Shutdown::Write).is_ok();
    let (got, end) = read.join().unwrap();
    let is_clean = is_written && end == End::Clean;
    assert!(sent.starts_with(&got));
    assert!(!is_clean || got == sent);
    is_clean
}
