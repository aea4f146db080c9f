//! Tests of the names and hints of errors.

use super::*;
use crate::protocol::{OpenError, SealError};

/// Operators search logs for these names.
#[test]
fn the_names_of_reasons_stay_as_they_are() {
    let aborted = [
        (AbortReason::TargetRefused, "aborted-target-refused"),
        (AbortReason::TargetTimedOut, "aborted-target-timeout"),
        (AbortReason::TargetUnreachable, "aborted-target-unreachable"),
        (AbortReason::ConnectionLimit, "aborted-connection-limit"),
        (AbortReason::LocalPeerReset, "aborted-peer-reset"),
        (AbortReason::ShuttingDown, "aborted-shutting-down"),
        (AbortReason::KeyReplaced, "aborted-key-replaced"),
        (AbortReason::Other(200), "aborted-other"),
    ];
    for (reason, name) in aborted {
        assert_eq!(RelayError::Aborted(reason).reason(), name);
    }
    let broken = || io::ErrorKind::BrokenPipe.into();
    let failed = [
        (RelayError::Truncated, "truncated"),
        (RelayError::Unconfirmed, "unconfirmed"),
        (RelayError::Tunnel(broken()), "tunnel-failed"),
        (RelayError::Record(OpenError::Violation), "wrong-record"),
        (RelayError::Seal(SealError::Size), "records-exhausted"),
        (RelayError::Local(broken()), "peer-reset"),
        (RelayError::ShuttingDown, "shutting-down"),
    ];
    for (error, name) in failed {
        assert_eq!(error.reason(), name);
    }
}

#[test]
fn a_hint_names_the_option_that_helps() {
    let options = [
        (AbortReason::TargetRefused, "-t"),
        (AbortReason::TargetUnreachable, "-b"),
        (AbortReason::ConnectionLimit, "-n"),
    ];
    for (reason, option) in options {
        let hint = RelayError::Aborted(reason).hint().unwrap();
        assert!(hint.contains(option), "{hint}");
    }
}
