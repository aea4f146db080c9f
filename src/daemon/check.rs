//! Whether a pipe works: the way of a sender's connection, without a client.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::select;
use tokio::task::yield_now;

use super::connection::close_reason::CloseReason;
use super::connection::handshake_error::NoSession;
use super::connection::sender::connect;
use super::net::connect_error::ConnectError;
use super::net::deadline::Deadline;
use super::net::target::Target;
use super::relay::Tunnel;
use super::relay::abort::abort;
use super::relay::error::RelayError;
use super::runtime::workers::one_thread_runtime;
use crate::config::{Refresh, TunnelConfig};
use crate::protocol::{AbortReason, KeyId, OVERHEAD, Record, SharedKey};
use crate::report::{Report, exit};

/// Connects to a name that has several addresses, beside the first one.
const SPARE: usize = 16;
/// How long the server has to end its side once we have ended ours.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a pipe does not work, and what may help.
#[derive(Debug, Error)]
#[error("{reason}")]
pub(crate) struct Fault {
    /// How far it works.
    pub(crate) kind: FaultKind,
    reason: String,
    hint: &'static str,
}

/// How far a pipe works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The receiver's name does not resolve.
    Unresolved,
    /// Nobody is there, or nobody answers.
    Unreachable,
    /// Something that is no receiver answers.
    NotOurs,
    /// It says nothing to this key: a receiver does not tell a stranger why.
    Refused,
    /// The pipe is fine, the server behind it is not to be had.
    ServerDown,
    /// This host is short of something.
    System,
}

impl Fault {
    fn of(kind: FaultKind, reason: &CloseReason) -> Self {
        let hint = reason.hint().unwrap_or("the receiver's log says more");
        Self { kind, reason: reason.to_string(), hint }
    }

    fn system(error: &io::Error) -> Self {
        let hint = "the system is short of something, its log may say of what";
        Self { kind: FaultKind::System, reason: format!("cannot check the pipe: {error}"), hint }
    }
}

impl Report for Fault {
    fn hint(&self) -> &str {
        self.hint
    }

    fn exit_code(&self) -> u8 {
        match self.kind {
            FaultKind::Refused => exit::NO_USER,
            FaultKind::Unresolved => exit::NO_HOST,
            FaultKind::Unreachable => exit::UNAVAILABLE,
            FaultKind::System => exit::OS,
            FaultKind::ServerDown => exit::TRY_LATER,
            FaultKind::NotOurs => exit::PROTOCOL,
        }
    }
}

/// Connects to a receiver, proves the key, has it connect to its server, and ends
/// that again.
///
/// # Errors
/// What of this was not to be had.
pub(crate) fn check(config: &TunnelConfig, key: &SharedKey) -> Result<(), Fault> {
    let runtime = one_thread_runtime().map_err(|error| Fault::system(&error))?;
    runtime.block_on(async {
        let target = Target::new(config, SPARE).map_err(|error| Fault::system(&error))?;
        let mut tried = None;
        let connected = select! {
            connected = connect(&target, key, config, &mut tried) => connected,
            never = target.keep_resolved(Refresh::Never) => match never {},
        };
        let mut tunnel = connected.map_err(|error| no_session(error, key.id()))?;
        let opened = open(&mut tunnel);
        // The receiver's own time to connect to its server comes first.
        let limit = config.timeout.get().saturating_mul(2);
        match Deadline::after(limit).bound(opened).await {
            Some(result) => result.map_err(not_opened)?,
            None => return Err(silent(limit)),
        }
        end(tunnel).await;
        Ok(())
    })
}

/// Has the receiver connect to its server.
async fn open(Tunnel { stream, session }: &mut Tunnel) -> Result<(), RelayError> {
    stream.write_all(&session.sealer.seal_open()?).await.map_err(RelayError::Tunnel)?;
    // OPENED, or the one byte more of an ABORT.
    let mut record = [0; OVERHEAD + 1];
    let mut got = 0;
    let mut wanted = OVERHEAD;
    while got < wanted {
        let part = &mut record[..wanted];
        if stream.read_full(part, &mut got).await.map_err(RelayError::Tunnel)? < wanted {
            return Err(RelayError::Truncated);
        }
        let seen = &record[..got];
        wanted = session.opener.record_length(seen)?.unwrap_or(wanted).min(record.len());
    }
    match session.opener.open(&mut record[..wanted])? {
        Record::Abort(reason) => Err(RelayError::Aborted(reason)),
        // Nothing else comes first.
        Record::Opened | Record::Ready | Record::Open | Record::Data(_) | Record::End => Ok(()),
    }
}

/// Ends the stream as a client does that has nothing to say. A server that does not
/// end its own soon is left.
async fn end(Tunnel { stream, mut session }: Tunnel) {
    let ended = async {
        stream.write_all(&session.sealer.seal_end().ok()?).await.ok()?;
        let mut ignored = [0; 1 << 12];
        while stream.readable().await.ok()?.read(&mut ignored).ok()? != Some(0) {
            yield_now().await;
        }
        Some(())
    };
    if Deadline::after(FAREWELL).bound(ended).await.is_none() {
        abort(stream, session.sealer.seal_abort(AbortReason::LocalPeerReset).ok()).await;
    }
}

fn no_session(error: NoSession, key: KeyId) -> Fault {
    let kind = match &error {
        NoSession::Connect(ConnectError::Unresolved(..)) => FaultKind::Unresolved,
        NoSession::Closed(0) => FaultKind::Refused,
        NoSession::Failed(error) if is_reset(error) => FaultKind::Refused,
        NoSession::Connect(_) | NoSession::TimedOut(_) | NoSession::Failed(_) => {
            FaultKind::Unreachable
        }
        NoSession::Closed(_) | NoSession::NotOurs(_) | NoSession::Refused(_) | NoSession::Loop => {
            FaultKind::NotOurs
        }
    };
    let fault = Fault::of(kind, &error.into());
    if kind == FaultKind::Refused {
        let reason = format!("the receiver does not have the key {key}, or is at its limit");
        return Fault { reason, ..fault };
    }
    fault
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// What came instead of OPENED.
fn not_opened(error: RelayError) -> Fault {
    let RelayError::Aborted(reason) = error else {
        return Fault::of(FaultKind::Unreachable, &error.into());
    };
    let fault = Fault::of(FaultKind::ServerDown, &error.into());
    Fault { reason: format!("the pipe works, but {reason}"), ..fault }
}

fn silent(limit: Duration) -> Fault {
    Fault {
        kind: FaultKind::ServerDown,
        reason: format!("the pipe works, but no server behind it has answered in {limit:?}"),
        hint: "the receiver's log says where it connects to",
    }
}
