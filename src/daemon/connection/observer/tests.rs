use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::daemon::connection::handshake_error::PreAuthError;
use crate::daemon::net::stream::CHECK;
use crate::daemon::relay::error::RelayError;
use crate::keys::set::Key;
use crate::protocol::testing::GCM;
use crate::protocol::{ConnectionId, HandshakeHash};

const ID: u64 = 7;

fn observer() -> Observer {
    Observer::new(Notifier::from_env())
}

fn peer() -> Peer {
    Peer::Inet("192.0.2.7:1".parse().unwrap())
}

fn who(key: &Arc<Key>) -> Who {
    let id = ConnectionId::of(&HandshakeHash::new([7; 32]));
    let agreed = Agreed { suite: GCM, id, stream: None };
    Who { key: Arc::clone(key), agreed, peer: peer(), client: None }
}

fn told(observer: &Observer) -> Told {
    observer.told("[192.0.2.9]:6379".to_owned(), 0)
}

fn bytes(observer: &Observer) -> (u64, u64) {
    let Totals { sent_bytes, received_bytes, .. } = told(observer).totals;
    (sent_bytes, received_bytes)
}

fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// Opens a connection, and returns what counts its bytes.
fn open_in(observer: &Observer, id: u64, key: &Arc<Key>) -> (OpenGuard, Arc<Traffic>) {
    let traffic = Arc::<Traffic>::default();
    (observer.connection_opened(id, who(key), Arc::clone(&traffic)), traffic)
}

#[test]
fn the_last_of_both_is_told_with_its_time() {
    let observer = observer();
    let closed = |reason: &CloseReason| observer.connection_closed(ID, (&peer(), None), reason);
    closed(&RelayError::ShuttingDown.into());
    closed(&PreAuthError::Probe.into());
    assert_eq!(observer.to_string(), "");
    closed(&CloseReason::Finished);
    closed(&PreAuthError::Replayed.into());
    closed(&CloseReason::Limit(1));
    let told = observer.to_string();
    let digits: String =
        told.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
    assert_eq!(
        digits,
        "; last served 0000-00-00T00:00:00Z; last failed 0000-00-00T00:00:00Z: \
         000.0.0.0:0: the connection limit of 0 is reached",
        "{told}"
    );
}

#[test]
fn a_connection_that_ends_counts_for_its_key_or_for_none() {
    let (observer, key) = (observer(), Key::for_tests("alice"));
    observer.connection_closed(ID, (&peer(), Some(&key)), &CloseReason::Limit(1));
    observer.connection_closed(ID, (&peer(), None), &PreAuthError::Replayed.into());
    let Told { totals, closed_without_key, .. } = told(&observer);
    let (limit, replayed) = (CloseReason::Limit(1), CloseReason::from(PreAuthError::Replayed));
    assert_eq!(totals.closed, counts(&[(limit.name(), 1), (replayed.name(), 1)]));
    assert_eq!(closed_without_key, counts(&[(replayed.name(), 1)]));
    assert_eq!(observer.told_of_key(key.id()).0.closed, counts(&[(limit.name(), 1)]));
}

#[test]
fn bytes_count_while_they_move_and_once_their_connection_is_closed() {
    let (observer, key) = (observer(), Key::for_tests("alice"));
    let (open, traffic) = open_in(&observer, ID, &key);
    traffic.add_sent(5);
    traffic.add_received(7);
    assert_eq!(bytes(&observer), (5, 7));
    assert_eq!(bytes(&observer), (5, 7));
    traffic.add_sent(1);
    let closed = observer.connection_closed(ID, (&peer(), Some(&key)), &CloseReason::Finished);
    assert_eq!(closed, (6, 7));
    drop(open);
    assert_eq!(bytes(&observer), (6, 7));
    let (of_key, _) = observer.told_of_key(key.id());
    assert_eq!((of_key.connections, of_key.sent_bytes, of_key.received_bytes), (1, 6, 7));
    assert_eq!(of_key.closed, counts(&[("finished", 1)]));
    assert_eq!(told(&observer).totals.closed, counts(&[("finished", 1)]));
}

#[test]
fn thousands_of_connections_are_counted_and_told_a_part_at_a_time() {
    let (observer, key) = (observer(), Key::for_tests("alice"));
    let open: Vec<_> = (0..1000)
        .map(|number| {
            let (open, traffic) = open_in(&observer, number * 3, &key);
            traffic.add_sent(2);
            traffic.set_waiting_for_tests(u32::from(number == 700) * 40);
            open
        })
        .collect();
    assert_eq!(bytes(&observer), (2000, 0));
    let told = observer.told_open();
    assert_eq!(told.len(), 1000);
    let longest = (CHECK * 40).as_secs();
    assert_eq!((told[0].waiting_seconds, told[1].waiting_seconds), (longest, 0));
    drop(open);
}

