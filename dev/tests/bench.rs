//! `scripts/bench`: its program measures, writes its results for others, and leaves
//! nothing behind. The figures of such a short run mean nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends that way")]
#![allow(clippy::indexing_slicing, reason = "a test ends that way")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The program that `scripts/bench` runs.
const BENCH: &str = env!("CARGO_BIN_EXE_bench");

#[test]
fn each_figure_is_measured_and_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let found = run(&folder, &["--rounds", "1", "--connections", "10", "--held", "30"]);
    let figures = found["figures"].as_array().unwrap();
    let of = |peer: &str| figures.iter().filter(|figure| figure["peer"] == peer).count();
    // Four figures are for ours alone; without a tunnel there is no process to measure.
    assert_eq!((of("ours"), of("haproxy"), of("direct")), (48, 44, 32), "{figures:?}");
    // The targets against haproxy and against ours itself, and the two bounds.
    let targets = found["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 19, "{targets:?}");

    let chart = fs::read_to_string(folder.path().join("output/chart.svg")).unwrap();
    well_formed(&chart);
    assert!(chart.contains(">haproxy, plaintext</text>"), "{chart}");
}

/// README, its chart and the page with all figures agree with the published run.
#[test]
fn the_published_figures_are_those_of_the_published_run() {
    let folder = tempfile::tempdir().unwrap();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("figures");
    let output = folder.path().join("output");
    let mut report = Command::new(BENCH);
    report.arg("--from").arg(published.join("bench.json")).arg("--output").arg(&output);
    let ran = report.output().unwrap();
    assert!(ran.status.success(), "{ran:?}");

    let read = |path: &Path| fs::read_to_string(path).unwrap();
    for name in ["table.md", "chart.svg", "all.svg", "bench.json"] {
        let is_same = read(&output.join(name)) == read(&published.join(name));
        assert!(is_same, "{name}: scripts/bench --publish --from dev/figures/bench.json");
    }
    let readme = read(&published.join("../../README.md"));
    let part = read(&output.join("readme.md"));
    assert!(readme.contains(&format!(" -->\n\n{part}\n<!-- ")), "README has not:\n{part}");

    // Publishing again replaces an old part, and README is unchanged.
    let again = folder.path().join("again");
    fs::create_dir(&again).unwrap();
    let old = readme.replace(&part, "an old part\n");
    assert_ne!(old, readme);
    fs::write(again.join("README.md"), old).unwrap();
    let mut publish = Command::new(BENCH);
    publish.arg("--publish").arg("--from").arg(published.join("bench.json"));
    let ran = publish.current_dir(&again).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(read(&again.join("README.md")), readme);

    // There is one line for each peer: its name, and three figures.
    let found: Value = serde_json::from_str(&read(&published.join("bench.json"))).unwrap();
    let peers = found["peers"].as_array().unwrap();
    let rows: Vec<_> = part.lines().filter(|line| line.starts_with("| ")).collect();
    assert_eq!(rows.len(), peers.len() + 1, "{part}");
    assert!(rows.iter().all(|row| row.matches('|').count() == 5), "{part}");
    // All files use the same names.
    for title in peers.iter().map(|peer| peer["title"].as_str().unwrap()) {
        for name in ["table.md", "chart.svg", "all.svg", "readme.md"] {
            assert!(read(&output.join(name)).contains(title), "{title} in {name}");
        }
    }
    // A figure that is better than the one without a tunnel has an explanation beside it.
    let polls = peers.iter().any(|peer| peer["options"] == "--busy-poll");
    assert_eq!(part.contains("stays awake"), polls, "{part}");
    for name in ["chart.svg", "all.svg"] {
        well_formed(&read(&output.join(name)));
    }
    assert_eq!(
        read(&output.join("chart.svg")).matches("font-weight=\"bold\" fill=\"#2").count(),
        3
    );
}

