//! The status as lines for people.

use super::table::{Column, left, right, table};
use super::words::{age, clean, count, quantiles, size, time};
use super::{Answer, Asked, Failure, OpenConnection, State, Status, Target, Totals};
use crate::config::Role;

/// What stands where nothing is known.
const NONE: &str = "-";

/// Which columns of the overview give way first, and how they look.
const OVERVIEW: [Column; 14] = [
    left("NAME", 0),
    left("ROLE", 0),
    left("STATE", 0),
    left("LISTENING", 5),
    left("TARGET", 0),
    left("REACHED", 1),
    right("KEYS", 7),
    right("OPEN", 0),
    right("SENT", 2),
    right("SENT/S", 4),
    right("RECEIVED", 2),
    right("RECV/S", 4),
    right("GOOD/BAD", 3),
    right("SINCE", 6),
];

/// One line for each process, and one for each that does not answer.
pub(crate) fn overview(asked: &[Asked], width: usize) -> Vec<String> {
    let rows: Vec<_> =
        asked.iter().filter_map(|it| Some(overview_row(&it.name, it.status()?))).collect();
    let told = if rows.is_empty() { vec![] } else { table(&OVERVIEW, &rows, width) };
    told.into_iter().chain(asked.iter().filter_map(failed)).collect()
}

fn overview_row(name: &str, status: &Status) -> [String; 14] {
    let Status { recent, totals, target, now, .. } = status;
    let reached = match (target.reachable, target.tried) {
        (Some(true), Some(tried)) => format!("{} ago", age(*now, tried)),
        (Some(false), Some(tried)) => format!("no, {} ago", age(*now, tried)),
        _ => NONE.to_owned(),
    };
    let in_force = status.keys.iter().filter(|key| key.in_force).count();
    [
        clean(name),
        status.role.to_string(),
        status.state.to_string(),
        listening(status),
        clean(&target.address),
        reached,
        in_force.to_string(),
        status.connections.to_string(),
        size(totals.sent_bytes),
        size(recent.sent_bytes_per_second),
        size(totals.received_bytes),
        size(recent.received_bytes_per_second),
        format!("{}/{}", recent.handshakes_ok, recent.handshakes_failed),
        age(*now, status.since),
    ]
}

fn listening(status: &Status) -> String {
    match &status.listening[..] {
        [] => NONE.to_owned(),
        addresses => clean(&addresses.join(",")),
    }
}

/// The line of a process that does not answer.
fn failed(asked: &Asked) -> Option<String> {
    match &asked.answer {
        Answer::Told(_) => None,
        Answer::Failed { error, .. } => Some(format!("{}: {}", clean(&asked.name), clean(error))),
    }
}

/// All that one process tells.
pub(crate) fn full(asked: &Asked) -> Vec<String> {
    let status = match &asked.answer {
        Answer::Told(status) => status,
        Answer::Failed { hint, .. } => {
            return failed(asked).into_iter().chain([format!("  hint: {}", clean(hint))]).collect();
        }
    };
    let Status { role, state, spiped, pid, .. } = &**status;
    let since = age(status.now, status.since);
    // When it began to drain is not known.
    let for_long = match state {
        State::Draining => format!("{state}, started {since} ago"),
        State::Waiting | State::Serving => format!("{state} for {since}"),
    };
    let mut lines = vec![format!(
        "{} ({role}): {for_long}, process {pid}, spiped {}",
        clean(&asked.name),
        clean(spiped)
    )];
    let mut say = |name: &str, text: String| lines.push(format!("  {name:<14}{text}"));
    if let Some(unit) = &status.unit {
        say("unit", clean(unit));
    }
    say("listening", listening(status));
    // A sender connects to its receiver, and does not know the server behind that.
    let target = if *role == Role::Encrypt { "receiver" } else { "target" };
    say(target, clean(&status.target.address) + &reached(status, &status.target));
    say("key exchange", clean(&status.kex));
    say("connections", connections_line(status));
    for (name, bytes, rate) in rates(status) {
        say(name, format!("{}, now {}/s", size(bytes), size(rate)));
    }
    say("handshakes", handshakes_line(status));
    let connects = quantiles(&status.target_connect_seconds);
    say("connects", connects.map_or_else(|| NONE.to_owned(), |it| format!("{it} since the start")));
    say("keys loaded", reloads_line(status));
    lines.extend(keys(status));
    lines.extend(carriers(status));
    lines.extend(failures(status));
    lines
}

