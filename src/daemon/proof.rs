//! The proof of a pipe: a sender's connection, without a client.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::SysRng;
use thiserror::Error;
use tokio::select;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::connection::close_reason::CloseReason;
use super::connection::handshake_error::NoSession;
use super::connection::sender::agree;
use super::net::connect_error::ConnectError;
use super::net::deadline::Deadline;
use super::net::sides::TunnelStream;
use super::net::stream::Stream;
use super::net::target::Target;
use super::relay::Tunnel;
use super::relay::abort::abort;
use super::relay::error::RelayError;
use super::runtime::workers::one_thread_runtime;
use crate::config::{Refresh, TunnelConfig};
use crate::protocol::{
    AbortReason, Client, ConnectionId, Extensions, HEADER, Kex, KeyId, Opener, Record, SharedKey,
    Suite, warm_up,
};
use crate::report::{Report, exit};

/// Descriptors for connects beside the first one, to a name with several addresses.
const SPARE: usize = 16;
/// How much of an answer to plaintext is read.
const ANSWER: usize = 128;
/// How long each further byte of such an answer has, once the first has come.
const REST: Duration = Duration::from_secs(1);
/// How long the server has to end its direction once this one has ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// A pipe that works, and how long it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof {
    /// The address that the receiver's name has led to.
    pub(crate) address: Option<SocketAddr>,
    /// The look-up of the receiver's name, and the connect.
    pub(crate) connect: Duration,
    /// Until the session was agreed on.
    pub(crate) handshake: Duration,
    /// Until the receiver said that its target answers.
    pub(crate) target: Duration,
    pub(crate) suite: Suite,
    /// The connection's id in the receiver's log.
    pub(crate) conn: ConnectionId,
}

/// Why a pipe does not work, and what may help.
#[derive(Debug, Error)]
#[error("{reason}")]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    reason: String,
    hint: &'static str,
}

/// How far a pipe works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The receiver's name does not resolve.
    Unresolved,
    /// Nothing listens there, or nothing answers.
    Unreachable,
    /// Another program answers.
    NotAReceiver,
    /// The receiver closed the connection. It does not tell a stranger why.
    KeyRefused,
    /// The receiver knows the key, and has no place for a connection, or is shutting down.
    Busy,
    /// The pipe works, the server behind it does not.
    ServerDown,
    /// This host lacks a resource.
    System,
}

impl Fault {
    fn of(kind: FaultKind, reason: &CloseReason) -> Self {
        let hint = reason.hint().unwrap_or("the receiver's log says more");
        Self { kind, reason: reason.to_string(), hint }
    }

    fn system(error: &io::Error) -> Self {
        let hint = "the system lacks a resource, and its log may say which";
        Self { kind: FaultKind::System, reason: format!("cannot prove the pipe: {error}"), hint }
    }
}

impl Report for Fault {
    fn hint(&self) -> &str {
        self.hint
    }

    fn exit_code(&self) -> u8 {
        match self.kind {
            FaultKind::KeyRefused => exit::NO_USER,
            FaultKind::Unresolved => exit::NO_HOST,
            FaultKind::Unreachable => exit::UNAVAILABLE,
            FaultKind::System => exit::OS,
            FaultKind::Busy | FaultKind::ServerDown => exit::TRY_LATER,
            FaultKind::NotAReceiver => exit::PROTOCOL,
        }
    }
}

/// Makes what the proofs of a process share. Where many follow, this comes first: tokio panics
/// where it lacks descriptors for that.
///
/// # Errors
/// When the system lacks a resource.
pub(crate) fn prepare() -> io::Result<()> {
    one_thread_runtime().map(drop)
}

