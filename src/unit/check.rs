//! `spiped unit-check`: checks a unit's files before the daemon starts, as root. It also
//! tells the daemon whether systemd has started the unit again by itself.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, FileType};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::systemd::ask;
use crate::config::environment_file::{Comments, EnvironmentFile, Unreadable};
use crate::config::unit_name;
use crate::keys::entry::{self, KeyEntry};
use crate::keys::error::KeyFileError;
use crate::keys::file::Owners;
use crate::keys::folder::{self, Folders};
use crate::keys::guessable::GuessableKey;
use crate::report::{Report, exit};

/// Why a unit cannot start with its files.
#[derive(Debug, Error)]
pub(crate) enum UnitCheckError {
    #[error("cannot read {}: {error}", path.display())]
    Configuration { path: PathBuf, error: io::Error },
    /// Another user could change what root runs, and where the pipe leads.
    #[error("users other than root can write to {}", .0.display())]
    WritableConfiguration(PathBuf),
    /// systemd takes it for empty, silently.
    #[error("{} is refused: {unread}", path.display())]
    Unreadable { path: PathBuf, unread: Unreadable },
    /// Whether the line behind it counts depends on the version of systemd.
    #[error("{} is refused: the comment in line {line} ends with a backslash", path.display())]
    JoinedComment { path: PathBuf, line: usize },
    /// The daemon would look for its keys elsewhere.
    #[error("{} sets CREDENTIALS_DIRECTORY, where the unit finds its keys", .0.display())]
    Credentials(PathBuf),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// systemd hands over the files of a folder, and silently leaves its links out.
    #[error("{} is a link, and systemd hands the daemon no links of a folder", .0.display())]
    Link(PathBuf),
}

impl Report for UnitCheckError {
    fn hint(&self) -> &str {
        match self {
            Self::Configuration { path, error } => configuration_hint(path, error),
            Self::WritableConfiguration(_) => "run 'chown root' and 'chmod 644' on the file",
            Self::Unreadable { .. } => "write it anew, in UTF-8",
            Self::JoinedComment { .. } => "end it with another character",
            Self::Credentials(_) => "remove that line",
            Self::Key(error) => error.hint(),
            Self::Link(_) => "put the file itself there",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration { error, .. }
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                exit::NO_PERMISSION
            }
            Self::Configuration { .. } => exit::NO_INPUT,
            Self::WritableConfiguration(_) => exit::NO_PERMISSION,
            Self::Unreadable { .. }
            | Self::JoinedComment { .. }
            | Self::Credentials(_)
            | Self::Link(_) => exit::DATA,
            Self::Key(error) => error.exit_code(),
        }
    }
}

/// The hint where the configuration cannot be read. systemd-escape turns `a-b` into `a\x2db`,
/// for which there is no file.
fn configuration_hint(path: &Path, error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "try it with sudo: only root can read it"
    } else if path.to_string_lossy().contains('\\') {
        "name the unit after the file as it is, without systemd-escape"
    } else if path.extension().is_some_and(|kind| kind == "addr") {
        "write one line, ADDR= and the server's IP address; then 'systemctl start' the unit"
    } else {
        "'spiped setup' writes it, or see spiped.conf(5); then 'systemctl start' the unit"
    }
}

/// Checks the files of a unit: its configuration, and those of its key files and folders of
/// keys that exist. Returns the warnings about keys that can be guessed.
///
/// # Errors
/// When the configuration cannot be read, or users other than root can write to it; or when
/// there is no key, or one is refused. There may be no key where systemd decrypts the file or
/// folder with `.cred` behind its name.
pub(crate) fn check(
    configuration: &Path,
    keys: &[PathBuf],
) -> Result<Vec<GuessableKey>, UnitCheckError> {
    read_configuration(configuration, Comments::OneLine)?;
    let entries = read_keys(keys, Folders::Allowed)?;
    if let Some((note, unit)) = note().zip(unit_name()) {
        // That of an earlier start.
        let _gone = fs::remove_file(&note);
        if is_restarted_by_systemd(&unit) {
            // Follows no link. Without the note, the daemon fails where it could wait.
            let _written = File::create_new(note);
        }
    }
    Ok(entries.iter().filter_map(KeyEntry::guessable).collect())
}

