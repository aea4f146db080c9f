//! `spipe`: standard input and output as the local end of a pipe.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown as Half;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::thread::{self, JoinHandle};

use tokio::select;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;

use super::connection::connect;
use super::relay::Relay;
use super::shutdown::{EndSignals, shutdown};
use super::stream::Stream;
use super::system;
use super::target::Target;
use super::workers::one_thread_runtime;
use crate::config::{Keepalive, Refresh, Role, TunnelConfig};
use crate::error::Error;
use crate::protocol::SharedKey;
use crate::signals::{next, unless_ignored};

/// Connects at once, beside the first one.
const SPARE: usize = 16;

/// How a run of `spipe` that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both directions came to their end.
    Cleanly,
    /// By a signal, of this number; the other end was told.
    BySignal(u8),
}

/// Connects to a receiver; sends it standard input, and writes what comes to
/// standard output, until both have ended, or a signal says so.
///
/// # Errors
/// When the receiver can't be reached, or the stream did not end cleanly.
pub fn spipe(config: &TunnelConfig, key: &SharedKey) -> Result<Ended, Error> {
    let runtime = one_thread_runtime().map_err(system("cannot start the event loop"))?;
    // A terminal, a file or a pipe: threads can read each, a runtime cannot.
    let (ours, theirs) = UnixStream::pair().map_err(system("cannot make a socket"))?;
    let (broken, mut breaks) = mpsc::channel(2);
    let output = copy_standard_streams(theirs, broken).map_err(system("cannot start a thread"))?;
    let ended = runtime.block_on(async {
        let target = Target::new(config, SPARE).map_err(system("cannot start a thread"))?;
        let (tunnel, session) = select! {
            session = connect(&target, key, config) => session.map_err(failed)?,
            never = target.keep_resolved(Refresh::Never) => match never {},
        };
        ours.set_nonblocking(true).map_err(system("cannot use a socket"))?;
        let local =
            Stream::accepted(ours.into(), Keepalive::Off).map_err(system("cannot use a socket"))?;
        let mut relay = Relay::new(local, tunnel, session, config);
        let (trigger, shutdown) = shutdown();
        // ssh ends its proxy command this way: no failure for anybody.
        let cannot_handle = system("cannot handle signals");
        let mut hangup = unless_ignored(SignalKind::hangup()).map_err(&cannot_handle)?;
        let mut end = EndSignals::handle().map_err(&cannot_handle)?;
        let mut signal = pin!(async {
            select! {
                name = end.next() => if name == "INT" { 2 } else { 15 },
                () = next(&mut hangup) => 1,
            }
        });
        let mut relay = pin!(async {
            let result = relay.run(Role::Encrypt, &shutdown).await;
            relay.close(result).await
        });
        select! {
            close = &mut relay => {
                if close.is_clean() { Ok(Ended::Cleanly) } else { Err(failed(close)) }
            }
            number = &mut signal => {
                trigger.begin();
                relay.await;
                Ok(Ended::BySignal(number))
            }
            // Never a clean end for the server, which has got half of it.
            Some(error) = breaks.recv() => {
                trigger.begin();
                relay.await;
                Err(error)
            }
        }
    })?;
    if ended == Ended::Cleanly && output.join().is_err() {
        unreachable!("copying does not panic");
    }
    breaks.try_recv().map_or(Ok(ended), Err)
}

/// A thread that reads standard input for as long as there is some, and one
/// that writes standard output until the end of the stream. What fails of the
/// two is told; the socket between them and the relay then stays open.
fn copy_standard_streams(
    socket: UnixStream,
    broken: mpsc::Sender<Error>,
) -> io::Result<JoinHandle<UnixStream>> {
    let mut to_tunnel = socket.try_clone()?;
    let mut from_tunnel = socket;
    // Not by way of `io::stdout`, which holds back what comes after the last
    // end of line: a prompt, or most of a binary protocol.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let tell = broken.clone();
    thread::Builder::new().name("stdin".into()).spawn(move || {
        match copy(io::stdin().lock(), &mut to_tunnel) {
            // What befalls the tunnel, the relay tells.
            Ok(()) | Err(CopyError::Write(_)) => drop(to_tunnel.shutdown(Half::Write)),
            Err(CopyError::Read(error)) => {
                let error = system("cannot read standard input")(error);
                let _nobody_asks = tell.blocking_send(error);
            }
        }
    })?;
    thread::Builder::new().name("stdout".into()).spawn(move || {
        if let Err(CopyError::Write(error)) = copy(&mut from_tunnel, &mut stdout) {
            let error = system("cannot write to standard output")(error);
            let _nobody_asks = broken.blocking_send(error);
        }
        // Kept open, so that the relay does not take it for an end.
        from_tunnel
    })
}

/// Which side of a copy failed.
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies until the end. Not `io::copy`, which splices: while that waits for
/// input, Linux holds the lock of the pipe it writes to, so that whoever reads
/// from there hangs, even without blocking.
fn copy(mut from: impl Read, to: &mut impl Write) -> Result<(), CopyError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(buffer.get(..count).unwrap_or_default()).map_err(CopyError::Write)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
}

fn failed(reason: impl Into<super::close::Close>) -> Error {
    let close = reason.into();
    let hint = close.hint().unwrap_or("the receiver's log says more");
    Error::Pipe { hint, reason: close.to_string() }
}