/// Connects to a receiver, proves the key, has the receiver connect to its server, and
/// ends the connection.
///
/// # Errors
/// The first of these steps that failed.
pub(crate) fn prove(config: &TunnelConfig, key: &SharedKey) -> Result<Proof, Fault> {
    if config.kex_of_sender() != Kex::X25519 {
        // Otherwise the first key of a process counts as a slow handshake.
        warm_up(&mut SysRng);
    }
    let runtime = one_thread_runtime().map_err(|error| Fault::system(&error))?;
    runtime.block_on(async {
        let began = Instant::now();
        let mut address = None;
        let stream = reach(config, &mut address).await?;
        let connect = began.elapsed();
        let began = Instant::now();
        let agreed = agree(TunnelStream(stream), key, config).await;
        let mut tunnel = agreed.map_err(|error| no_session(error, key.id()))?;
        let handshake = began.elapsed();
        let (suite, conn) = (tunnel.session.suite, tunnel.session.connection_id);
        let began = Instant::now();
        let answer = request_target(&mut tunnel);
        // The receiver has its own timeout for the connect to its server.
        let limit = config.timeout.get().saturating_mul(2);
        match Deadline::after(limit).bound(answer).await {
            Some(result) => result.map_err(target_fault)?,
            None => return Err(silent(limit)),
        }
        let target = began.elapsed();
        end_stream(tunnel).await;
        Ok(Proof { address, connect, handshake, target, suite, conn })
    })
}

/// What came back from a port at which plaintext was sent.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The first bytes.
    pub(crate) bytes: Vec<u8>,
    /// Whether the other side has closed the connection, or reset it.
    pub(crate) is_closed: bool,
    pub(crate) took: Duration,
}

/// Sends plaintext, which may be nothing, and waits for an answer, or for the end, within
/// `limit`.
///
/// # Errors
/// When nothing can be reached, or the connection fails.
pub(crate) fn send_plaintext(
    config: &TunnelConfig,
    hello: &[u8],
    limit: Duration,
) -> Result<Answer, Fault> {
    let runtime = one_thread_runtime().map_err(|error| Fault::system(&error))?;
    runtime.block_on(async {
        let began = Instant::now();
        let stream = reach(config, &mut None).await?;
        let mut bytes = vec![0; ANSWER];
        let mut got = 0;
        let answered = async {
            // Who does not take it may have answered all the same.
            let written = stream.write_all(hello).await;
            let read = stream.read_full(&mut bytes[..1], &mut got).await;
            if got > 0 {
                // The rest may come byte by byte.
                while got < ANSWER {
                    let (before, next) = (got, got.saturating_add(1));
                    let more = stream.read_full(&mut bytes[..next], &mut got);
                    let _quiet = Deadline::after(REST).bound(more).await;
                    if got == before {
                        break;
                    }
                }
                return Ok(());
            }
            unless_reset(written).and(unless_reset(read.map(|_end| ())))
        };
        let ended = Deadline::after(limit).bound(answered).await;
        let is_closed = ended.transpose().map_err(|error| broken(&error))?.is_some();
        bytes.truncate(got);
        Ok(Answer { bytes, is_closed, took: began.elapsed() })
    })
}

/// Connects to what `config` names.
async fn reach(config: &TunnelConfig, tried: &mut Option<SocketAddr>) -> Result<Stream, Fault> {
    let target = Target::new(config, SPARE).map_err(|error| Fault::system(&error))?;
    let connected = select! {
        connected = target.connect(None, tried) => connected,
        never = target.keep_resolved(Refresh::Never) => match never {},
    };
    connected.map_err(|error| {
        let error = NoSession::Connect(error);
        Fault::of(kind(&error), &error.into())
    })
}

/// Sends OPEN, which has the receiver connect to its server and tells that nobody is behind
/// the connection, and reads the answer.
async fn request_target(Tunnel { stream, session }: &mut Tunnel) -> Result<(), RelayError> {
    let open = session.sealer.seal_open(Extensions { client: Some(Client::Nobody) })?;
    stream.write_all(&open).await.map_err(RelayError::Tunnel)?;
    // The opener lets only OPENED and ABORT come first.
    next_record(stream, &mut session.opener).await.map(|_opened| ())
}

/// The next record; an ABORT is an error.
async fn next_record(stream: &TunnelStream, opener: &mut Opener) -> Result<Record, RelayError> {
    let mut record = vec![0; HEADER];
    let mut got = 0;
    while got < record.len() {
        let wanted = record.len();
        if stream.read_full(&mut record, &mut got).await.map_err(RelayError::Tunnel)? < wanted {
            return Err(RelayError::Truncated);
        }
        record.resize(opener.record_length(&record)?.unwrap_or(wanted), 0);
    }
    match opener.open(&mut record)? {
        Record::Abort(reason) => Err(RelayError::Aborted(reason)),
        record @ (Record::Ready
        | Record::Open(_)
        | Record::Opened(_)
        | Record::Data(_)
        | Record::End
        | Record::Done
        | Record::Carry(_)
        | Record::Carried(..)
        | Record::Frames(_)
        | Record::Join(_)) => Ok(record),
    }
}

