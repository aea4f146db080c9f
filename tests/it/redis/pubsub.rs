//! Messages that the server sends unasked.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::resp::{array, ask, expect};
use crate::support::redis::Redis;
use crate::support::{Folder, Pipe, connect};

#[test]
fn a_subscriber_gets_every_message_in_order() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let pipe = Pipe::to(&folder, redis.address);
    let mut subscriber = subscribe(&pipe);
    let mut publisher = pipe.connect();

    let texts: Vec<_> = (0..10_000).map(|number| format!("message {number}")).collect();
    for text in &texts {
        publisher.write_all(&array(&["PUBLISH", "news", text])).unwrap();
    }
    for text in &texts {
        expect(&mut subscriber, array(&["message", "news", text]));
    }
    expect(&mut publisher, ":1\r\n".repeat(texts.len()));
}

#[test]
fn a_subscriber_idle_for_longer_than_a_handshake_may_take_gets_the_next_message() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let pipe = Pipe::with(&folder, redis.address, &["-o", "2"]);
    let mut subscriber = subscribe(&pipe);

    // There is nothing to wait for: the test is that nothing happens.
    thread::sleep(Duration::from_secs(3));
    ask(&mut pipe.connect(), &["PUBLISH", "news", "late"], ":1\r\n");
    expect(&mut subscriber, array(&["message", "news", "late"]));
}

/// Every message is a record of its own; the sender reads hundreds at once.
#[test]
fn messages_that_piled_up_before_the_sender_all_arrive() {
    let folder = Folder::new();
    let redis = Redis::start(&folder, "redis", &[]);
    let pipe = Pipe::to(&folder, redis.address);
    let mut subscriber = subscribe(&pipe);
    let mut publisher = connect(redis.address);

    let texts: Vec<_> = (0..1000).map(|number| format!("message {number}")).collect();
    pipe.sender.signal("STOP");
    for text in &texts {
        ask(&mut publisher, &["PUBLISH", "news", text], ":1\r\n");
    }
    pipe.sender.signal("CONT");
    for text in &texts {
        expect(&mut subscriber, array(&["message", "news", text]));
    }
}

fn subscribe(pipe: &Pipe) -> TcpStream {
    let mut subscriber = pipe.connect();
    ask(&mut subscriber, &["SUBSCRIBE", "news"], "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    subscriber
}
