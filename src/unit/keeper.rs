//! `--handover`: two processes, so that a restart need not wait for open connections.
//!
//! ```text
//! systemd ─ keeper (its main process) ─ worker (serves)
//!
//! stop:      TERM ─▶ keeper ─ TERM ─▶ worker ends its connections, then the keeper ends
//! restart:   USR1 ─▶ keeper ─ USR1 ─▶ worker listens no more, ends its connections
//!                      └ ends then: systemd starts the next keeper
//! ```
//!
//! systemd does not start the unit again before its main process has ended. So the main
//! process is the keeper, which has no connections. `spiped handover` sends USR1, see
//! [`crate::unit::handover`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe};

/// The keeper's exit code after a handover. It makes systemd restart the unit even where no
/// restart is under way, as after a USR1 from elsewhere.
pub(crate) const HANDED_OVER: u8 = 75;

/// How long the worker may take until it no longer listens, in milliseconds.
const STUCK: u16 = 5000;

/// Which of the two processes this is after [`split`].
pub(crate) enum Split {
    /// The main process of the unit.
    Keeper(Keeper),
    /// The process that serves.
    Worker(Listening),
}

/// The keeper: the main process of the unit. It holds no socket and no key.
pub(crate) struct Keeper {
    worker: Pid,
    signals: SigSet,
    /// Closed at its other end once the worker no longer listens.
    listening: OwnedFd,
}

/// Guard: the worker holds it for as long as it listens. Once it is dropped, the keeper may
/// end and the next process take over.
#[derive(Debug)]
pub(crate) struct Listening {
    _end: OwnedFd,
}

/// Forks the worker. To be called before there is any thread.
///
/// # Errors
/// When the system refuses.
pub(crate) fn split() -> io::Result<Split> {
    let signals = SigSet::from_iter([
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGCHLD,
    ]);
    let (listening, end) = pipe()?;
    // Before there is a worker, so that no SIGCHLD is lost.
    let mask_before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    #[expect(unsafe_code, reason = "there is no safe fork")]
    // SAFETY: no thread has been started yet, so the child is whole, and holds no lock that
    // another thread would have to release.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(listening);
            mask_before.thread_set_mask()?;
            Ok(Split::Worker(Listening { _end: end }))
        }
        ForkResult::Parent { child } => {
            drop(end);
            Ok(Split::Keeper(Keeper { worker: child, signals, listening }))
        }
    }
}

impl Keeper {
    /// Passes signals on until the worker has ended, or the handover is done. Returns the
    /// exit code of this process.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn keep(self) -> io::Result<ExitCode> {
        loop {
            let signal = self.signals.wait()?;
            if signal != Signal::SIGCHLD {
                self.pass_on(signal)?;
            }
            if signal == Signal::SIGUSR1 {
                self.wait_until_not_listening()?;
                return Ok(HANDED_OVER.into());
            }
            // After each signal: two signals of one kind can come as one.
            match waitpid(self.worker, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(_, code) => {
                    return Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from));
                }
                WaitStatus::Signaled(_, signal, _) => return self.end_by(signal),
                WaitStatus::StillAlive
                | WaitStatus::Stopped(..)
                | WaitStatus::Continued(_)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(_) => {}
            }
        }
    }

    fn pass_on(&self, signal: Signal) -> io::Result<()> {
        match kill(self.worker, signal) {
            // The worker has just ended, which waitpid tells next.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the worker no longer listens: the next process listens at its paths. A
    /// worker that is stuck is not waited for.
    fn wait_until_not_listening(&self) -> io::Result<()> {
        let mut ended = [PollFd::new(self.listening.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ended, STUCK) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends by the worker's signal, so that systemd's log is true.
    fn end_by(&self, signal: Signal) -> io::Result<ExitCode> {
        self.signals.thread_unblock()?;
        raise(signal)?;
        Ok(ExitCode::FAILURE)
    }
}
