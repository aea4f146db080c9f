//! Opening key files, settings and folders of keys: who may own them, and the links on the way.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use super::error::KeyFileError;

/// As many as the kernel follows.
const LINKS_MAX: usize = 40;

/// The users who may own a key file. The owner could replace the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Any user, since the key is only looked at.
    Anybody,
    /// Root and the user of this process.
    Own,
    /// Root, the user of this process, and the user of this uid, who runs the daemon.
    OwnOr(u32),
    /// Root and the user of this uid.
    User(u32),
}

impl Owners {
    pub(super) fn include(self, owner: u32) -> bool {
        let is_own = || owner == geteuid().as_raw();
        owner == 0
            || match self {
                Self::Anybody => true,
                Self::Own => is_own(),
                Self::OwnOr(user) => owner == user || is_own(),
                Self::User(user) => owner == user,
            }
    }
}

/// Opens a file or folder for reading.
///
/// The user of a daemon may own files that root reads for it. Then links of that user, or of
/// others, are not followed anywhere in the path: they could lead to a file that only root can
/// read, and the daemon would get it.
///
/// # Errors
/// When it cannot be opened, or the path leads over such a link.
pub(super) fn open(path: &Path, owners: Owners) -> Result<File, KeyFileError> {
    if let Owners::OwnOr(user) = owners
        && !owns_links(user)
    {
        return open_by_links_of_own(path);
    }
    // Without O_NONBLOCK, to open a named pipe would wait for its writer.
    let flags = OFlag::O_NONBLOCK.bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.map_err(|error| KeyFileError::Read { path: path.into(), error })
}

/// Whether links of this user are followed.
fn owns_links(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

/// Goes from folder to folder, and looks at the owner of each link.
fn open_by_links_of_own(path: &Path) -> Result<File, KeyFileError> {
    let unread = |error: io::Error| KeyFileError::Read { path: path.into(), error };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open_at = |at: Option<&File>, name: &Path, more| {
        let opened = match at {
            Some(folder) => openat(folder, name, flags | more, Mode::empty()),
            None => openat(AT_FDCWD, name, flags | more, Mode::empty()),
        };
        opened.map(File::from).map_err(|error| unread(error.into()))
    };
    let parts = |path: &Path| -> Vec<_> {
        path.components().rev().map(|part| Path::new(&part).to_path_buf()).collect()
    };
    let mut rest = parts(path);
    let (mut at, mut links) = (None, 0);
    while let Some(name) = rest.pop() {
        let found = open_at(at.as_ref(), &name, OFlag::O_PATH)?;
        let metadata = found.metadata().map_err(unread)?;
        if metadata.is_symlink() {
            let owner = metadata.uid();
            if !owns_links(owner) {
                return Err(KeyFileError::Link { path: path.into(), owner });
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(unread(Errno::ELOOP.into()));
            }
            let target = readlinkat(&found, "").map_err(|error| unread(error.into()))?;
            rest.extend(parts(Path::new(&target)));
        } else if rest.is_empty() {
            return open_at(at.as_ref(), &name, OFlag::O_RDONLY | OFlag::O_NONBLOCK);
        } else {
            at = Some(found);
        }
    }
    Err(unread(Errno::ENOENT.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::{lchown, symlink};

    use super::*;

    const OTHER: u32 = 12345;

    fn text(path: &Path, owners: Owners) -> Result<String, String> {
        let mut text = String::new();
        let mut file = open(path, owners).map_err(|error| error.to_string())?;
        file.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn root_may_always_own_a_key_and_others_where_they_are_named() {
        let own = geteuid().as_raw();
        let other = own.saturating_add(1);
        let included = |owners: Owners| [0, own, other].map(|owner| owners.include(owner));
        assert_eq!(included(Owners::Anybody), [true; 3]);
        assert_eq!(included(Owners::Own), [true, true, false]);
        assert_eq!(included(Owners::OwnOr(other)), [true; 3]);
        assert_eq!(included(Owners::User(other)), [true, own == 0, true]);
    }

    #[test]
    fn links_of_root_lead_on_and_links_of_others_do_not() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("secret")).unwrap();
        fs::write(at("secret/key"), "content").unwrap();
        // As in a volume of Kubernetes.
        symlink("secret", at("..data")).unwrap();
        symlink("..data/key", at("roots")).unwrap();
        symlink(at("secret/../roots"), at("absolute")).unwrap();
        symlink("secret/key", at("its")).unwrap();
        symlink("secret", at("its-folder")).unwrap();
        symlink("its", at("roots-to-its")).unwrap();
        symlink("round", at("round")).unwrap();
        for its in ["its", "its-folder"] {
            lchown(at(its), Some(OTHER), Some(OTHER)).unwrap();
        }
        for name in ["secret/key", "secret/./../secret/key", "roots", "absolute"] {
            assert_eq!(text(&at(name), Owners::OwnOr(OTHER)).as_deref(), Ok("content"), "{name}");
        }
        for name in ["its", "its-folder/key", "roots-to-its"] {
            let error = text(&at(name), Owners::OwnOr(OTHER)).unwrap_err();
            assert!(error.ends_with("leads over a link of user 12345"), "{error}");
            for owners in [Owners::Own, Owners::Anybody, Owners::OwnOr(0)] {
                assert_eq!(text(&at(name), owners).as_deref(), Ok("content"), "{name}");
            }
        }
        for (name, why) in [("round", "Too many levels"), ("none", "No such"), ("roots/x", "Not a")]
        {
            let error = text(&at(name), Owners::OwnOr(OTHER)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(open(&at("secret"), Owners::OwnOr(OTHER)).unwrap().metadata().unwrap().is_dir());
        assert!(open(Path::new("."), Owners::OwnOr(OTHER)).is_ok());
    }
}
