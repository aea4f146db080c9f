//! The process in the background: it detaches itself once it is ready, and writes its id to
//! a locked file.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
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

/// The mode of a pid file: its owner alone may read it.
const MODE: u32 = 0o600;

/// Which of the two processes this is after [`detach`].
pub(crate) enum Detached {
    /// The process that goes on in the background.
    Child(Announcement),
    /// The process that was started, which ends with this code.
    Parent(ExitCode),
}

/// Tells the parent that this process is ready, so that the parent can end.
pub(crate) struct Announcement {
    ready: OwnedFd,
    /// Descriptors above 2 that this process was started with, such as the lock of a script.
    /// A key file may be among them, so they are open until this process is ready.
    foreign: Vec<OwnedFd>,
}

/// Goes on in a new process, without a terminal. In the parent, returns once the child is
/// ready, or has failed, with the exit code.
///
/// To be called before there is any thread. `own` are the descriptors that are open and
/// belong to somebody.
///
/// # Errors
/// When the system refuses.
pub(crate) fn detach(own: &[RawFd]) -> io::Result<Detached> {
    let foreign = foreign_descriptors(own);
    let (ready, announce) = pipe()?;
    #[expect(unsafe_code, reason = "there is no safe fork")]
    // SAFETY: no thread has been started yet, so the child is whole, and holds no lock that
    // another thread would have to release.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(ready);
            setsid()?;
            Ok(Detached::Child(Announcement { ready: announce, foreign }))
        }
        ForkResult::Parent { child } => {
            drop((announce, foreign));
            Ok(Detached::Parent(wait_until_ready(ready, child)))
        }
    }
}

/// The open descriptors above 2, except `own`. Without `/proc`, none are known.
fn foreign_descriptors(own: &[RawFd]) -> Vec<OwnedFd> {
    let all = Path::new("/proc/self/fd");
    let entries = fs::read_dir(all).into_iter().flatten().flatten();
    let numbers: Vec<RawFd> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers
        .into_iter()
        .filter(|number| *number > 2 && !own.contains(number))
        // The descriptor of that folder is closed by now.
        .filter(|number| all.join(number.to_string()).symlink_metadata().is_ok())
        .map(|number| {
            #[expect(unsafe_code, reason = "there is no safe way to adopt a descriptor")]
            // SAFETY: the descriptor is open, and belongs to nobody in this process: those
            // that belong to somebody are in `own`.
            unsafe {
                OwnedFd::from_raw_fd(number)
            }
        })
        .collect()
}

fn wait_until_ready(ready: OwnedFd, child: Pid) -> ExitCode {
    if File::from(ready).read(&mut [0]).is_ok_and(|count| count == 1) {
        // From now on systemd, if there is one, takes notifications from the child.
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
    /// Detaches from the terminal, then lets the parent end.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn announce(self) -> io::Result<()> {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        drop(self.foreign);
        File::from(self.ready).write_all(&[1])
    }
}

/// A locked file with the id of this process. Guard: removes the file when dropped.
pub(crate) struct PidFile {
    file: Flock<File>,
    path: PathBuf,
}

/// Why the pid file was not written.
#[derive(Debug, Error)]
pub(crate) enum PidFileError {
    /// A running process has locked it; `holder` is the content of the file.
    #[error("{} is locked by a running process ({holder})", path.display())]
    Held { path: PathBuf, holder: String },
    /// The file is another one, which may be precious.
    #[error("{} holds something other than a process id, and is left as it is", .0.display())]
    Foreign(PathBuf),
    #[error("cannot write the process id to {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
}

impl Report for PidFileError {
    fn hint(&self) -> &str {
        match self {
            Self::Held { .. } => "end that process first, or name another file with -p",
            Self::Foreign(_) => {
                "name another file with -p; if this one is not needed, remove it first"
            }
            Self::Write { .. } => {
                "name a file with -p that this user can write, or stay in the foreground with -F"
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
    /// Writes the file. Takes over a stale file, which no process has locked. A device, such
    /// as /dev/null, is written to but neither locked nor removed: `None`.
    ///
    /// # Errors
    /// When a running process has locked the file, or it cannot be written.
    pub(crate) fn write(path: &Path) -> Result<Option<Self>, PidFileError> {
        let failed = |error: io::Error| PidFileError::Write { path: path.into(), error };
        let mut file = loop {
            let mut file = open_pid_file(path).map_err(failed)?;
            let kind = file.metadata().map_err(failed)?.file_type();
            if kind.is_char_device() {
                return writeln!(file, "{}", getpid()).map(|()| None).map_err(failed);
            }
            if !kind.is_file() {
                return Err(failed(io::Error::other("it is not a regular file")));
            }
            let file = Self::lock(path, file)?;
            // The process that held the lock may have removed the file since it was opened.
            if is_at(path, &file) {
                break file;
            }
        };
        if !is_pid_file(&file).map_err(failed)? {
            return Err(PidFileError::Foreign(path.into()));
        }
        // A file of another program may let others read it, who could then lock it.
        file.set_permissions(Permissions::from_mode(MODE))
            .and_then(|()| file.set_len(0))
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
            // The content is only for the error message.
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
        // A user who can read the file could lock it.
        .mode(MODE)
        // Root must not follow links in a folder of another user. A terminal must not become
        // the daemon's controlling terminal.
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

/// Whether the open file is the one at the path.
fn is_at(path: &Path, file: &File) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let there = fs::metadata(path).map(identity).ok();
    there.is_some() && there == file.metadata().map(identity).ok()
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let is_ours = !self.path.is_symlink() && is_at(&self.path, &self.file);
        if is_ours && fs::remove_file(&self.path).is_err() {
            // After -u this user may not remove it. The number must not stay, since another
            // process will have it, which a kill would hit.
            let _left = self.file.set_len(0);
        }
    }
}
