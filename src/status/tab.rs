//! The status as lines for programs: tabs between the columns, whose names are the first
//! line. New columns come last.

use super::text::open_connections;
use super::words::clean;
use super::{Answer, Asked, Detail, OpenConnection, Status, UnixTime};

/// What stands where nothing is known.
const NONE: &str = "-";

const PROCESSES: [&str; 32] = [
    "name",
    "socket",
    "error",
    "role",
    "state",
    "pid",
    "unit",
    "since",
    "now",
    "listening",
    "target",
    "target_reachable",
    "target_tried",
    "target_error",
    "kex",
    "keys_in_force",
    "keys_reload_failed",
    "connections",
    "connection_limit",
    "carriers",
    "streams",
    "strangers",
    "stranger_limit",
    "connections_total",
    "sent_bytes",
    "received_bytes",
    "sent_bytes_per_second",
    "received_bytes_per_second",
    "recent_seconds",
    "recent_connections_opened",
    "recent_handshakes_ok",
    "recent_handshakes_failed",
];

const CONNECTIONS: [&str; 15] = [
    "name",
    "role",
    "pid",
    "conn",
    "peer",
    "client",
    "key",
    "key_id",
    "opened",
    "now",
    "sent_bytes",
    "received_bytes",
    "waiting_for_tunnel_bytes",
    "waiting_for_local_bytes",
    "waiting_seconds",
];

/// The names of the columns.
pub(crate) fn names(detail: Detail) -> String {
    match detail {
        Detail::Summary => PROCESSES.join("\t"),
        Detail::Connections => CONNECTIONS.join("\t"),
    }
}

/// One line for each process.
pub(crate) fn processes(asked: &[Asked]) -> Vec<String> {
    asked.iter().map(process).collect()
}

fn process(asked: &Asked) -> String {
    let first = [clean(&asked.name), clean(&asked.socket)];
    let rest = match &asked.answer {
        Answer::Failed { error, .. } => {
            let mut rest = vec![NONE.to_owned(); PROCESSES.len() - first.len()];
            rest[0] = clean(error);
            rest
        }
        Answer::Told(status) => told(status).to_vec(),
    };
    [first.to_vec(), rest].concat().join("\t")
}

fn told(status: &Status) -> [String; 30] {
    let Status { target, recent, totals, .. } = status;
    let in_force = status.keys.iter().filter(|key| key.in_force).count();
    let reload_failed = status.keys_reloaded.last_successful.map(|successful| !successful);
    [
        NONE.to_owned(),
        status.role.to_string(),
        status.state.to_string(),
        status.pid.to_string(),
        text(status.unit.as_ref()),
        status.since.0.to_string(),
        status.now.0.to_string(),
        text((!status.listening.is_empty()).then(|| status.listening.join(",")).as_ref()),
        clean(&target.address),
        yes_or_no(target.reachable),
        moment(target.tried),
        text(target.error.as_ref()),
        clean(&status.kex),
        in_force.to_string(),
        yes_or_no(reload_failed),
        status.connections.to_string(),
        status.connection_limit.to_string(),
        status.carriers.len().to_string(),
        status.carriers.iter().map(|carrier| carrier.streams).sum::<u64>().to_string(),
        status.strangers.to_string(),
        status.stranger_limit.to_string(),
        totals.connections.to_string(),
        totals.sent_bytes.to_string(),
        totals.received_bytes.to_string(),
        recent.sent_bytes_per_second.to_string(),
        recent.received_bytes_per_second.to_string(),
        recent.seconds.to_string(),
        recent.connections_opened.to_string(),
        recent.handshakes_ok.to_string(),
        recent.handshakes_failed.to_string(),
    ]
}

/// One line for each open connection, in the order of the lines for people.
pub(crate) fn connections(asked: &[Asked]) -> Vec<String> {
    open_connections(asked).into_iter().map(connection).collect()
}

fn connection((name, status, open): (&str, &Status, &OpenConnection)) -> String {
    let cells: [String; CONNECTIONS.len()] = [
        clean(name),
        status.role.to_string(),
        status.pid.to_string(),
        clean(&open.conn),
        clean(&open.peer),
        text(open.client.as_ref()),
        clean(&open.key),
        clean(&open.key_id),
        open.opened.0.to_string(),
        status.now.0.to_string(),
        open.sent_bytes.to_string(),
        open.received_bytes.to_string(),
        open.waiting_for_tunnel_bytes.to_string(),
        open.waiting_for_local_bytes.to_string(),
        open.waiting_seconds.to_string(),
    ];
    cells.join("\t")
}

fn text(text: Option<&String>) -> String {
    text.map_or(NONE.to_owned(), |text| clean(text))
}

fn moment(time: Option<UnixTime>) -> String {
    time.map_or(NONE.to_owned(), |time| time.0.to_string())
}

fn yes_or_no(what: Option<bool>) -> String {
    match what {
        Some(true) => "yes",
        Some(false) => "no",
        None => NONE,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, silent};
    use super::*;

    #[test]
    fn each_line_has_a_cell_for_each_name() {
        let all = [asked("re\tdis"), silent("spiped-send")];
        let lines = processes(&all);
        assert_eq!(lines.len(), 2);
        let cells: Vec<Vec<_>> = lines.iter().map(|line| line.split('\t').collect()).collect();
        assert!(cells.iter().all(|cells| cells.len() == PROCESSES.len()), "{lines:#?}");
        let cell = |row: usize, name| {
            cells[row][PROCESSES.iter().position(|known| *known == name).unwrap()]
        };
        assert_eq!((cell(0, "name"), cell(0, "error")), ("re\\tdis", "-"));
        assert_eq!((cell(0, "target_reachable"), cell(0, "recent_handshakes_failed")), ("no", "2"));
        assert_eq!((cell(1, "error"), cell(1, "pid")), ("it does not answer", "-"));
        let open = connections(&all);
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].split('\t').count(), CONNECTIONS.len());
    }
}
