//! Signals, which may be ignored or blocked when this process starts.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal as Number, signal as set_signal};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Handles a signal from here on, unless it was ignored at the start, as by `trap '' TERM`
/// in a start script, by a shell for INT of background jobs, or by nohup.
///
/// # Errors
/// When the system refuses.
pub(crate) fn unless_ignored(kind: SignalKind) -> io::Result<Option<Signal>> {
    if is_ignored(kind)? { Ok(None) } else { signal(kind).map(Some) }
}

/// Waits for a signal; for ever if it is ignored.
pub(crate) async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Unblocks TERM, INT, HUP and CHLD, which may be blocked at the start: a blocked TERM would
/// leave only KILL. To be called once they are handled, since one may be pending.
///
/// # Errors
/// When the system refuses.
pub(crate) fn unblock() -> io::Result<()> {
    let ours = [Number::SIGTERM, Number::SIGINT, Number::SIGHUP, Number::SIGCHLD];
    Ok(SigSet::from_iter(ours).thread_unblock()?)
}

/// Gives TERM, INT and HUP their default effect again; signals that were ignored at the
/// start stay ignored.
///
/// # Errors
/// When the system refuses.
pub(crate) fn no_longer_handled() -> io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        if !is_ignored(kind)? {
            let number = Number::try_from(kind.as_raw_value())?;
            #[expect(unsafe_code, reason = "there is no safe way to give a signal back")]
            // SAFETY: the default action runs no code of this program.
            unsafe { set_signal(number, SigHandler::SigDfl) }?;
        }
    }
    Ok(())
}

/// Has a write beyond the limit of a file's size (`ulimit -f`) fail. Otherwise the signal
/// XFSZ would end the process with all its connections.
pub(crate) fn ignore_file_size() {
    #[expect(unsafe_code, reason = "there is no safe way to ignore a signal")]
    // SAFETY: an ignored signal runs no code of this program.
    let ignored = unsafe { set_signal(Number::SIGXFSZ, SigHandler::SigIgn) };
    debug_assert!(ignored.is_ok(), "XFSZ can be ignored");
}

fn is_ignored(kind: SignalKind) -> io::Result<bool> {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    #[expect(unsafe_code, reason = "there is no safe way to ask without changing it")]
    // SAFETY: without a new action, this only writes the action in force to `now`, which
    // has room for it.
    let asked = unsafe { libc::sigaction(kind.as_raw_value(), ptr::null(), now.as_mut_ptr()) };
    Errno::result(asked)?;
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: the call has succeeded, so all of `now` is written.
    let now = unsafe { now.assume_init() };
    Ok(now.sa_sigaction == libc::SIG_IGN)
}
