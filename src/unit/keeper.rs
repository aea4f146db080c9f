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
//! systemd starts nothing anew before the main process of the unit has ended, however
//! many of its connections are open. So that process is one that has none. Who sends
//! USR1 is `spiped handover`, see [`crate::unit::handover`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe};

/// What the keeper ends with once the worker is handed over: where nothing restarts the
/// unit, as after a signal of somebody else's, systemd has to.
pub(crate) const HANDED_OVER: u8 = 75;

/// How long the worker may take until it does not listen any more, in milliseconds.
const STUCK: u16 = 5000;

/// Which of the two this is after [`split`].
pub(crate) enum Split {
    /// The one that systemd knows.
    Keeper(Keeper),
    /// The one that serves.
    Worker(Listening),
}

/// The process that systemd knows. It holds no socket and no key.
pub(crate) struct Keeper {
    worker: Pid,
    signals: SigSet,
    /// Ends once the worker does not listen any more.
    listening: OwnedFd,
}

/// Held by the worker for as long as it listens: dropped, it lets the keeper end once
/// another process takes over.
#[derive(Debug)]
pub(crate) struct Listening {
    _end: OwnedFd,
}

/// Makes the worker.
///
/// To be called before there is any thread.
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
    // Before there is a worker to hear of.
    let mask_before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    #[expect(unsafe_code, reason = "there is no safe fork")]
    // SAFETY: no thread has been started yet, so that the child, too, has all
    // there is of this process, and no lock that nobody will release.
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
    /// Passes signals on until the worker has ended, or is handed over; the exit code
    /// of this process.
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
                self.wait_until_it_does_not_listen()?;
                return Ok(HANDED_OVER.into());
            }
            // Looked at each time: two signals of one kind can come as one.
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
            // It has just ended, which is seen next.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next process listens at the same paths. A worker that is stuck is not waited
    /// for any longer.
    fn wait_until_it_does_not_listen(&self) -> io::Result<()> {
        let mut ended = [PollFd::new(self.listening.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ended, STUCK) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends as the worker has, so that systemd's log is true.
    fn end_by(&self, signal: Signal) -> io::Result<ExitCode> {
        self.signals.thread_unblock()?;
        raise(signal)?;
        Ok(ExitCode::FAILURE)
    }
}
