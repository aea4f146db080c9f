//! Where a process takes requests that only lets its open connections end: where it took
//! them before, until the next process takes its path. That one moves the socket's file
//! aside first, in the same folder:
//!
//! ```text
//! control                 the process that serves
//! control.draining-4711   one before it, by the number of its socket's inode
//! ```
//!
//! Who may write to that folder decides who is asked, as with the control socket itself.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::config::unit_name;
use crate::daemon::accept::aside;

/// Moves the socket at `control` aside if it belongs to a process that drains, which is
/// asked. Returns whether the path is free now.
///
/// # Errors
/// When the folder cannot be written to.
pub(super) fn move_aside(control: &Path, drains: impl FnOnce(&Path) -> bool) -> io::Result<bool> {
    let inode = match fs::symlink_metadata(control) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        metadata => metadata?.ino(),
    };
    // systemd starts a unit only when its main process is gone. There, only root may ask.
    if unit_name().is_none() && !drains(control) {
        return Ok(false);
    }
    // Never over the file of another socket.
    let flags = RenameFlags::RENAME_NOREPLACE;
    Ok(renameat2(AT_FDCWD, control, AT_FDCWD, &aside(control, inode), flags).map(|()| true)?)
}

/// The files that were moved aside, of processes that drain or have ended.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn all(control: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (control.parent(), control.file_name()) else {
        return Ok(vec![]);
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let files = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        files => files?,
    };
    let of_this = |path: &PathBuf| {
        let inode = fs::symlink_metadata(path).map(|metadata| metadata.ino());
        inode.is_ok_and(|inode| aside(&folder.join(name), inode) == *path)
    };
    let paths: io::Result<Vec<_>> = files.map(|file| Ok(file?.path())).collect();
    Ok(paths?.into_iter().filter(of_this).collect())
}
