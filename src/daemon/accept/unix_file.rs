//! The file of a unix socket: whether it is stale, who may connect, where it is once another
//! process has its path, and its removal.

use std::fs::{self, FileType, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::libc::{O_NOFOLLOW, O_PATH};
use nix::unistd::{fchownat, geteuid};
use socket2::{SockAddr, Socket, Type};

use crate::config::SocketMode;
use crate::process::access::SocketOwner;

/// Who may connect to a unix source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    /// `None`: what the umask leaves of all.
    pub(crate) mode: Option<SocketMode>,
    pub(crate) owner: SocketOwner,
}

/// The error of a file that is in the place of a socket.
pub(crate) fn no_socket(kind: FileType) -> io::Error {
    io::Error::other(if kind.is_symlink() {
        "the file there is a symbolic link, which is not followed"
    } else {
        "the file there is not a socket"
    })
}

/// Whether the file is a stale socket, on which no process listens.
pub(super) fn is_stale(path: &Path, address: &SockAddr) -> io::Result<bool> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if !kind.is_socket() {
        return Err(no_socket(kind));
    }
    let probe = Socket::new(address.domain(), Type::STREAM.nonblocking(), None)?.connect(address);
    Ok(probe.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// Where the file of a socket is that has made room for the socket of another process. The
/// inode's number tells several apart.
pub(crate) fn aside(path: &Path, inode: u64) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".draining-{inode}"));
    aside.into()
}

/// The file of a bound unix socket. Guard: removes the file when dropped, also where it was
/// moved [`aside`].
pub(super) struct UnixFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl UnixFile {
    /// The file of a socket that was just bound.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: identity(path)? })
    }

    /// Sets who may connect. Follows no link, and touches no file but that of the socket,
    /// though others may be able to write to its folder.
    pub(super) fn set(&self, rights: Rights) -> io::Result<()> {
        let Rights { mode, owner } = rights;
        let file =
            OpenOptions::new().read(true).custom_flags(O_PATH | O_NOFOLLOW).open(&self.path)?;
        let now = file.metadata()?;
        let is_ours = now.file_type().is_socket()
            && (now.dev(), now.ino()) == self.identity
            && now.uid() == geteuid().as_raw()
            && now.nlink() == 1;
        if !is_ours {
            return Err(io::Error::other("another file has taken the place of the socket"));
        }
        if owner != SocketOwner::default() {
            let given = fchownat(&file, c"", owner.user, owner.group, AtFlags::AT_EMPTY_PATH);
            given.map_err(|error| {
                let error = io::Error::from(error);
                let why = format!("it cannot be given to that owner or group: {error}");
                io::Error::new(error.kind(), why)
            })?;
        }
        if let Some(mode) = mode {
            // fchmod(2) does not take such a descriptor.
            let file = format!("/proc/self/fd/{}", file.as_raw_fd());
            fs::set_permissions(file, Permissions::from_mode(mode.get()))?;
        }
        Ok(())
    }
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        let aside = aside(&self.path, self.identity.1);
        for path in [&self.path, &aside] {
            if identity(path).is_ok_and(|now| now == self.identity) {
                // At the end of the process nothing can be done about it.
                let _still_there = fs::remove_file(path);
            }
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}
