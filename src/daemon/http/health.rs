//! Whether the process is alive, and whether it is ready: `/livez` and `/readyz`, as
//! Kubernetes asks for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::daemon::connection::context::Context;
use crate::daemon::net::deadline::Deadline;
use crate::daemon::runtime::workers::Probe;

/// How long a thread may take to answer. A client waits as long at most.
const STUCK: Duration = Duration::from_secs(5);

/// One of the things that must be so, and what is wrong where it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    name: &'static str,
    failed: Option<String>,
}

impl Check {
    fn of(name: &'static str, failed: Option<&str>) -> Self {
        Self { name, failed: failed.map(str::to_owned) }
    }
}

/// Which checks are told where all have passed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verbosity {
    None,
    All,
}

/// The checks of a request, and its answer's body.
pub(super) struct Report {
    pub(super) has_passed: bool,
    pub(super) text: String,
}

impl Report {
    /// Tells each check where one has failed, or where all are asked for.
    pub(super) fn of(name: &str, checks: &[Check], verbosity: Verbosity) -> Self {
        let has_passed = checks.iter().all(|check| check.failed.is_none());
        if has_passed && verbosity == Verbosity::None {
            return Self { has_passed, text: "ok\n".to_owned() };
        }
        let line = |Check { name, failed }: &Check| match failed {
            None => format!("[+]{name} ok\n"),
            Some(why) => format!("[-]{name} failed: {}\n", why.replace(['\n', '\r'], " ")),
        };
        let lines: Vec<_> = checks.iter().map(line).collect();
        let end = if has_passed { "passed" } else { "failed" };
        Self { has_passed, text: format!("{}{name} check {end}\n", lines.concat()) }
    }
}

/// Whether all threads that serve connections answer, as the watchdog of systemd asks them.
pub(super) async fn threads(workers: Probe) -> Check {
    let answered = Deadline::after(STUCK).bound(workers.all_answer()).await;
    Check::of("threads", answered.is_none().then_some("a thread is stuck"))
}

/// Whether new connections are served.
pub(super) fn ready(context: &Context) -> Vec<Check> {
    let is_deaf = context.observer.listening().is_empty();
    let has_no_key = context.keys.in_force().first().is_none();
    let drains = context.drain.has_begun();
    vec![
        Check::of("listening", is_deaf.then_some("new connections are not accepted")),
        Check::of("keys", has_no_key.then_some("no key is in force")),
        Check::of("not-draining", drains.then_some("open connections are being ended")),
    ]
}

/// Whether the target answers. Over TCP, its server sees no connection.
pub(super) async fn target(context: Arc<Context>) -> Check {
    let began = Instant::now();
    let answered = context.target.ask(None, &mut None).await.map_err(|error| error.to_string());
    context.observer.target_tried(answered.clone(), began.elapsed());
    Check { name: "target", failed: answered.err() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_failed_is_told_and_what_has_not_where_it_is_asked_for() {
        let good = Check::of("keys", None);
        let bad = Check::of("listening", Some("not\nyet"));
        let text = |checks: &[Check], verbosity| {
            let Report { has_passed, text } = Report::of("readyz", checks, verbosity);
            (has_passed, text)
        };
        let one = [good.clone()];
        assert_eq!(text(&one, Verbosity::None), (true, "ok\n".into()));
        assert_eq!(text(&one, Verbosity::All), (true, "[+]keys ok\nreadyz check passed\n".into()));
        let told = "[-]listening failed: not yet\n[+]keys ok\nreadyz check failed\n";
        assert_eq!(text(&[bad, good], Verbosity::None), (false, told.into()));
    }
}
