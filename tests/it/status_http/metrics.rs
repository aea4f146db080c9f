//! The metrics: well formed, told in the manual, and read by a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{get, status_of};
use crate::support::program::Program;
use crate::support::{
    Folder, Pipe, Server, connect, need, nobody, read_to_end, round_trip, wait_until,
};

/// A pipe that has seen a client, one that is gone, and a stranger.
fn busy_pipe(folder: &Folder, target: &Server) -> (Pipe, std::net::TcpStream) {
    let pipe = Pipe::with(folder, target.address, &["--status", "127.0.0.1:0"]);
    let mut gone = pipe.connect();
    round_trip(&mut gone, &[7; 1000]);
    drop(gone);
    let mut held = pipe.connect();
    round_trip(&mut held, &[7; 500]);
    let mut stranger = connect(pipe.receiver.address);
    stranger.write_all(b"PING\r\n").unwrap();
    let _reset = read_to_end(&mut stranger);
    for end in [&pipe.receiver, &pipe.sender] {
        let at = status_of(end);
        wait_until("all has been counted", || {
            let body = get(at, "/metrics").body;
            sum_of(&body, "spiped_sent_bytes_total") == 1500
                && sum_of(&body, "spiped_received_bytes_total") == 1500
                && sum_of(&body, "spiped_connections") == 1
        });
    }
    (pipe, held)
}

/// The sum of all series of a name.
fn sum_of(metrics: &str, name: &str) -> u64 {
    let of_name = metrics.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Each metric with its type and the names of its labels.
fn families(metrics: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found = BTreeMap::new();
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, rest)) = line.split_once('{') {
            let (labels, _) = rest.rsplit_once('}').unwrap();
            let labels = labels.split(',').map(|label| label.split('=').next().unwrap());
            let of_histogram = name.trim_end_matches("_bucket");
            let name = if found.contains_key(name) { name } else { of_histogram };
            let known = &mut found.get_mut(name).unwrap().1;
            known.extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
    }
    found
}

#[test]
fn the_manual_has_each_metric_with_its_type_and_labels_and_no_other() {
    let (folder, target) = (Folder::new(), Server::echo());
    let (pipe, _held) = busy_pipe(&folder, &target);
    let told = families(&get(status_of(&pipe.receiver), "/metrics").body);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/spiped-metrics.7");
    let page = fs::read_to_string(page).unwrap();
    let (_, items) = page.split_once("\n.Sh METRICS\n").unwrap();
    let items = items.split("\n.Sh ").next().unwrap().split("\n.It Va ").skip(1);
    let in_manual = items.map(|item| {
        let mut lines = item.lines();
        let name = lines.next().unwrap().to_owned();
        let kind = lines.next().unwrap().strip_prefix("Type: ").unwrap().trim_end_matches('.');
        let labels = lines.next().and_then(|line| line.strip_prefix("Labels: ")).unwrap_or("");
        let labels = labels.trim_end_matches('.').split(", ").filter(|label| !label.is_empty());
        (name, (kind.to_owned(), labels.map(str::to_owned).collect()))
    });
    assert_eq!(told, in_manual.collect());
    // A sender has no other ones.
    let of_sender = families(&get(status_of(&pipe.sender), "/metrics").body);
    assert!(of_sender.keys().all(|name| told.contains_key(name)), "{of_sender:?}");
}

#[test]
fn promtool_finds_nothing_wrong() {
    need("promtool", "prometheus");
    let (folder, target) = (Folder::new(), Server::echo());
    let (pipe, mut held) = busy_pipe(&folder, &target);
    // A key that is replaced and still has a connection has the name of the next one.
    fs::remove_file(folder.shared_key()).unwrap();
    folder.key("redis.key");
    pipe.receiver.signal("HUP");
    pipe.receiver.log.wait_for("keys reloaded");
    round_trip(&mut held, b"more");
    wait_until("both keys are told", || {
        let metrics = get(status_of(&pipe.receiver), "/metrics").body;
        metrics.matches("\nspiped_key_in_force{key=\"redis\"").count() == 2
    });
    for end in [&pipe.receiver, &pipe.sender] {
        let metrics = get(status_of(end), "/metrics").body;
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut promtool = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.is_empty(), "{said}\n{metrics}");
        let mut series: Vec<_> =
            metrics.lines().map(|line| line.rsplit_once(' ').unwrap().0).collect();
        let all = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), all, "{metrics}");
    }
}

#[test]
fn a_real_prometheus_reads_what_went_through() {
    need("prometheus", "prometheus");
    let (folder, target) = (Folder::new(), Server::echo());
    let (pipe, _held) = busy_pipe(&folder, &target);
    let (at, data) = (nobody(), folder.path("data"));
    let config = folder.path("prometheus.yml");
    let [receiver, sender] = [&pipe.receiver, &pipe.sender].map(status_of);
    let scrape = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: spiped\n    \
         static_configs:\n      - targets: ['{receiver}', '{sender}']\n"
    );
    fs::write(&config, scrape).unwrap();
    let arguments = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address={at}"),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let _prometheus = Program::start("prometheus", &arguments, at);
    let holds = |query: &str, expected: &str| {
        let path = format!("/api/v1/query?query={query}");
        wait_until(query, || query_of(at, &path).is_some_and(|body| body.contains(expected)));
    };
    holds("sum(up)", "\"2\"]");
    holds("sum(spiped_sent_bytes_total)", "\"3000\"]");
    holds("sum(spiped_connections_opened_total)", "\"4\"]");
    holds("spiped_handshakes_total%7Bresult=%22not-our-protocol%22%7D", "\"1\"]");
}

/// The body of an answer of Prometheus, in a connection that ends with it.
fn query_of(at: SocketAddr, path: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    let answer = super::ask(at, &request);
    (answer.code == 200).then_some(answer.body)
}