/// Reads a configuration, to which root alone must be able to write.
///
/// # Errors
/// When others can write to it, or it cannot be read, or systemd would take none of it.
pub(super) fn read_configuration(
    path: &Path,
    comments: Comments,
) -> Result<EnvironmentFile, UnitCheckError> {
    check_owner(path)?;
    let content = fs::read(path)
        .map_err(|error| UnitCheckError::Configuration { path: path.into(), error })?;
    let file = EnvironmentFile::parse(&content, comments)
        .map_err(|unread| UnitCheckError::Unreadable { path: path.into(), unread })?;
    if file.value("CREDENTIALS_DIRECTORY").is_some() {
        return Err(UnitCheckError::Credentials(path.into()));
    }
    Ok(file)
}

fn check_owner(configuration: &Path) -> Result<(), UnitCheckError> {
    let unread = |error| UnitCheckError::Configuration { path: configuration.into(), error };
    let metadata = fs::metadata(configuration).map_err(unread)?;
    if !metadata.is_file() {
        return Err(unread(io::Error::other("it is not a regular file")));
    }
    if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(UnitCheckError::WritableConfiguration(configuration.into()));
    }
    Ok(())
}

/// Reads and checks the keys of a unit, at those of the paths where something is.
///
/// # Errors
/// When there is no key, or one is refused. There are none where systemd decrypts the file or
/// folder with `.cred` behind its name.
pub(crate) fn read_keys(
    keys: &[PathBuf],
    folders: Folders,
) -> Result<Vec<KeyEntry>, UnitCheckError> {
    let there = folder::existing(keys);
    there.iter().try_for_each(|path| check_folder(path))?;
    match folder::read_all(&there, Owners::User(0), folders) {
        Err(error) if is_none(&error) && keys.iter().any(|key| encrypted(key).exists()) => {
            Ok(vec![])
        }
        entries => {
            let entries = entries?;
            entry::check(&entries)?;
            Ok(entries)
        }
    }
}

/// Checks that systemd hands over what is in a folder of keys, and nothing else. What cannot be
/// read is an error where the keys are read.
fn check_folder(folder: &Path) -> Result<(), UnitCheckError> {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (kind, path) = (file.file_type(), file.path());
        if kind.as_ref().is_ok_and(FileType::is_dir) {
            return Err(KeyFileError::FolderInFolder(path).into());
        }
        if kind.is_ok_and(|kind| kind.is_symlink()) && !folder::is_left_over(&file.file_name()) {
            return Err(UnitCheckError::Link(path));
        }
    }
    Ok(())
}

/// Whether the error is that there is no key.
fn is_none(error: &KeyFileError) -> bool {
    let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    matches!(error, KeyFileError::Read { error, .. } if is_missing(error))
        || matches!(error, KeyFileError::NoKeys(_))
}

fn encrypted(key: &Path) -> PathBuf {
    let mut path = OsString::from(key);
    path.push(".cred");
    path.into()
}

/// Whether systemd has started this unit again by itself, as its check has found: then no
/// operator waits for the result.
#[must_use]
pub(crate) fn is_restarted() -> bool {
    note().is_some_and(|note| note.exists())
}

/// The file by which a check tells the daemon that systemd has started the unit again. It
/// is in the runtime directory, and new at each start.
fn note() -> Option<PathBuf> {
    let _unit = unit_name()?;
    Some(PathBuf::from(env::var_os("RUNTIME_DIRECTORY")?).join("restarted"))
}

fn is_restarted_by_systemd(unit: &str) -> bool {
    let count = ask(&["show", "--property=NRestarts", "--value", unit]);
    count.is_ok_and(|count| count.trim().parse::<u64>().is_ok_and(|restarts| restarts > 0))
}
