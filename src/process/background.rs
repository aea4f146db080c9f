//! The process as a daemon of the old kind: it detaches itself once it is
//! ready, and leaves its id in a locked file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_NOCTTY, O_NOFOLLOW};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, getpid, pipe, setsid,
};
use sd_notify::NotifyState;
use thiserror::Error;

use crate::report::{Report, exit};

/// Which of the two this is after [`detach`].
pub(crate) enum Detached {
    /// The one that goes on in the background.
    Child(Announcement),
    /// The one that was started: it ends with this code.
    Parent(ExitCode),
}

/// Tells the parent that this process is ready, so that it can return.
pub(crate) struct Announcement(OwnedFd);

/// Goes on in a new process, without a terminal. The parent returns once the
/// child is ready, or with the exit code of a child that failed before.
///
/// To be called before there is any thread.
///
/// # Errors
/// When the system refuses.
pub(crate) fn detach() -> io::Result<Detached> {
    let (ready, announce) = pipe()?;
    #[expect(unsafe_code, reason = "there is no safe fork")]
    // SAFETY: no thread has been started yet, so that the child, too, has all
    // there is of this process, and no lock that nobody will release.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ready);
            setsid()?;
            Ok(Detached::Child(Announcement(announce)))
        }
        ForkResult::Parent { child } => {
            drop(announce);
            Ok(Detached::Parent(wait_until_ready(ready, child)))
        }
    }
}

fn wait_until_ready(ready: OwnedFd, child: Pid) -> ExitCode {
    if File::from(ready).read(&mut [0]).is_ok_and(|count| count == 1) {
        // From now on the child is whom systemd listens to, if it does at all.
        if let Ok(id) = u32::try_from(child.as_raw()) {
            let _unheard = sd_notify::notify(&[NotifyState::MainPid(id), NotifyState::Ready]);
        }
        return ExitCode::SUCCESS;
    }
    loop {
        return match waitpid(child, None) {
            Err(Errno::EINTR) => continue,
            Ok(WaitStatus::Exited(_, code)) => u8::try_from(code).unwrap_or(1).into(),
            _ => ExitCode::FAILURE,
        };
    }
}

impl Announcement {
    /// Lets go of the terminal, then lets the parent return.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn announce(self) -> io::Result<()> {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        File::from(self.0).write_all(&[1])
    }
}

/// A file with the id of this process in it, locked as long as this lives and
/// removed at its end.
pub(crate) struct PidFile {
    file: Flock<File>,
    path: PathBuf,
}

/// Why there is no pid file.
#[derive(Debug, Error)]
pub(crate) enum PidFileError {
    /// A process that still runs holds it.
    #[error("{} is locked by a running process ({holder})", path.display())]
    Held {
        /// The file.
        path: PathBuf,
        /// What it says of the process.
        holder: String,
    },
    /// What is in it is no process id: it is some other file, perhaps a precious one.
    #[error("{} holds something else than a process id, and is left as it is", .0.display())]
    Foreign(PathBuf),
    /// The system refuses.
    #[error("cannot write the process id to {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
}

impl Report for PidFileError {
    fn hint(&self) -> &str {
        match self {
            Self::Held { .. } => "end that process first, or name another file with -p",
            Self::Foreign(_) => {
                "name another file with -p; if nobody needs this one, remove it first"
            }
            Self::Write { .. } => {
                "name a file this user may write with -p, or stay in the foreground with -F"
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Held { .. } => exit::UNAVAILABLE,
            Self::Foreign(_) | Self::Write { .. } => exit::CANNOT_CREATE,
        }
    }
}

impl PidFile {
    /// Writes the file; a stale one, which nobody has locked, is taken over. A
    /// device, such as /dev/null, is written to and is nobody's: `None`.
    ///
    /// # Errors
    /// When a running process holds it, or it can't be written.
    pub(crate) fn write(path: &Path) -> Result<Option<Self>, PidFileError> {
        let failed = |error: io::Error| PidFileError::Write { path: path.into(), error };
        let mut file = loop {
            let mut file = open_pid_file(path).map_err(failed)?;
            let kind = file.metadata().map_err(failed)?.file_type();
            if kind.is_char_device() {
                return writeln!(file, "{}", getpid()).map(|()| None).map_err(failed);
            }
            if !kind.is_file() {
                return Err(failed(io::Error::other("it is no regular file")));
            }
            let file = Self::lock(path, file)?;
            // Who held it until now may have removed it since it was opened.
            if is_at(path, &file) {
                break file;
            }
        };
        if !is_pid_file(&file).map_err(failed)? {
            return Err(PidFileError::Foreign(path.into()));
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", getpid()))
            .map_err(failed)?;
        Ok(Some(Self { file, path: path.into() }))
    }

    fn lock(path: &Path, file: File) -> Result<Flock<File>, PidFileError> {
        let failed = |error: io::Error| PidFileError::Write { path: path.into(), error };
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, error)| {
            if error != Errno::EWOULDBLOCK {
                return failed(error.into());
            }
            let mut holder = String::new();
            // What it says is for the reader only.
            let _unread = file.read_to_string(&mut holder);
            PidFileError::Held { path: path.into(), holder: holder.trim().into() }
        })
    }
}

fn open_pid_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // Who may read it could lock it.
        .mode(0o600)
        // In a folder of others, root must not follow their links. Nor is a terminal
        // to become the one of a daemon.
        .custom_flags(O_NOFOLLOW | O_NOCTTY)
        .open(path)
}

/// Whether the file is empty, or begins with a line that is a number.
fn is_pid_file(file: &File) -> io::Result<bool> {
    let mut start = [0; 32];
    let count = file.read_at(&mut start, 0)?;
    let line = start.split_at(count).0.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(count == 0 || !line.is_empty() && line.iter().all(u8::is_ascii_digit))
}

/// Whether the file is what stands at the path.
fn is_at(path: &Path, file: &File) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let there = std::fs::metadata(path).map(identity).ok();
    there.is_some() && there == file.metadata().map(identity).ok()
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let is_ours = !self.path.is_symlink() && is_at(&self.path, &self.file);
        if is_ours && std::fs::remove_file(&self.path).is_err() {
            // After -u this user may not. The number, which some other process will
            // have, must not stay there for a kill.
            let _left = self.file.set_len(0);
        }
    }
}
