//! The figures, and their names.

/// A figure that is measured.
pub struct Figure {
    /// The name in JSON and `--only`: measure/unit.
    pub id: &'static str,
    /// The load that was measured.
    pub what: &'static str,
    pub unit: &'static str,
    pub better: Better,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

use Better::{Higher, Lower};

const CPU_PER_GB: &str = "CPU s/GB";
const SPEED: &str = "MB/s";
const CPU_PER_REQUESTS: &str = "CPU s/100k requests";
const REQUESTS: &str = "requests/s";
const MICROSECONDS: &str = "µs";
const MILLISECONDS: &str = "ms";
const MEMORY: &str = "KiB each";

const fn figure(
    id: &'static str,
    what: &'static str,
    unit: &'static str,
    better: Better,
) -> Figure {
    Figure { id, what, unit, better }
}

/// All figures, in the order of the page.
pub const FIGURES: &[Figure] = &[
    figure("bulk-1/cpu", "bulk, 1 connection", CPU_PER_GB, Lower),
    figure("bulk-1/speed", "bulk, 1 connection", SPEED, Higher),
    figure("bulk-4/cpu", "bulk, 4 connections", CPU_PER_GB, Lower),
    figure("bulk-4/speed", "bulk, 4 connections", SPEED, Higher),
    figure("both-ways/cpu", "bulk, both ways at once", CPU_PER_GB, Lower),
    figure("both-ways/speed", "bulk, both ways at once", SPEED, Higher),
    figure("ping/p50", "64 bytes there and back, p50", MICROSECONDS, Lower),
    figure("ping/p99", "64 bytes there and back, p99", MICROSECONDS, Lower),
    figure("busy-0/p50", "64 bytes there and back beside nobody, p50", MICROSECONDS, Lower),
    figure("busy-0/p90", "64 bytes there and back beside nobody, p90", MICROSECONDS, Lower),
    figure("busy-0/p99", "64 bytes there and back beside nobody, p99", MICROSECONDS, Lower),
    figure("busy-0/p99.9", "64 bytes there and back beside nobody, p99.9", MICROSECONDS, Lower),
    figure("busy-1/p50", "64 bytes there and back beside one busy loop, p50", MICROSECONDS, Lower),
    figure("busy-1/p90", "64 bytes there and back beside one busy loop, p90", MICROSECONDS, Lower),
    figure("busy-1/p99", "64 bytes there and back beside one busy loop, p99", MICROSECONDS, Lower),
    figure(
        "busy-1/p99.9",
        "64 bytes there and back beside one busy loop, p99.9",
        MICROSECONDS,
        Lower,
    ),
    figure("busy-2/p50", "64 bytes there and back beside two busy loops, p50", MICROSECONDS, Lower),
    figure("busy-2/p90", "64 bytes there and back beside two busy loops, p90", MICROSECONDS, Lower),
    figure("busy-2/p99", "64 bytes there and back beside two busy loops, p99", MICROSECONDS, Lower),
    figure(
        "busy-2/p99.9",
        "64 bytes there and back beside two busy loops, p99.9",
        MICROSECONDS,
        Lower,
    ),
    figure(
        "busy-4/p50",
        "64 bytes there and back beside four busy loops, p50",
        MICROSECONDS,
        Lower,
    ),
    figure(
        "busy-4/p90",
        "64 bytes there and back beside four busy loops, p90",
        MICROSECONDS,
        Lower,
    ),
    figure(
        "busy-4/p99",
        "64 bytes there and back beside four busy loops, p99",
        MICROSECONDS,
        Lower,
    ),
    figure(
        "busy-4/p99.9",
        "64 bytes there and back beside four busy loops, p99.9",
        MICROSECONDS,
        Lower,
    ),
    figure("sparse/cpu", "64 bytes each 5 ms", "CPU µs each", Lower),
    figure("sparse/p50", "64 bytes each 5 ms, p50", MICROSECONDS, Lower),
    figure("redis/cpu", "Redis -c 50 -P 1", CPU_PER_REQUESTS, Lower),
    figure("redis/speed", "Redis -c 50 -P 1", REQUESTS, Higher),
    figure("redis-p16/cpu", "Redis -c 50 -P 16", CPU_PER_REQUESTS, Lower),
    figure("redis-p16/speed", "Redis -c 50 -P 16", REQUESTS, Higher),
    figure("redis-4k/cpu", "Redis -c 50 -d 4096", CPU_PER_REQUESTS, Lower),
    figure("redis-4k/speed", "Redis -c 50 -d 4096", REQUESTS, Higher),
    figure("short/cpu", "short connections, 32 at once", "CPU ms each", Lower),
    figure("short/p50", "short connections, p50 to first byte", MILLISECONDS, Lower),
    figure("short/p99", "short connections, p99 to first byte", MILLISECONDS, Lower),
    figure("idle/memory", "idle connections", MEMORY, Lower),
    figure("held/count", "idle connections held", "connections", Higher),
    figure("held/memory", "idle connections held", MEMORY, Lower),
    figure("many/cpu", "bulk, many connections", CPU_PER_GB, Lower),
    figure("crowd/ping-p50", "64 bytes there and back beside bulk, p50", MILLISECONDS, Lower),
    figure("crowd/ping-p99", "64 bytes there and back beside bulk, p99", MILLISECONDS, Lower),
    figure("crowd/new-p50", "new connection beside bulk, p50 to first byte", MILLISECONDS, Lower),
    figure("crowd/new-p99", "new connection beside bulk, p99 to first byte", MILLISECONDS, Lower),
    figure("crowd/cpu", "bulk, 300 connections on a thread", CPU_PER_GB, Lower),
    figure("redis-many/cpu", "Redis, many clients", CPU_PER_REQUESTS, Lower),
    figure("redis-many/speed", "Redis, many clients", REQUESTS, Higher),
    figure("threads-1/speed", "bulk, 4 connections, --threads 1", SPEED, Higher),
    figure("threads-2/speed", "bulk, 4 connections, --threads 2", SPEED, Higher),
];

/// The figures that README shows.
const README: &[&str] = &["bulk-1/cpu", "redis/cpu", "ping/p50"];

/// The figures in the table with one line for each peer, and in the large chart.
const MAIN: &[&str] = &[
    "bulk-1/cpu",
    "bulk-1/speed",
    "ping/p50",
    "ping/p99",
    "redis/cpu",
    "redis/speed",
    "redis-p16/cpu",
    "redis-p16/speed",
    "short/cpu",
    "short/p99",
    "idle/memory",
    "many/cpu",
];

impl Figure {
    /// The load and the unit.
    pub fn title(&self) -> String {
        format!("{}: {}", self.what, self.unit)
    }
}

/// The figures of README.
pub fn of_readme() -> impl Iterator<Item = &'static Figure> {
    README.iter().filter_map(|id| FIGURES.iter().find(|figure| figure.id == *id))
}

/// The main figures.
pub fn main() -> impl Iterator<Item = &'static Figure> {
    FIGURES.iter().filter(|figure| MAIN.contains(&figure.id))
}
