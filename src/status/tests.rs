//! Statuses for the tests of their forms, and the JSON.

use super::*;

fn key(last_used: UnixTime, totals: Totals) -> Key {
    Key {
        name: "alice".to_owned(),
        id: "3f9a-12bc-07de-5581".to_owned(),
        in_force: true,
        connections: 2,
        connection_limit: Some(10),
        address: None,
        last_used: Some(last_used),
        kex: Some("x25519mlkem768".to_owned()),
        cipher: Some("aes-256-gcm".to_owned()),
        totals,
    }
}

fn failure(last: UnixTime) -> Failure {
    Failure {
        reason: "target-refused".to_owned(),
        count: 3,
        last,
        peer: "10.0.0.9:4000".to_owned(),
        key: Some("alice".to_owned()),
        message: "cannot connect to the target: connection refused".to_owned(),
        hint: Some("start it".to_owned()),
    }
}

fn open(opened: UnixTime) -> OpenConnection {
    OpenConnection {
        conn: "7-1".to_owned(),
        key: "alice".to_owned(),
        key_id: "3f9a-12bc-07de-5581".to_owned(),
        peer: "10.0.0.9:4001".to_owned(),
        client: None,
        opened,
        kex: "x25519mlkem768".to_owned(),
        cipher: "aes-256-gcm".to_owned(),
        sent_bytes: 1,
        received_bytes: 2,
        waiting_for_tunnel_bytes: 0,
        waiting_for_local_bytes: 0,
        waiting_seconds: 0,
    }
}

fn carrier(opened: UnixTime) -> Carrier {
    Carrier {
        conn: "07de-5581-3f9a-12bc".to_owned(),
        key: "alice".to_owned(),
        key_id: "3f9a-12bc-07de-5581".to_owned(),
        peer: "10.0.0.9:4000".to_owned(),
        opened,
        streams: 40,
        stream_limit: 1024,
        is_taking: true,
    }
}

/// A process with a target that is down, and one open connection.
pub(super) fn asked(name: &str) -> Asked {
    let at = |ago: u64| UnixTime(1_000_000 - ago);
    let totals = Totals { connections: 9, sent_bytes: 5000, ..Totals::default() };
    let status = Status {
        version: VERSION,
        spiped: "2.0.0".to_owned(),
        role: Role::Decrypt,
        state: State::Serving,
        pid: 4711,
        unit: Some(format!("spiped-receive@{name}.service")),
        since: at(7300),
        now: at(0),
        listening: vec!["10.0.0.5:6379".to_owned()],
        target: Target {
            address: "127.0.0.1:6379".to_owned(),
            reachable: Some(false),
            tried: Some(at(200)),
            error: Some("connection refused".to_owned()),
        },
        kex: "auto".to_owned(),
        connections: 2,
        connection_limit: 100,
        strangers: 1,
        stranger_limit: 12,
        carriers: vec![carrier(at(90))],
        keys: vec![key(at(5), totals.clone())],
        keys_reloaded: Reloads { last_successful: None, last_success: Some(at(7300)) },
        totals,
        closed_without_key: BTreeMap::new(),
        handshakes: BTreeMap::new(),
        handshake_seconds: Histogram {
            le: vec![0.005, 0.01],
            counts: vec![5, 7],
            count: 7,
            sum: 0.03,
        },
        target_connect_seconds: Histogram::default(),
        recent: Recent {
            seconds: 300,
            handshakes_ok: 7,
            handshakes_failed: 2,
            ..Recent::default()
        },
        failures: vec![failure(at(200))],
        open: Some(vec![open(at(60))]),
    };
    let answer = Answer::Told(Box::new(status));
    Asked { name: name.to_owned(), socket: format!("/run/{name}/control"), pid: None, answer }
}

/// One with a reader that has stalled.
pub(super) fn stalled(name: &str) -> Asked {
    let mut asked = asked(name);
    let Answer::Told(status) = &mut asked.answer else { unreachable!() };
    for open in status.open.iter_mut().flatten() {
        (open.waiting_for_local_bytes, open.waiting_seconds) = (64 << 10, 300);
    }
    asked
}

/// One that does not answer.
pub(super) fn silent(name: &str) -> Asked {
    let answer =
        Answer::Failed { error: "it does not answer".to_owned(), hint: "restart it".to_owned() };
    Asked { name: name.to_owned(), socket: format!("/run/{name}/control"), pid: None, answer }
}

#[test]
fn the_json_of_all_has_the_model_or_the_error_of_each() {
    let json = to_json(&[asked("redis"), silent("spiped-send")]);
    let all: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&all[0]["name"], &all[0]["pid"]), (&"redis".into(), &4711.into()));
    assert_eq!(all[0]["error"], serde_json::Value::Null);
    assert_eq!(all[1]["error"], "it does not answer");
    assert!(!json.contains('\n'));
}

#[test]
fn a_text_in_any_language_arrives_as_it_was() {
    let text = "\u{7f} caf\u{e9} \u{1f980} \u{202e}\n\"";
    let json = ascii(&serde_json::to_string(text).unwrap());
    assert!(json.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{json}");
    assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
}

/// The names of all fields, but those that are reasons.
fn fields(json: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    for (name, value) in json.as_object().into_iter().flatten() {
        found.insert(name.clone());
        if !["closed", "closed_without_key", "handshakes"].contains(&&**name) {
            fields(value, found);
        }
    }
    for value in json.as_array().into_iter().flatten() {
        fields(value, found);
    }
}

#[test]
fn the_page_has_each_field_of_the_json() {
    let json = serde_json::from_str(&to_json(&[asked("redis"), silent("gone")])).unwrap();
    let mut found = std::collections::BTreeSet::new();
    fields(&json, &mut found);
    assert!(found.len() > 60, "{found:?}");
    let page = include_str!("../../man/spiped-status.1");
    let (_, section) = page.split_once(".Sh FIELDS OF THE JSON\n").unwrap();
    let section = section.split("\n.Sh ").next().unwrap();
    let words: Vec<_> = section.split([' ', ',', '\n', '.']).collect();
    let missing: Vec<_> = found.iter().filter(|name| !words.contains(&&***name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