fn rates(status: &Status) -> [(&'static str, u64, u64); 2] {
    let Totals { sent_bytes, received_bytes, .. } = status.totals;
    [
        ("sent", sent_bytes, status.recent.sent_bytes_per_second),
        ("received", received_bytes, status.recent.received_bytes_per_second),
    ]
}

fn reached(status: &Status, target: &Target) -> String {
    let ago = target.tried.map(|tried| age(status.now, tried));
    match (target.reachable, ago) {
        (Some(true), Some(ago)) => format!(", reached {ago} ago"),
        (Some(false), Some(ago)) => {
            let why = target.error.as_deref().map(|why| format!(": {}", clean(why)));
            format!(", not reached {ago} ago{}", why.unwrap_or_default())
        }
        _ => ", not tried yet".to_owned(),
    }
}

fn connections_line(status: &Status) -> String {
    let Status { connections, connection_limit, strangers, stranger_limit, recent, .. } = status;
    let opened = recent.connections_opened;
    let last = time(recent.seconds);
    let line = format!(
        "{connections} of {connection_limit} open, {opened} opened in the last {last}, {} in all",
        status.totals.connections
    );
    // A sender has none.
    if *stranger_limit == 0 {
        return line;
    }
    format!("{line}; {strangers} of {stranger_limit} without a key yet")
}

fn handshakes_line(status: &Status) -> String {
    let recent = &status.recent;
    let last = time(recent.seconds);
    let counts = format!(
        "{} good, {} bad in the last {last}",
        recent.handshakes_ok, recent.handshakes_failed
    );
    match quantiles(&status.handshake_seconds) {
        Some(durations) => format!("{counts}; {durations} since the start"),
        None => counts,
    }
}

fn reloads_line(status: &Status) -> String {
    let reloads = &status.keys_reloaded;
    let last = reloads.last_success.map(|then| format!("{} ago", age(status.now, then)));
    let last = last.unwrap_or_else(|| NONE.to_owned());
    if reloads.last_successful == Some(false) {
        return format!("{last}; the last reload FAILED, see the log");
    }
    last
}

const KEYS: [Column; 9] = [
    left("KEY", 0),
    left("ID", 0),
    left("IN FORCE", 0),
    right("HANDSHAKE", 0),
    right("OPEN", 0),
    right("SENT", 0),
    right("RECEIVED", 0),
    left("KEX", 0),
    left("CIPHER", 0),
];

fn keys(status: &Status) -> Vec<String> {
    let row = |key: &super::Key| {
        let limit = key.connection_limit.map(|limit| format!(" of {limit}"));
        let agreed = |what: &Option<String>| what.as_deref().map_or(NONE.to_owned(), clean);
        let used = key.last_used.map(|then| format!("{} ago", age(status.now, then)));
        [
            clean(&key.name),
            clean(&key.id),
            if key.in_force { "yes" } else { "no" }.to_owned(),
            used.unwrap_or_else(|| "never".to_owned()),
            format!("{}{}", key.connections, limit.unwrap_or_default()),
            size(key.totals.sent_bytes),
            size(key.totals.received_bytes),
            agreed(&key.kex),
            agreed(&key.cipher),
        ]
    };
    let rows: Vec<_> = status.keys.iter().map(row).collect();
    // Nothing gives way here: who asks for all of it gets it.
    table(&KEYS, &rows, usize::MAX).into_iter().map(|line| format!("  {line}")).collect()
}

const CARRIERS: [Column; 6] = [
    left("CARRIER", 0),
    left("PEER", 0),
    left("KEY", 0),
    right("SINCE", 0),
    right("STREAMS", 0),
    left("TAKES MORE", 0),
];

fn carriers(status: &Status) -> Vec<String> {
    if status.carriers.is_empty() {
        return Vec::new();
    }
    let row = |carrier: &super::Carrier| {
        [
            clean(&carrier.conn),
            clean(&carrier.peer),
            clean(&carrier.key),
            format!("{} ago", age(status.now, carrier.opened)),
            format!("{} of {}", carrier.streams, carrier.stream_limit),
            if carrier.is_taking { "yes" } else { "no" }.to_owned(),
        ]
    };
    let rows: Vec<_> = status.carriers.iter().map(row).collect();
    table(&CARRIERS, &rows, usize::MAX).into_iter().map(|line| format!("  {line}")).collect()
}

fn failures(status: &Status) -> Vec<String> {
    let lines = |failure: &Failure| {
        let Failure { reason, count: often, last, peer, key, message, hint } = failure;
        let key = key.as_deref().map(|key| format!(", key {}", clean(key)));
        let first = format!(
            "  {}: {}, last {} ago, {}{}: {}",
            clean(reason),
            count(*often, "time"),
            age(status.now, *last),
            clean(peer),
            key.unwrap_or_default(),
            clean(message)
        );
        let hint = hint.as_deref().map(|hint| format!("    hint: {}", clean(hint)));
        std::iter::once(first).chain(hint)
    };
    let failures = status.failures.iter().flat_map(lines);
    let heading = (!status.failures.is_empty()).then(|| "  last failures:".to_owned());
    heading.into_iter().chain(failures.map(|line| format!("  {line}"))).collect()
}

const CONNECTIONS: [Column; 10] = [
    left("NAME", 0),
    left("ROLE", 0),
    left("CONN", 0),
    left("PEER", 0),
    left("KEY", 1),
    right("AGE", 2),
    right("SENT", 3),
    right("RECEIVED", 3),
    left("WAITING", 0),
    right("FOR", 0),
];

/// One line for each open connection of all processes, first those that have waited longest,
/// and one for each process that does not answer.
pub(crate) fn connections(asked: &[Asked], width: usize) -> Vec<String> {
    let mut open = open_connections(asked);
    open.truncate(super::OPEN_MAX);
    let row = |(name, status, open): &(&str, &Status, &OpenConnection)| {
        let waits = open.waiting_for_tunnel_bytes > 0 || open.waiting_for_local_bytes > 0;
        [
            clean(name),
            status.role.to_string(),
            clean(&open.conn),
            peer(open),
            clean(&open.key),
            age(status.now, open.opened),
            size(open.sent_bytes),
            size(open.received_bytes),
            waiting(open),
            if waits { time(open.waiting_seconds) } else { NONE.to_owned() },
        ]
    };
    let rows: Vec<_> = open.iter().map(row).collect();
    let told = match &rows[..] {
        // Those that do not answer may have some.
        [] if asked.iter().any(|it| it.status().is_none()) => vec![],
        [] => vec!["no connection is open".to_owned()],
        rows => table(&CONNECTIONS, rows, width),
    };
    told.into_iter().chain(asked.iter().filter_map(failed)).collect()
}

/// Who opened it; behind a receiver's peer the client, where the sender tells it.
fn peer(open: &OpenConnection) -> String {
    let peer = clean(&open.peer);
    open.client.as_ref().map_or(peer.clone(), |client| format!("{} via {peer}", clean(client)))
}

/// Where bytes wait: for the local program to take them, or for the other host.
fn waiting(open: &OpenConnection) -> String {
    let places =
        [(open.waiting_for_local_bytes, "local"), (open.waiting_for_tunnel_bytes, "tunnel")];
    let places = places.into_iter().filter(|(bytes, _)| *bytes > 0);
    let places: Vec<_> =
        places.map(|(bytes, place)| format!("{} for {place}", size(bytes))).collect();
    if places.is_empty() { NONE.to_owned() } else { places.join(", ") }
}

/// The open connections of all processes, each with its pipe: first those that have waited
/// longest, then those with most to wait for, then the oldest.
pub(super) fn open_connections(asked: &[Asked]) -> Vec<(&str, &Status, &OpenConnection)> {
    let mut all: Vec<_> = asked
        .iter()
        .filter_map(|it| Some((&it.name[..], it.status()?)))
        .flat_map(|(name, status)| status.open.iter().flatten().map(move |it| (name, status, it)))
        .collect();
    all.sort_by_key(|(_, _, open)| {
        let waits = open.waiting_for_local_bytes.saturating_add(open.waiting_for_tunnel_bytes);
        (std::cmp::Reverse((open.waiting_seconds, waits)), open.opened)
    });
    all
}

#[cfg(test)]
mod tests {
    use super::super::UnixTime;
    use super::super::tests::{asked, silent, stalled};
    use super::*;

    #[test]
    fn the_overview_fits_and_keeps_what_matters() {
        let all = [asked("redis"), silent("spiped-send")];
        for width in [80, 100, 120, 200] {
            let lines = overview(&all, width);
            assert_eq!(lines.len(), 3, "{lines:#?}");
            assert!(lines[..2].iter().all(|line| line.len() <= width), "{lines:#?}");
            assert!(lines[0].starts_with("NAME   ROLE      STATE"), "{lines:#?}");
            assert!(lines[1].contains("no, 3 min ago"), "{lines:#?}");
            assert_eq!(lines[2], "spiped-send: it does not answer");
        }
        let wide = overview(&all, 200);
        for name in OVERVIEW.map(|column| column.name) {
            assert!(wide[0].contains(name), "{name}: {wide:#?}");
        }
        assert!(wide[1].ends_with("7/2    2 h"), "{wide:#?}");
    }

    #[test]
    fn nothing_that_a_peer_says_controls_the_terminal() {
        let mut evil = asked("re\u{1b}dis");
        let Answer::Told(status) = &mut evil.answer else { unreachable!() };
        for text in [
            &mut status.target.address,
            &mut status.keys[0].name,
            &mut status.failures[0].message,
            &mut status.listening[0],
        ] {
            text.push_str("\u{1b}[31m\n\u{9b}\t");
        }
        status.open.as_mut().unwrap()[0].client = Some("\r\u{7}x".to_owned());
        let all = [evil];
        let lines = [overview(&all, 80), full(&all[0]), connections(&all, 80)].concat();
        let is_clean = |line: &String| line.chars().all(|c| c.is_ascii_graphic() || c == ' ');
        assert!(lines.len() > 15 && lines.iter().all(is_clean), "{lines:#?}");
    }

    #[test]
    fn a_reader_that_has_stalled_is_on_top() {
        let lines = connections(&[asked("quiet"), stalled("stuck")], 120);
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines[1].starts_with("stuck "), "{lines:#?}");
        assert!(lines[1].ends_with("64.0 KiB for local  5 min"), "{lines:#?}");
        assert!(lines[2].starts_with("quiet ") && lines[2].ends_with('-'), "{lines:#?}");
        let first: Vec<_> = lines[1].split_whitespace().take(4).collect();
        assert_eq!(first, ["stuck", "receiver", "7-1", "10.0.0.9:4001"], "{lines:#?}");
    }

    /// CONN finds the connection in the log, so it stays.
    #[test]
    fn a_narrow_list_of_connections_keeps_what_names_one() {
        let mut told = stalled("stuck");
        let Answer::Told(status) = &mut told.answer else { unreachable!() };
        let open = &mut status.open.as_mut().unwrap()[0];
        open.client = Some("192.0.2.7:50000".to_owned());
        let names = |width| {
            let head = connections(&[told.clone()], width)[0].clone();
            head.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names(200), CONNECTIONS.map(|column| column.name));
        assert_eq!(names(90), ["NAME", "ROLE", "CONN", "PEER", "KEY", "WAITING", "FOR"]);
        assert_eq!(names(10), ["NAME", "ROLE", "CONN", "PEER", "WAITING", "FOR"]);
        let line = &connections(&[told.clone()], 200)[1];
        assert!(line.contains(" 192.0.2.7:50000 via 10.0.0.9:4001 "), "{line}");
    }

    /// The columns that give way, in their order, as the manual writes them.
    fn order(columns: &[Column]) -> String {
        let mut places: Vec<_> = columns.iter().map(|column| column.gives_way).collect();
        places.sort_unstable();
        places.dedup();
        let of = |place: &u8| {
            let those = columns.iter().filter(|column| column.gives_way == *place);
            those.map(|column| column.name).collect::<Vec<_>>().join(" and ")
        };
        let places = places.iter().rev().filter(|place| **place > 0);
        places.map(of).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_manual_has_the_overview_as_it_is_printed_and_says_what_gives_way() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/man/spiped-status.1");
        let page = std::fs::read_to_string(page).unwrap();
        let (_, sample) = page.split_once(".Sh THE OVERVIEW\n").unwrap();
        let sample = sample.split(".Bd -literal\n").nth(1).unwrap().split("\n.Ed").next().unwrap();
        let mut told = asked("redis");
        let Answer::Told(status) = &mut told.answer else { unreachable!() };
        status.listening = vec!["[10.0.0.5]:6379".to_owned()];
        status.target.address = "localhost:6379".to_owned();
        (status.target.reachable, status.target.tried) = (Some(true), Some(UnixTime(999_997)));
        (status.totals.sent_bytes, status.totals.received_bytes) = (1_300_000, 14_500_000);
        assert_eq!(overview(&[told], 80), sample.lines().collect::<Vec<_>>());
        let words = page.replace('\n', " ");
        for columns in [&OVERVIEW[..], &CONNECTIONS] {
            let order = order(columns);
            assert!(words.contains(&format!(" in this order: {order}.")), "{order}");
        }
    }

    #[test]
    fn all_is_told_of_one_process() {
        let mut asked = asked("redis");
        let text = full(&asked).join("\n");
        for part in [
            "redis (receiver): serving for 2 h, process 4711",
            "not reached 3 min ago: connection refused",
            "7 good, 2 bad in the last 5 min; p50 <= 5 ms, p99 <= 10 ms since the start",
            "alice  3f9a-12bc-07de-5581  yes",
            "2 of 10",
            "07de-5581-3f9a-12bc  10.0.0.9:4000  alice  90 s ago  40 of 1024  yes",
            "target-refused: 3 times, last 3 min ago, 10.0.0.9:4000, key alice: ",
            "    hint: start it",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        let Answer::Told(status) = &mut asked.answer else { unreachable!() };
        status.role = Role::Encrypt;
        let line = "\n  receiver      127.0.0.1:6379, not reached 3 min ago: connection refused\n";
        let text = full(&asked).join("\n");
        assert!(text.contains(line), "{text}");
    }
}
