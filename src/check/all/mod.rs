//! `spiped check --all`: what an auditor asks of a host, of each pipe that runs there.
//!
//! ```text
//! Asked (what each process tells) ─▶ gather ─▶ facts ─▶ findings ─▶ text, or JSON
//!                                      │ tries plaintext, proves senders,
//!                                      │ looks at sockets and key files
//! ```

mod believed;
pub(crate) mod facts;
pub(crate) mod findings;
mod gather;
mod keys;
mod sockets;
mod target;
#[cfg(test)]
mod tests;
mod text;

use std::fs;

use serde::Serialize;

use self::facts::{Pipe, Seen, Told};
use self::findings::{Finding, judge, judge_idle};
use self::gather::Systemd;
use crate::config::AllConfig;
use crate::report::exit;
use crate::setup::SeenUnit;
use crate::status::{Asked, UnixTime, ascii, utc_now};

/// The version of the JSON. A later one may have more fields, and keeps these.
const VERSION: u32 = 1;
/// The exit code where something was found, as where plaintext is served.
const FOUND: u8 = 1;

/// What was seen on this host, and what is not as it must be.
#[derive(Debug, Serialize)]
pub(crate) struct HostReport {
    version: u32,
    exit: u8,
    host: String,
    /// In UTC.
    date: String,
    now: UnixTime,
    /// The version of the program.
    spiped: &'static str,
    key_age_days: u64,
    /// What this user cannot see.
    not_seen: Vec<String>,
    pipes: Vec<Judged>,
    findings: usize,
    not_asked: usize,
}

/// A process of a pipe.
#[derive(Debug, Serialize)]
struct Judged {
    #[serde(flatten)]
    pipe: Pipe,
    findings: Vec<Finding>,
    /// Those that the operator accepts, which do not count.
    accepted: Vec<Finding>,
}

impl HostReport {
    /// Looks at each process that was asked, and at the units that systemd has loaded, and
    /// judges them. `not_seen` is why there are no units.
    pub(crate) fn of(
        asked: &[Asked],
        units: &[SeenUnit],
        not_seen: Option<String>,
        config: &AllConfig,
    ) -> Self {
        let systemd = if not_seen.is_some() { Systemd::Silent } else { Systemd::Answers };
        let mut seen = gather::gather(asked, units, systemd, config.timeout);
        seen.not_seen.extend(not_seen);
        Self::judged(seen, config, UnixTime::now())
    }

    fn judged(Seen { pipes, not_seen }: Seen, config: &AllConfig, now: UnixTime) -> Self {
        let key_age_days = config.key_age_days;
        let is_accepted = |finding: &Finding| {
            let name = finding.kind.to_string();
            config.accept.contains(&name)
        };
        let judged = |pipe: Pipe| {
            let all = match &pipe.told {
                Told::Facts(facts) => judge(facts, key_age_days, now),
                Told::Idle(idle) => judge_idle(idle),
                Told::Failed { .. } => vec![],
            };
            let (accepted, findings) = all.into_iter().partition(is_accepted);
            Judged { pipe, findings, accepted }
        };
        let pipes: Vec<_> = pipes.into_iter().map(judged).collect();
        let findings = pipes.iter().map(|it| it.findings.len()).sum();
        let is_failed = |it: &&Judged| matches!(it.pipe.told, Told::Failed { .. });
        let not_asked = pipes.iter().filter(is_failed).count();
        let exit = match findings {
            // What was not seen may be anything.
            _ if not_asked > 0 || !not_seen.is_empty() => exit::UNAVAILABLE,
            0 => 0,
            _ => FOUND,
        };
        Self {
            version: VERSION,
            exit,
            host: host_name(),
            date: utc_now(),
            now,
            spiped: env!("CARGO_PKG_VERSION"),
            key_age_days,
            not_seen,
            pipes,
            findings,
            not_asked,
        }
    }

    /// 0, or 1 where something was found, or 69 where not all pipes could be asked.
    pub(crate) const fn exit_code(&self) -> u8 {
        self.exit
    }

    /// One document of one line, in ASCII.
    pub(crate) fn json(&self) -> String {
        match serde_json::to_string(self) {
            Ok(json) => format!("{}\n", ascii(&json)),
            Err(error) => unreachable!("numbers, texts and lists have a form: {error}"),
        }
    }
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "unknown".to_owned(), |name| name.trim_end().to_owned())
}
