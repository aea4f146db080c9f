//! `spipe`: standard input and output as the local end of a pipe.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::Shutdown as Half;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use tokio::select;
use tokio::signal::unix::SignalKind;
use tokio::sync::{mpsc, oneshot};

use thiserror::Error;

use super::connection::close_reason::CloseReason;
use super::connection::sender::connect;
use super::limits::raise_limit;
use super::net::sides::LocalStream;
use super::net::stream::Stream;
use super::net::target::Target;
use super::relay::error::RelayError;
use super::relay::{Ending, FirstRecord, Relay};
use super::runtime::shutdown::{EndSignals, Shutdown, shutdown};
use super::runtime::workers::one_thread_runtime;
use crate::config::{Keepalive, Refresh, Role, TunnelConfig};
use crate::process::signals::{next, unless_ignored};
use crate::process::stdio::{Stdin, Stdout};
use crate::protocol::{Extensions, SharedKey};
use crate::report::{AnyError, Report, SystemError, exit};

/// The fewest descriptors to start with.
const DESCRIPTORS: usize = 16;
/// The number of the signal HUP.
const HANGUP: u8 = 1;
/// Descriptors for connects beside the first one, to a name with several addresses.
const SPARE: usize = 16;

/// How a run of `spipe` ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpipeEnd {
    /// Both directions came to their end.
    Cleanly,
    /// A signal of this number ended it; the other end was told.
    BySignal(u8),
}

/// The connection was not made, or did not end cleanly.
#[derive(Debug, Error)]
#[error("{reason}")]
pub(crate) struct PipeBroken {
    reason: String,
    hint: &'static str,
}

impl Report for PipeBroken {
    fn hint(&self) -> &str {
        self.hint
    }

    fn exit_code(&self) -> u8 {
        exit::UNAVAILABLE
    }
}

/// Connects to a receiver, sends it standard input, and writes what it answers to
/// standard output, until both directions have ended or a signal comes.
///
/// # Errors
/// When the receiver cannot be reached, or the stream did not end cleanly.
pub(crate) fn spipe(config: &TunnelConfig, key: &SharedKey) -> Result<SpipeEnd, AnyError> {
    raise_limit(DESCRIPTORS)?;
    let runtime = one_thread_runtime().map_err(SystemError::of("cannot start the event loop"))?;
    // Threads copy standard input and output: a runtime cannot read a terminal or a file.
    let (ours, theirs) = UnixStream::pair().map_err(SystemError::of("cannot make a socket"))?;
    let (broken, mut breaks) = mpsc::channel(2);
    let written =
        copy_standard_streams(theirs, broken).map_err(SystemError::of("cannot start a thread"))?;
    runtime.block_on(async {
        let target =
            Target::new(config, SPARE).map_err(SystemError::of("cannot start a thread"))?;
        let mut tried = None;
        let tunnel = select! {
            session = connect(&target, key, config, &mut tried) => session.map_err(failed)?,
            never = target.keep_resolved(Refresh::Never) => match never {},
        };
        ours.set_nonblocking(true).map_err(SystemError::of("cannot use a socket"))?;
        let local = Stream::accepted(ours.into(), Keepalive::Off)
            .map_err(SystemError::of("cannot use a socket"))?;
        let relay = Relay::new(LocalStream(local), tunnel, Arc::default(), config);
        let (trigger, shutdown) = shutdown();
        // ssh ends its proxy command by HUP, which is no failure.
        let cannot_handle = SystemError::of("cannot handle signals");
        let mut hangup = unless_ignored(SignalKind::hangup()).map_err(cannot_handle)?;
        let mut end = EndSignals::handle().map_err(cannot_handle)?;
        let mut signal = pin!(async {
            select! {
                name = end.next() => if name == "INT" { 2 } else { 15 },
                () = next(&mut hangup) => HANGUP,
            }
        });
        let is_hung_up_on = Cell::new(false);
        let mut relay = pin!(serve(relay, &shutdown, &is_hung_up_on));
        let result = select! {
            result = &mut relay => result,
            number = &mut signal => {
                is_hung_up_on.set(number == HANGUP);
                trigger.begin();
                let _told = relay.await;
                return Ok(SpipeEnd::BySignal(number));
            }
            // The server has a part of the input only, and must not see a clean end.
            Some(error) = breaks.recv() => {
                trigger.begin();
                let _told = relay.await;
                return Err(error.into());
            }
        };
        // However the connection ended, what came is written to standard output.
        select! {
            _ = written => {}
            number = &mut signal => return Ok(SpipeEnd::BySignal(number)),
        }
        result.map_err(failed)?;
        if let Ok(error) = breaks.try_recv() {
            return Err(error.into());
        }
        Stdout::end_socket();
        Ok(SpipeEnd::Cleanly)
    })
}

