//! Where a process takes requests that only lets its open connections end: where it took
//! them before, until the next process takes its path. That one moves the socket's file
//! aside first, in the same folder:
//!
//! ```text
//! control                 the process that serves
//! control.draining-4711   one before it, by the number of its socket's inode
//! ```
//!
//! Who may write to that folder decides who is asked, as with the control socket itself, but
//! not how many: only the newest of these files count.

use std::cmp::Reverse;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::config::unit_name;
use crate::daemon::accept::aside;

/// How many of these files count.
pub(super) const MOST: usize = 32;

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

/// Sockets that were moved aside, of processes that drain or have ended.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// At most [`MOST`], the newest first.
    pub(crate) sockets: Vec<PathBuf>,
    /// How many older ones there are.
    pub(crate) left_out: usize,
}

/// The sockets that were moved aside.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn all(control: &Path) -> io::Result<Aside> {
    let (Some(folder), Some(name)) = (control.parent(), control.file_name()) else {
        return Ok(Aside::default());
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let files = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Aside::default()),
        files => files?,
    };
    let mut found = Vec::new();
    for file in files {
        let path = file?.path();
        if let Ok(metadata) = fs::symlink_metadata(&path)
            && metadata.file_type().is_socket()
            && aside(&folder.join(name), metadata.ino()) == path
        {
            found.push((Reverse((metadata.ctime(), metadata.ctime_nsec())), path));
        }
    }
    found.sort();
    let left_out = found.len().saturating_sub(MOST);
    let sockets = found.into_iter().take(MOST).map(|(_, path)| path).collect();
    Ok(Aside { sockets, left_out })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_the_newest_sockets_count_that_were_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control");
        assert!(all(&control).unwrap().sockets.is_empty());
        let moved = (0..MOST + 3).map(|_| {
            let _listener = UnixListener::bind(&control).unwrap();
            let aside = aside(&control, fs::metadata(&control).unwrap().ino());
            fs::rename(&control, &aside).unwrap();
            aside
        });
        let moved: Vec<_> = moved.collect();
        fs::write(folder.path().join("control.draining-7"), "").unwrap();
        let Aside { sockets, left_out } = all(&control).unwrap();
        assert_eq!((sockets.len(), left_out), (MOST, 3));
        let is_new = |path: &PathBuf| sockets.contains(path);
        assert!(moved[MOST + 3 - 20..].iter().all(is_new), "{sockets:#?}");
    }
}
