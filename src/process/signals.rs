//! Signals as this process inherited them from whoever started it.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal as Number, signal as set_signal};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Handles a signal from here on, unless it was ignored at the start: `trap '' TERM`
/// in a start script, INT of a shell's background job and HUP after nohup mean it.
///
/// # Errors
/// When the system refuses.
pub(crate) fn unless_ignored(kind: SignalKind) -> io::Result<Option<Signal>> {
    if is_ignored(kind)? { Ok(None) } else { signal(kind).map(Some) }
}

/// Waits for a signal; for ever for one that is ignored.
pub(crate) async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Lets this thread have what asks it to end, and news of its children, where
/// whoever started this process had blocked them: a blocked TERM would leave only
/// KILL. To be called once they are handled, since one may be waiting.
///
/// # Errors
/// When the system refuses.
pub(crate) fn unblock() -> io::Result<()> {
    let ours = [Number::SIGTERM, Number::SIGINT, Number::SIGHUP, Number::SIGCHLD];
    Ok(SigSet::from_iter(ours).thread_unblock()?)
}

/// Lets what asks this process to end do so again, after it was handled; what was
/// ignored at the start still is.
///
/// # Errors
/// When the system refuses.
pub(crate) fn no_longer_handled() -> io::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        if !is_ignored(kind)? {
            let number = Number::try_from(kind.as_raw_value())?;
            #[expect(unsafe_code, reason = "there is no safe way to give a signal back")]
            // SAFETY: the system's own way runs no code of ours when it comes.
            unsafe { set_signal(number, SigHandler::SigDfl) }?;
        }
    }
    Ok(())
}

/// Has a write beyond the limit of a file's size (`ulimit -f`) fail, where the
/// system's signal for it would end the process with all its connections.
pub(crate) fn ignore_file_size() {
    #[expect(unsafe_code, reason = "there is no safe way to ignore a signal")]
    // SAFETY: to ignore a signal runs no code of ours when it comes.
    let ignored = unsafe { set_signal(Number::SIGXFSZ, SigHandler::SigIgn) };
    debug_assert!(ignored.is_ok(), "it is a signal that can be ignored");
}

fn is_ignored(kind: SignalKind) -> io::Result<bool> {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    #[expect(unsafe_code, reason = "there is no safe way to ask without changing it")]
    // SAFETY: with no new action this only writes the one in force to `now`, which
    // is room for it.
    let asked = unsafe { libc::sigaction(kind.as_raw_value(), ptr::null(), now.as_mut_ptr()) };
    Errno::result(asked)?;
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: the call has succeeded, so it has written all of it.
    let now = unsafe { now.assume_init() };
    Ok(now.sa_sigaction == libc::SIG_IGN)
}
