//! How connections ended last, for the status line: one that was served, and one
//! that failed.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::daemon::connection::close_reason::CloseReason;
use crate::daemon::net::stream::Peer;
use crate::config::as_given;

/// The last of both.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    served: Option<String>,
    /// When, who and why.
    failed: Option<String>,
}

impl Outcomes {
    /// Notes how a connection has ended, of which so many bytes came back.
    pub(crate) fn note(&self, peer: &Peer, close: &CloseReason, received: u64) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if close.is_failure() {
            last.failed = Some(format!("{}: {peer}: {}", now(), as_given(&close.to_string())));
        } else if close.is_clean() || received > 0 {
            last.served = Some(now());
        }
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = &last.served {
            write!(f, "; last served {served}")?;
        }
        last.failed.as_ref().map_or(Ok(()), |failed| write!(f, "; last failed {failed}"))
    }
}

/// The time in UTC, to the second: 2026-11-27T12:03:04Z.
fn now() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _written = SystemTime.format_time(&mut Writer::new(&mut text));
    let seconds = text.split('.').next().unwrap_or_default();
    format!("{}Z", seconds.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::connection::close_reason::PreAuthError;

    #[test]
    fn the_last_of_both_is_told_with_its_time() {
        let outcomes = Outcomes::default();
        let peer = Peer::Inet("192.0.2.7:1".parse().unwrap());
        outcomes.note(&peer, &CloseReason::ShuttingDown, 0);
        outcomes.note(&peer, &PreAuthError::Probe.into(), 0);
        assert_eq!(outcomes.to_string(), "");
        outcomes.note(&peer, &CloseReason::Finished, 0);
        outcomes.note(&peer, &PreAuthError::Replayed.into(), 0);
        outcomes.note(&peer, &CloseReason::Limit(1), 0);
        let told = outcomes.to_string();
        let digits: String =
            told.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
        assert_eq!(
            digits,
            "; last served 0000-00-00T00:00:00Z; last failed 0000-00-00T00:00:00Z: \
             000.0.0.0:0: the connection limit of 0 is reached",
            "{told}"
        );
    }
}