/// Ends the stream as a client does that has nothing to send. A server that does not soon
/// end its own direction is not waited for.
async fn end_stream(Tunnel { stream, mut session }: Tunnel) {
    let mut is_done = false;
    let ended = async {
        stream.write_all(&session.sealer.seal_end()?).await.map_err(RelayError::Tunnel)?;
        while next_record(&stream, &mut session.opener).await? != Record::End {
            yield_now().await;
        }
        is_done = true;
        stream.write_all(&session.sealer.seal_done()?).await.map_err(RelayError::Tunnel)?;
        next_record(&stream, &mut session.opener).await.map(|_done| ())
    };
    // The pipe works, whether the server goes on or not.
    let _goes_on = Deadline::after(FAREWELL).bound(ended).await;
    if is_done {
        stream.close();
    } else {
        abort(stream, session.sealer.seal_abort(AbortReason::LocalPeerReset).ok()).await;
    }
}

/// Any other error tells nothing of the other side.
fn unless_reset(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if is_reset(&error) { Ok(()) } else { Err(error) })
}

fn broken(error: &io::Error) -> Fault {
    Fault {
        kind: FaultKind::Unreachable,
        reason: format!("the connection has failed: {error}"),
        hint: "the network between here and there may say why; try again",
    }
}

fn kind(error: &NoSession) -> FaultKind {
    match error {
        NoSession::Connect(ConnectError::Unresolved(..)) => FaultKind::Unresolved,
        NoSession::Closed { got: 0, .. } => FaultKind::KeyRefused,
        NoSession::Failed(error) if is_reset(error) => FaultKind::KeyRefused,
        NoSession::Connect(ConnectError::NoRoom(_)) | NoSession::NoRandomness(_) => {
            FaultKind::System
        }
        NoSession::Connect(_) | NoSession::TimedOut(_) | NoSession::Failed(_) => {
            FaultKind::Unreachable
        }
        NoSession::Closed { .. }
        | NoSession::NotAReceiver(_)
        | NoSession::WrongAnswer(_)
        | NoSession::Loop => FaultKind::NotAReceiver,
    }
}

fn no_session(error: NoSession, key: KeyId) -> Fault {
    let kind = kind(&error);
    let fault = Fault::of(kind, &error.into());
    if kind == FaultKind::KeyRefused {
        let reason = format!("the receiver does not have the key {key}, or is at its limit");
        return Fault { reason, ..fault };
    }
    fault
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// The fault where something else than OPENED came.
fn target_fault(error: RelayError) -> Fault {
    let RelayError::Aborted(reason) = error else {
        return Fault::of(FaultKind::Unreachable, &error.into());
    };
    let kind = match reason {
        AbortReason::KeyReplaced | AbortReason::KeyRevoked => FaultKind::KeyRefused,
        AbortReason::ConnectionLimit | AbortReason::ShuttingDown => FaultKind::Busy,
        AbortReason::NotUnderstood | AbortReason::NotAvailable => FaultKind::NotAReceiver,
        AbortReason::TargetRefused
        | AbortReason::TargetTimedOut
        | AbortReason::TargetUnreachable
        | AbortReason::LocalPeerReset
        | AbortReason::Other(_) => FaultKind::ServerDown,
    };
    let fault = Fault::of(kind, &error.into());
    if matches!(kind, FaultKind::Busy | FaultKind::ServerDown) {
        return Fault { reason: format!("the pipe works, but {reason}"), ..fault };
    }
    fault
}

fn silent(limit: Duration) -> Fault {
    Fault {
        kind: FaultKind::ServerDown,
        reason: format!("the pipe works, but no server behind it has answered in {limit:?}"),
        hint: "the receiver's log says where it connects to",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_an_end_and_a_network_that_fails_is_an_error() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe] {
            assert!(unless_reset(Err(kind.into())).is_ok(), "{kind}");
        }
        for kind in [io::ErrorKind::HostUnreachable, io::ErrorKind::TimedOut] {
            let error = unless_reset(Err(kind.into())).unwrap_err();
            assert_eq!(broken(&error).exit_code(), exit::UNAVAILABLE, "{kind}");
        }
    }
}