#[test]
fn the_median_of_the_ratios_of_all_rounds_counts() {
    let found = run(&tempfile::tempdir().unwrap(), &["--rounds", "3", "--only", "bulk"]);
    let figures = found["figures"].as_array().unwrap();
    for figure in figures {
        let mut rounds = numbers(&figure["rounds"]);
        rounds.sort_by(f64::total_cmp);
        let told = ["min", "median", "max"].map(|name| figure[name].as_f64().unwrap());
        assert_eq!(told.to_vec(), rounds, "{figure}");
    }
    let rounds = |peer: &str| {
        let is_it = |figure: &&Value| figure["peer"] == peer && figure["figure"] == "bulk-1/cpu";
        numbers(&figures.iter().find(is_it).unwrap()["rounds"])
    };
    let both = rounds("ours").into_iter().zip(rounds("haproxy"));
    let mut ratios: Vec<f64> = both.map(|(ours, theirs)| ours / theirs).collect();
    ratios.sort_by(f64::total_cmp);
    let target = &found["targets"][0];
    assert_eq!(target["wanted"], "at most 0.85 of haproxy");
    assert!((target["found"].as_f64().unwrap() - ratios[1]).abs() < 1e-9, "{target} {ratios:?}");
    assert_eq!(target["met"], ratios[1] <= 0.85);
}

/// The option comes after -e, because a receiver would refuse it.
#[test]
fn a_build_is_given_options_for_its_sender_alone() {
    let build = format!("ready={} --pad 64 -e --prewarm 2", spiped().display());
    let options = ["--rounds", "1", "--only", "short", "--peers", "ready", "--ours", &build];
    let found = run(&tempfile::tempdir().unwrap(), &options);
    let figures = found["figures"].as_array().unwrap();
    assert!(figures.iter().any(|figure| figure["peer"] == "ready"), "{figures:?}");
}

/// The output folder of a run with these options, whose tables were printed, too.
fn run(folder: &TempDir, options: &[&str]) -> Value {
    let output = folder.path().join("output");
    let mut command = bench(folder);
    command.args(["--seconds", "0.1", "--output"]).arg(&output).args(options);
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let printed = String::from_utf8(ran.stdout).unwrap();
    assert!(printed.contains(&fs::read_to_string(output.join("table.md")).unwrap()), "{printed}");
    serde_json::from_str(&fs::read_to_string(output.join("bench.json")).unwrap()).unwrap()
}

fn numbers(array: &Value) -> Vec<f64> {
    array.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn a_run_that_is_told_to_end_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["INT", "TERM"] {
        let mut command = bench(&folder);
        command.args(["--only", "bulk", "--seconds", "600"]);
        let mut run = Run(command.stderr(Stdio::null()).spawn().unwrap());
        let mut children = vec![];
        // Redis, and the two ends of a pipe.
        wait_until("a tunnel is up", || {
            children = children_of(run.0.id());
            children.len() == 3
        });
        let id = run.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
        assert_eq!(run.0.wait().unwrap().code(), Some(130));
        wait_until("its processes are gone", || {
            !children.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists())
        });
        let left: Vec<_> = fs::read_dir(folder.path().join("temporary")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A run, ended when dropped.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

fn children_of(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    fs::read_to_string(path).unwrap().split_whitespace().map(str::to_owned).collect()
}

/// A run of ours beside two others.
fn bench(folder: &TempDir) -> Command {
    for (program, package) in [
        ("redis-server", "redis-server"),
        ("redis-benchmark", "redis-tools"),
        ("openssl", "openssl"),
        ("ssh-keygen", "openssh-client"),
        ("haproxy", "haproxy"),
    ] {
        need(program, package);
    }
    let temporary = folder.path().join("temporary");
    let _exists = fs::create_dir(&temporary);
    let mut command = Command::new(BENCH);
    command.arg("--ours").arg(spiped()).args(["--peers", "ours,haproxy,direct"]);
    command.env("TMPDIR", temporary).stdin(Stdio::null()).stdout(Stdio::piped());
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// The program that is measured, built beside this test.
fn spiped() -> PathBuf {
    let program = Path::new(BENCH).with_file_name("spiped");
    assert!(program.exists(), "build it first, as cargo nextest run --workspace does");
    program
}

/// Fails with the name of the package to install if a program is missing.
fn need(program: &str, package: &str) {
    let search = format!("PATH=$PATH:/usr/sbin:/sbin; command -v {program}");
    let found = Command::new("sh").args(["-c", &search]).output().unwrap().status.success();
    assert!(found, "{program} is missing, the test needs it: apt-get install {package}");
}

/// Waits until `condition` holds.
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Every element that begins also ends, in order; there is no stray character of markup.
fn well_formed(xml: &str) {
    let mut open = vec![];
    for piece in xml.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("a tag ends");
        assert!(
            !text.contains('>') && !text.replace("&amp;", "").replace("&lt;", "").contains('&')
        );
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else {
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap());
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
}
