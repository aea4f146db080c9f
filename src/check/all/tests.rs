//! The judgement, and its two forms.

use serde_json::Value;

use super::facts::{
    Exchange, Facts, IdleSocket, Key, Listener, Pipe, Place, Plaintext, Proof, Refusal, Seen,
    Source, Target, Told, Waits,
};
use super::findings::{Kind, judge, judge_idle};
use super::{FOUND, HostReport};
use crate::config::{AllConfig, Role};
use crate::report::exit;
use crate::status::{State, UnixTime};

const DAY: u64 = 86_400;
const NOW: UnixTime = UnixTime(1000 * DAY);

/// A receiver in which there is nothing to find.
fn receiver() -> Facts {
    let source = Source {
        address: "[192.0.2.1]:1".into(),
        plaintext: Plaintext::Refused { seconds: 0.001 },
    };
    Facts {
        role: Role::Decrypt,
        state: State::Serving,
        pid: 7,
        unit: None,
        listening: vec![source],
        target: Target {
            address: "[127.0.0.1]:2".into(),
            place: on_this_host(&["127.0.0.1:2"], true),
            error: None,
        },
        kex: exchange("x25519mlkem768", &["x25519mlkem768"]),
        keys: vec![key(10)],
        refused: None,
        not_judged: None,
        proof: None,
        status_http: vec!["127.0.0.1:9100".into()],
    }
}

#[expect(clippy::fn_params_excessive_bools, reason = "it is the field of the place")]
fn on_this_host(listeners: &[&str], is_served: bool) -> Place {
    Place::ThisHost { listeners: listeners.iter().map(|at| listener(at)).collect(), is_served }
}

fn listener(address: &str) -> Listener {
    let is_exposed = !address.starts_with("127.");
    Listener { address: address.into(), is_exposed, pid: Some(9), program: Some("redis".into()) }
}

fn exchange(setting: &str, accepted: &[&str]) -> Exchange {
    Exchange {
        setting: setting.into(),
        accepted: accepted.iter().map(ToString::to_string).collect(),
        connections: 2,
        classical: 0,
        classical_keys: vec![],
    }
}

fn key(days: u64) -> Key {
    Key {
        name: "bob".into(),
        id: "1-2".into(),
        file: Some("/etc/spiped/bob.key".into()),
        written: Some(UnixTime(NOW.0 - days * DAY - 1)),
        is_in_force: Some(true),
    }
}

/// What is found of a receiver with one change.
#[track_caller]
fn finds(change: impl FnOnce(&mut Facts), wanted: &[Kind]) {
    let mut facts = receiver();
    change(&mut facts);
    let kinds = |facts: &Facts| -> Vec<_> {
        judge(facts, 365, NOW).into_iter().map(|it| it.kind).collect()
    };
    assert_eq!(kinds(&facts), wanted, "{facts:?}");
    facts.state = State::Draining;
    assert_eq!(kinds(&facts), [], "{facts:?}");
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    finds(|_| {}, &[]);
    let at = |plaintext| move |facts: &mut Facts| facts.listening[0].plaintext = plaintext;
    let error = || "why".to_owned();
    finds(at(Plaintext::Served { error: error() }), &[Kind::PlaintextServed]);
    finds(at(Plaintext::Unproved { error: error() }), &[Kind::PlaintextUnproved]);
    finds(at(Plaintext::Exposed), &[Kind::PlaintextSourceExposed]);
    finds(at(Plaintext::Loopback), &[]);
    finds(|facts| facts.listening.clear(), &[Kind::PlaintextUnproved]);

    let to = |place| move |facts: &mut Facts| facts.target.place = place;
    let all = on_this_host(&["127.0.0.1:2", "0.0.0.0:2", "[::]:2"], true);
    finds(to(all), &[Kind::PlaintextTargetExposed; 2]);
    finds(to(Place::OtherHost), &[Kind::PlaintextTargetRemote]);
    finds(to(Place::Unknown { error: error() }), &[Kind::PlaintextTargetUnknown]);
    finds(to(Place::Receiver), &[]);
    let refused = Refusal { error: error(), hint: "what".into() };
    finds(|facts| facts.refused = Some(refused), &[Kind::StartRefused]);
    finds(to(on_this_host(&[], false)), &[Kind::TargetDown]);
    finds(to(on_this_host(&["127.0.0.1:2"], false)), &[Kind::TargetDown]);
    // A sender of this host listens there.
    finds(to(on_this_host(&[], true)), &[]);
    finds(|facts| facts.target.error = Some(error()), &[Kind::TargetDown]);
    finds(|facts| facts.status_http.push("[::]:9100".into()), &[Kind::StatusExposed]);
}

