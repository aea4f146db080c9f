//! Close reasons: why a connection ended, with its log line, its hint, and what the other
//! end is told.

use std::io;

use thiserror::Error;
use tracing::Level;

use super::handshake_error::{NoSession, PreAuthError};
use super::not_allowed::NotAllowed;
use crate::daemon::net::connect_error::ConnectError;
use crate::daemon::net::loops::LOOP;
use crate::daemon::net::{NO_ROOM, is_shortage};
use crate::daemon::relay::error::{CUT, RelayError};
use crate::protocol::{AbortReason, OpenError};

/// Why a connection ended.
#[derive(Debug, Error)]
pub(crate) enum CloseReason {
    /// Both directions ended cleanly.
    #[error("closed")]
    Finished,
    /// The client may not use the sender.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The peer of a receiver did not prove the key.
    #[error(transparent)]
    PreAuth(#[from] PreAuthError),
    /// The sender got no session with its receiver.
    #[error(transparent)]
    NoSession(#[from] NoSession),
    /// The receiver could not reach its target.
    #[error(transparent)]
    Target(#[from] ConnectError),
    /// The connection limit is reached.
    #[error("the connection limit of {0} is reached")]
    Limit(usize),
    /// The connection's key has as many as it may have.
    #[error("the connection limit of {0} for this key is reached")]
    KeyLimit(u32),
    /// The key that the peer of a receiver has proved is no longer in force.
    #[error("the key was replaced before the target was connected to")]
    KeyReplaced,
    /// A session was to be a carrier, and this receiver has no further one.
    #[error("no carrier for this session: each connection gets a session of its own")]
    NoCarrier,
    /// A session was for a stream that does not take it.
    #[error("no stream of a carrier takes this session")]
    NotJoined,
    /// A ready session was never used.
    #[error(transparent)]
    Unused(#[from] Unused),
    /// The relay failed.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The system lacks resources for a connection that was accepted.
    #[error("the system has no room for a further connection: {0}")]
    NoRoom(io::Error),
    /// This process has connected to itself.
    #[error("a loop: the target leads back to the source")]
    Loop,
}

/// Why a ready session was never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Unused {
    #[error("closed unused by the other end")]
    Closed,
    #[error("closed unused: the key has been replaced")]
    KeyReplaced,
    #[error("closed unused: the key was revoked")]
    KeyRevoked,
    #[error("closed unused: shutting down")]
    ShuttingDown,
}

impl CloseReason {
    /// The reason why an accepted socket cannot be served.
    pub(crate) fn of_accepted(error: io::Error) -> Self {
        if is_shortage(&error) { Self::NoRoom(error) } else { RelayError::Local(error).into() }
    }

    /// The name after `reason=` in the log. It never changes, though the message may.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::NotAllowed(_) => "not-allowed",
            Self::PreAuth(error) => error.reason(),
            Self::NoSession(error) => error.reason(),
            Self::Target(error) => match error {
                ConnectError::Unresolved(..) => "target-unresolved",
                ConnectError::Refused => "target-refused",
                ConnectError::Reset => "target-reset",
                ConnectError::TimedOut(_) => "target-timeout",
                ConnectError::Unreachable(_) => "target-unreachable",
                ConnectError::Bind(..) => "bind-failed",
                ConnectError::NoRoom(_) => "target-no-room",
            },
            Self::Limit(_) => "connection-limit",
            Self::KeyLimit(_) => "key-connection-limit",
            Self::KeyReplaced => "key-replaced",
            Self::NoCarrier => "no-carrier",
            Self::NotJoined => "not-joined",
            Self::Unused(Unused::Closed) => "unused-closed",
            Self::Unused(Unused::KeyReplaced) => "unused-key-replaced",
            Self::Unused(Unused::KeyRevoked) => "unused-key-revoked",
            Self::Unused(Unused::ShuttingDown) => "unused-shutting-down",
            Self::Relay(error) => error.reason(),
            Self::NoRoom(_) => "no-room",
            Self::Loop => "loop",
        }
    }

    /// The user and the process of a client that may not use the sender.
    pub(crate) const fn who(&self) -> (Option<u32>, Option<u32>) {
        if let Self::NotAllowed(error) = self { error.who() } else { (None, None) }
    }

    /// Whether both directions ended cleanly.
    pub(crate) const fn is_clean(&self) -> bool {
        matches!(self, Self::Finished)
    }

    /// Whether the operator should look into it.
    pub(crate) fn is_failure(&self) -> bool {
        self.level() <= Level::WARN
    }

    /// The level of the log line.
    pub(crate) const fn level(&self) -> Level {
        match self {
            // Any number of strangers cause these, and they need nobody's attention.
            Self::PreAuth(PreAuthError::Probe | PreAuthError::ShuttingDown)
            | Self::NoCarrier
            | Self::NotJoined
            | Self::Unused(_) => Level::DEBUG,
            Self::Finished | Self::KeyReplaced | Self::PreAuth(PreAuthError::Withdrawn) => {
                Level::INFO
            }
            Self::Relay(error) => error.level(),
            Self::NotAllowed(_)
            | Self::PreAuth(_)
            | Self::NoSession(_)
            | Self::Target(_)
            | Self::Loop
            | Self::Limit(_)
            | Self::KeyLimit(_)
            | Self::NoRoom(_) => Level::WARN,
        }
    }

    /// What may help the operator.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotAllowed(error) => Some(error.hint()),
            Self::PreAuth(error) => error.hint(),
            Self::NoSession(error) => Some(error.hint()),
            Self::Target(error) => Some(error.hint()),
            Self::Relay(error) => error.hint(),
            Self::Limit(_) => Some("raise -n or the limit of file descriptors"),
            Self::KeyLimit(_) => Some("raise --per-key, or CONNECTIONS= of this key"),
            Self::NoRoom(_) => Some(NO_ROOM),
            Self::Unused(Unused::Closed) => Some(CUT),
            Self::Loop => Some(LOOP),
            Self::Finished
            | Self::NoCarrier
            | Self::NotJoined
            | Self::KeyReplaced
            | Self::Unused(Unused::KeyReplaced | Unused::KeyRevoked | Unused::ShuttingDown) => None,
        }
    }

    /// The reason that an ABORT tells the other end, where there is a session.
    pub(crate) const fn abort_reason(&self) -> Option<AbortReason> {
        match self {
            Self::Target(error) => Some(error.abort_reason()),
            Self::Relay(error) => error.abort_reason(),
            Self::PreAuth(PreAuthError::Record(OpenError::NotUnderstood)) => {
                Some(AbortReason::NotUnderstood)
            }
            Self::Limit(_) | Self::KeyLimit(_) => Some(AbortReason::ConnectionLimit),
            Self::NoCarrier | Self::NotJoined => Some(AbortReason::NotAvailable),
            Self::Unused(Unused::ShuttingDown) => Some(AbortReason::ShuttingDown),
            Self::KeyReplaced | Self::Unused(Unused::KeyReplaced) => Some(AbortReason::KeyReplaced),
            Self::Unused(Unused::KeyRevoked) => Some(AbortReason::KeyRevoked),
            Self::Finished
            | Self::NotAllowed(_)
            | Self::PreAuth(_)
            | Self::NoSession(_)
            | Self::NoRoom(_)
            | Self::Loop
            | Self::Unused(Unused::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::libc::{
        EACCES, EADDRNOTAVAIL, EAFNOSUPPORT, ECONNREFUSED, EHOSTUNREACH, EMFILE, ENOENT, ENOMEM,
        ENOSPC, ENOTCONN,
    };

    use super::*;

    /// A lack of room in epoll (`fs.epoll.max_user_watches`) is not a peer's fault.
    #[test]
    fn a_system_without_room_is_told_apart_from_peers() {
        let error = io::Error::from_raw_os_error;
        for shortage in [ENOSPC, ENOMEM, EMFILE] {
            let accepted = CloseReason::of_accepted(error(shortage));
            assert!(matches!(accepted, CloseReason::NoRoom(_)), "{accepted}");
            assert_eq!((accepted.level(), accepted.hint()), (Level::WARN, Some(NO_ROOM)));
            let connected = CloseReason::Target(error(shortage).into());
            assert!(connected.to_string().contains("no room"), "{connected}");
            assert_eq!(connected.hint(), Some(NO_ROOM));
        }
        assert!(matches!(
            CloseReason::of_accepted(error(ENOTCONN)),
            CloseReason::Relay(RelayError::Local(_))
        ));
    }

    #[test]
    fn what_cannot_be_reached_has_the_hint_of_its_cause() {
        let hint = |number| {
            let error = || ConnectError::from(io::Error::from_raw_os_error(number));
            let sender = NoSession::Connect(error()).hint();
            (sender == error().hint()).then_some(sender)
        };
        let cases = [
            (EADDRNOTAVAIL, "no local port is free"),
            (EAFNOSUPPORT, "has no IPv6"),
            (ENOENT, "nothing is at the path"),
            (EACCES, "this user is not allowed"),
            (EHOSTUNREACH, "the route and the firewall"),
        ];
        for (number, part) in cases {
            assert!(hint(number).is_some_and(|hint| hint.contains(part)), "{number}");
        }
        // At the sender, a refused connect has the hint that the receiver is down.
        assert_eq!(hint(ECONNREFUSED), None);
    }
}