#[test]
fn a_connection_that_a_panic_has_ended_is_open_no_more() {
    let (observer, key) = (observer(), Key::for_tests("alice"));
    let (open, traffic) = open_in(&observer, ID, &key);
    traffic.add_sent(5);
    drop(open);
    let ended = open_in(&observer, ID, &key);
    observer.connection_closed(ID, (&peer(), Some(&key)), &CloseReason::Finished);
    drop(ended);
    assert_eq!(bytes(&observer), (5, 0));
    assert!(observer.told_open().is_empty());
    assert_eq!(told(&observer).totals.closed, counts(&[("finished", 1), ("panic", 1)]));
}

#[test]
fn handshakes_count_by_their_result() {
    let (observer, key) = (observer(), Key::for_tests("alice"));
    let took = Duration::from_millis(3);
    let suite = who(&key).agreed.suite;
    observer.handshake_ended(Ok((key.id(), suite)), took);
    observer.handshake_ended(Err("replay"), took);
    observer.handshake_ended(Err("replay"), took);
    let told = told(&observer);
    assert_eq!(told.handshakes, counts(&[("ok", 1), ("replay", 2)]));
    assert_eq!((told.handshake_seconds.count, told.recent.handshakes_failed), (1, 2));
    let (_, last_used) = observer.told_of_key(key.id());
    assert_eq!(last_used.map(|(_, suite)| suite), Some(suite));
}

#[test]
fn each_reason_of_a_failure_is_told_once_the_newest_first() {
    let (observer, key) = (observer(), Key::for_tests("alice"));
    let closed =
        |reason: CloseReason| observer.connection_closed(ID, (&peer(), Some(&key)), &reason);
    closed(CloseReason::Limit(1));
    closed(CloseReason::Limit(2));
    closed(CloseReason::Finished);
    let failures = told(&observer).failures;
    assert_eq!(failures.len(), 1);
    assert_eq!((&*failures[0].reason, failures[0].count), ("connection-limit", 2));
    assert_eq!(failures[0].message, "the connection limit of 2 is reached");
    assert_eq!(failures[0].key.as_deref(), Some("alice"));
    assert!(failures[0].hint.is_some());
    assert_eq!(Arc::strong_count(&key), 1, "a failure keeps the secret of no key");
}

#[test]
fn a_key_that_is_neither_in_force_nor_in_use_is_forgotten() {
    let (observer, alice, bob) = (observer(), Key::for_tests("alice"), Key::for_tests("bob"));
    let _open = open_in(&observer, ID, &alice);
    drop(open_in(&observer, 8, &bob));
    observer.keys_reloaded(|_| false);
    let connections = |key: &Key| observer.told_of_key(key.id()).0.connections;
    assert_eq!((connections(&alice), connections(&bob)), (1, 0));
    assert_eq!(observer.reloads().last_successful, Some(true));
    observer.keys_not_reloaded();
    assert_eq!(observer.reloads().last_successful, Some(false));
}

#[test]
fn the_target_is_reachable_as_the_last_connect_was() {
    let observer = observer();
    assert_eq!(told(&observer).target.reachable, None);
    observer.target_tried(Err("refused".to_owned()), Duration::ZERO);
    let target = told(&observer).target;
    assert_eq!((target.reachable, target.error.as_deref()), (Some(false), Some("refused")));
    observer.target_tried(Ok(()), Duration::ZERO);
    let target = told(&observer).target;
    assert_eq!((target.reachable, target.error), (Some(true), None));
}

/// An event loop counts handshakes while another thread tells the status again and again.
#[test]
fn who_counts_waits_for_no_whole_status() {
    let (observer, key) = (observer(), Key::for_tests("alice"));
    let _open: Vec<_> = (0..20_000).map(|id| open_in(&observer, id, &key)).collect();
    let (is_over, told_so_far) = (AtomicBool::new(false), AtomicUsize::new(0));
    let waited = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                told(&observer);
                told_so_far.fetch_add(1, Ordering::Relaxed);
            }
        });
        let waited = (0..100).map(|_| {
            thread::sleep(Duration::from_micros(700));
            let before = told_so_far.load(Ordering::Relaxed);
            observer.handshake_ended(Err("replay"), Duration::ZERO);
            told_so_far.load(Ordering::Relaxed) - before
        });
        let waited: usize = waited.sum();
        is_over.store(true, Ordering::Relaxed);
        waited
    });
    // Without a pause between two parts, it is ten for each.
    assert!(waited < 100, "{waited}");
}