#[test]
fn a_socket_that_waits_is_judged_by_where_it_listens() {
    let idle = |plaintext, refused| IdleSocket {
        role: Role::Encrypt,
        state: Waits::Idle,
        unit: "spiped-send@a.socket".into(),
        listening: vec![Source { address: "[0.0.0.0]:1".into(), plaintext }],
        refused,
        not_judged: None,
    };
    let kinds = |idle| judge_idle(&idle).into_iter().map(|it| it.kind).collect::<Vec<_>>();
    assert_eq!(kinds(idle(Plaintext::Loopback, None)), []);
    let refused = Refusal { error: "why".into(), hint: "what".into() };
    let both = [Kind::PlaintextSourceExposed, Kind::StartRefused];
    assert_eq!(kinds(idle(Plaintext::Exposed, Some(refused))), both);
}

#[test]
fn exchanges_keys_and_proofs_are_judged() {
    let with = |kex| move |facts: &mut Facts| facts.kex = kex;
    finds(with(exchange("auto", &["x25519mlkem768", "x25519"])), &[Kind::ClassicalAccepted]);
    let used = Exchange { classical: 1, ..exchange("x25519mlkem768", &["x25519mlkem768"]) };
    finds(with(used), &[Kind::ClassicalUsed]);
    let recent = Exchange {
        classical_keys: vec!["bob".into()],
        ..exchange("x25519mlkem768", &["x25519mlkem768"])
    };
    finds(with(recent), &[Kind::ClassicalUsed]);

    let keys = |key| move |facts: &mut Facts| facts.keys.push(key);
    finds(keys(key(364)), &[]);
    finds(keys(key(365)), &[Kind::KeyOld]);
    finds(keys(Key { is_in_force: None, ..key(400) }), &[Kind::KeyOld]);
    // The time of the file is not that of the key.
    finds(keys(Key { is_in_force: Some(false), ..key(400) }), &[Kind::KeyFileDiffers]);
    finds(keys(Key { file: None, written: None, is_in_force: None, ..key(400) }), &[]);
    // The clock was set back.
    finds(keys(Key { written: Some(UnixTime(NOW.0 + DAY)), ..key(0) }), &[]);

    let proof = |proof| move |facts: &mut Facts| facts.proof = Some(proof);
    let (error, hint) = ("why".to_owned(), "what".to_owned());
    finds(proof(Proof::NotTried { error: error.clone() }), &[]);
    finds(proof(Proof::Failed { error, hint }), &[Kind::PipeBroken]);
}

#[test]
fn the_worst_gives_the_exit_code() {
    let pipe = |told| Pipe { name: "redis".into(), socket: None, told };
    let good = || pipe(Told::Facts(Box::new(receiver())));
    let bad = || {
        let mut facts = receiver();
        facts.status_http.push("[::]:9100".into());
        pipe(Told::Facts(Box::new(facts)))
    };
    let failed = || pipe(Told::Failed { error: "gone\n".into(), hint: "start it".into() });
    let accept = |names: &[&str]| AllConfig {
        timeout: None,
        key_age_days: 365,
        accept: names.iter().map(ToString::to_string).collect(),
        is_json: false,
    };
    let (none, not_seen) = (vec![], vec!["\u{e4}".to_owned()]);
    for (pipes, not_seen, accepted, code, sum) in [
        (vec![], &none, &[][..], 0, "0 pipes, 0 findings"),
        (vec![good()], &none, &[], 0, "1 pipe, 0 findings"),
        (vec![bad(), good()], &none, &[], FOUND, "2 pipes, 1 finding"),
        (vec![bad()], &none, &["key-old"], FOUND, "1 pipe, 1 finding"),
        (vec![bad()], &none, &["status-exposed"], 0, "1 pipe, 0 findings"),
        (vec![bad()], &not_seen, &[], exit::UNAVAILABLE, "1 pipe, 1 finding"),
        (vec![bad(), failed()], &none, &[], exit::UNAVAILABLE, "2 pipes, 1 finding, 1 not asked"),
        (vec![failed()], &none, &[], exit::UNAVAILABLE, "1 pipe, 0 findings, 1 not asked"),
    ] {
        let seen = Seen { pipes, not_seen: not_seen.clone() };
        let report = HostReport::judged(seen, &accept(accepted), NOW);
        assert_eq!(report.exit_code(), code);
        let text = report.text();
        assert_eq!(text.lines().next_back(), Some(sum), "{text}");
        let unseen = text.contains("\nnot seen: \\u{e4}\n");
        assert!(text.is_ascii() && unseen != not_seen.is_empty(), "{text}");
        assert_eq!(
            text.contains("\n  accepted   status-exposed: "),
            accepted == ["status-exposed"]
        );
        assert!(
            !sum.contains("not asked") || text.contains("\n  not asked  gone\\n; hint: start it\n"),
            "{text}"
        );
        let json = report.json();
        assert!(json.is_ascii() && json.lines().count() == 1, "{json}");
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["exit"], &json["version"]), (&code.into(), &1.into()));
    }
}
