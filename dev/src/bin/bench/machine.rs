//! The machine and the day of a run.

use std::fs;
use std::process::Command;
use std::thread;

use nix::sys::utsname::uname;
use serde_json::{Value, json};

use crate::measure::Load;

/// The facts that a reader of the figures needs.
pub fn facts(load: &Load, rounds: usize) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let date = Command::new("date").args(["-u", "+%F"]).output().map(|said| said.stdout);
    let kernel = uname().map(|name| name.release().to_string_lossy().into_owned());
    json!({
        "date": String::from_utf8_lossy(&date.unwrap_or_default()).trim(),
        "cpu": model.map_or("unknown", |(_, model)| model),
        "cores": thread::available_parallelism().map_or(1, usize::from),
        "kernel": kernel.unwrap_or_default(),
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "rounds": rounds,
        "seconds": load.time.as_secs_f64(),
        "connections": load.connections,
        "held": load.held,
    })
}
