//! `spipe`: standard input and output as the local end of a pipe.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown as Half;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::thread::{self, JoinHandle};

use tokio::select;

use super::connection::{Ends, Halves, connect};
use super::shutdown::{Request, Signals, shutdown};
use super::stream::Stream;
use super::system;
use super::target::Target;
use super::workers::{one_thread_runtime, run_to_end};
use crate::config::{Keepalive, Role, TunnelConfig};
use crate::error::Error;
use crate::protocol::SharedKey;

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
    let output = copy_standard_streams(theirs).map_err(system("cannot start a thread"))?;
    let ended = run_to_end(runtime, async {
        let target = Target::new(config);
        let (tunnel, session) = connect(&target, key, config).await.map_err(failed)?;
        ours.set_nonblocking(true).map_err(system("cannot use a socket"))?;
        let local =
            Stream::new(ours.into(), Keepalive::Off).map_err(system("cannot use a socket"))?;
        let halves = Halves::new(session, config.padding);
        let (trigger, shutdown) = shutdown();
        // ssh ends its proxy command this way: no failure for anybody.
        let mut signals = Signals::handle().map_err(system("cannot handle signals"))?;
        let ends = Ends { local, tunnel };
        let mut relay = pin!(ends.relay_as(Role::Encrypt, halves, &shutdown));
        select! {
            (close, ..) = &mut relay => {
                if close.is_clean() { Ok(Ended::Cleanly) } else { Err(failed(close)) }
            }
            request = signals.next() => {
                trigger.begin();
                relay.await;
                Ok(Ended::BySignal(number(request)))
            }
        }
    })?;
    if ended != Ended::Cleanly {
        return Ok(ended);
    }
    match output.join() {
        Ok(written) => written.map_err(system("cannot write to standard output")).map(|()| ended),
        Err(_panic) => unreachable!("copying does not panic"),
    }
}

/// The number of the signal behind a request.
fn number(request: Request) -> u8 {
    match request {
        Request::Reload => 1,
        Request::End("INT") => 2,
        Request::End(_) => 15,
    }
}

/// A thread that reads standard input for as long as there is some, and one
/// that writes standard output until the end of the stream.
fn copy_standard_streams(socket: UnixStream) -> io::Result<JoinHandle<io::Result<()>>> {
    let mut to_tunnel = socket.try_clone()?;
    let mut from_tunnel = socket;
    // Not by way of `io::stdout`, which holds back what comes after the last
    // end of line: a prompt, or most of a binary protocol.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    thread::Builder::new().name("stdin".into()).spawn(move || {
        // What befalls the pipe is told by the other thread.
        let _ended = copy(io::stdin().lock(), &mut to_tunnel);
        let _ended = to_tunnel.shutdown(Half::Write);
    })?;
    thread::Builder::new().name("stdout".into()).spawn(move || {
        let written = copy(&mut from_tunnel, &mut stdout);
        // Nobody reads any more: the relay shall notice.
        from_tunnel.shutdown(if written.is_err() { Half::Both } else { Half::Read })?;
        written
    })
}

/// Copies until the end. Not `io::copy`, which splices: while that waits for
/// input, Linux holds the lock of the pipe it writes to, so that whoever reads
/// from there hangs, even without blocking.
fn copy(mut from: impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn failed(reason: impl Into<super::close::Close>) -> Error {
    let close = reason.into();
    let hint = match close.hint() {
        "none" => "the receiver's log says more",
        hint => hint,
    };
    Error::Pipe { hint, reason: close.to_string() }
}