/// Relays to the end of the connection, and closes it.
async fn serve(
    mut relay: Relay,
    shutdown: &Shutdown,
    is_hung_up_on: &Cell<bool>,
) -> Result<(), RelayError> {
    let result = match relay.queue(FirstRecord::Open(Extensions::default())) {
        Ok(()) => relay.run(Role::Encrypt, &Ending::by(shutdown)).await,
        Err(error) => Err(error),
    };
    relay.close(result.map_err(|error| why_to_tell(error, is_hung_up_on))).await
}

/// HUP says that the terminal or ssh is gone. For the server that is a client that went
/// away, and not a shutdown.
fn why_to_tell(error: RelayError, is_hung_up_on: &Cell<bool>) -> RelayError {
    if matches!(error, RelayError::ShuttingDown) && is_hung_up_on.get() {
        return RelayError::Local(io::ErrorKind::BrokenPipe.into());
    }
    error
}

/// Starts a thread that reads standard input until its end, and one that writes standard
/// output until the end of the stream. Their errors go to `broken`.
///
/// Once the writing thread has ended, the result has the socket between the threads and
/// the relay. The socket stays open until then, so that the relay sees no end of it.
fn copy_standard_streams(
    socket: UnixStream,
    broken: mpsc::Sender<SystemError>,
) -> io::Result<oneshot::Receiver<UnixStream>> {
    let mut to_tunnel = socket.try_clone()?;
    let from_tunnel = socket;
    // Where standard input is a socket, urgent data stays in its place in the stream.
    let _no_socket = SockRef::from(&io::stdin()).set_out_of_band_inline(true);
    let tell = broken.clone();
    thread::Builder::new().name("stdin".into()).spawn(move || {
        match copy(Stdin, &mut to_tunnel) {
            // The relay reports what happens to the tunnel.
            Ok(()) | Err(CopyError::Write(_)) => drop(to_tunnel.shutdown(Half::Write)),
            Err(CopyError::Read(error)) => {
                let error = SystemError::of("cannot read standard input")(error);
                let _nobody_asks = tell.blocking_send(error);
            }
        }
    })?;
    let (writing, written) = oneshot::channel();
    thread::Builder::new().name("stdout".into()).spawn(move || {
        if let Err(error) = write_standard_output(&from_tunnel) {
            let error = SystemError::of("cannot write to standard output")(error);
            let _nobody_asks = broken.blocking_send(error);
        }
        let _nobody_asks = writing.send(from_tunnel);
    })?;
    Ok(written)
}

/// Writes all that comes, then ends standard output. Standard input may go on.
fn write_standard_output(mut from_tunnel: &UnixStream) -> io::Result<()> {
    match copy(&mut from_tunnel, &mut Stdout) {
        Err(CopyError::Write(error)) => Err(error),
        // The whole connection is over: an error of it is reported before standard output
        // ends.
        Ok(()) | Err(CopyError::Read(_)) if is_hung_up(from_tunnel)? => Ok(()),
        Ok(()) | Err(CopyError::Read(_)) => Stdout::end(),
    }
}

/// Whether both directions of a unix socket are over, and not just this one.
fn is_hung_up(socket: &UnixStream) -> io::Result<bool> {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO)?;
    let [socket] = polled;
    Ok(socket.revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

/// Which side of a copy failed.
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies until the end. `io::copy` would splice: while a splice waits for input, Linux
/// holds the lock of the pipe that it writes to, and even a non-blocking reader of that
/// pipe hangs.
fn copy(mut from: impl Read, to: &mut impl Write) -> Result<(), CopyError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(&buffer[..count]).map_err(CopyError::Write)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
}

fn failed(reason: impl Into<CloseReason>) -> PipeBroken {
    let reason = reason.into();
    let hint = reason.hint().unwrap_or("the receiver's log says more");
    PipeBroken { hint, reason: reason.to_string() }
}
