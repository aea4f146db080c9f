//! Why a key file was not read or not made.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use thiserror::Error;

use crate::config::key_name::NAMES;
use crate::config::{KeyName, LoopbackRange};
use crate::protocol::{KeyId, KeyLengthError};
use crate::report::{Report, exit};

/// Why a key file was not read or not made. Never has any of its content.
#[derive(Debug, Error)]
pub(crate) enum KeyFileError {
    #[error("cannot read the key file {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    /// It is a folder, a pipe, a device or a socket.
    #[error("the key file {} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Its group, or all users, may read or write it.
    #[error("the key file {} is open to others (mode {mode:04o})", path.display())]
    Mode { path: PathBuf, mode: u32 },
    /// Another user could replace its content.
    #[error("{} belongs to user {owner}, who could replace the key", path.display())]
    Owner { path: PathBuf, owner: u32 },
    /// That user could have it lead to a file that only root can read.
    #[error("the path {} leads over a link of user {owner}", path.display())]
    Link { path: PathBuf, owner: u32 },
    /// It is too short or too long.
    #[error("the key file {} is refused: {error}", path.display())]
    Length { path: PathBuf, error: KeyLengthError },
    /// Standard input ended without a byte.
    #[error("no key on standard input")]
    NoneCame,
    #[error("what was pasted is not the base64 of a key")]
    NotBase64,
    /// A file that was to be copied has a key as people type it.
    #[error("{} has the base64 of a key, and not the key itself", .0.display())]
    Base64(PathBuf),
    /// `keygen` found something at that path.
    #[error("{} exists and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// `keygen` could not write.
    #[error("cannot make the key file {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("the system gave no random bytes: {0}")]
    Randomness(String),
    #[error("no memory is left for the key: {0}")]
    Memory(io::Error),
    #[error("the key file {} has no name for a key", .0.display())]
    Name(PathBuf),
    #[error("{} is a folder, and a sender has one key", .0.display())]
    FolderOfSender(PathBuf),
    #[error("no key is in the folder {}", .0.display())]
    NoKeys(PathBuf),
    /// Another user could put a key there, or change settings.
    #[error("users other than its owner can write to {} (mode {mode:04o})", path.display())]
    FolderMode { path: PathBuf, mode: u32 },
    #[error("{} is neither a key nor the settings of one", .0.display())]
    NoKeyOfFolder(PathBuf),
    #[error("{} is a folder, and a folder of keys has none", .0.display())]
    FolderInFolder(PathBuf),
    #[error("the settings {} are refused: {reason}", path.display())]
    Settings { path: PathBuf, reason: String },
    #[error("the key file {} is named twice", .0.display())]
    Twice(PathBuf),
    #[error("{} is no key, since '{name}' is no name for one", path.display())]
    NameInFolder { path: PathBuf, name: String },
    #[error("two keys have the name {0}")]
    SameName(KeyName),
    #[error("{0} and {1} are the same key")]
    SameKey(KeyName, KeyName),
    #[error("there are more keys than one end can have")]
    TooMany,
    #[error("the address {address} of the key {name} is not in {range}")]
    OutOfRange { name: KeyName, address: Ipv4Addr, range: LoopbackRange },
    #[error("the keys {0} and {1} have the same address, {2}")]
    SameAddress(KeyName, KeyName, Ipv4Addr),
    #[error("the key {0} has an address, and keys are not told apart by addresses here")]
    NoRange(KeyName),
    /// Revoked since this process was started.
    #[error("the key {name} ({id}) was revoked")]
    Revoked { name: KeyName, id: KeyId },
}

impl Report for KeyFileError {
    fn hint(&self) -> &str {
        match self {
            Self::Read { .. } => {
                "check the path and that this user may read it; copy the key from the other end, or make one for both with 'spiped keygen PATH'"
            }
            Self::NotRegular(_) => {
                "give the path of a plain file, or - to read the key from standard input"
            }
            Self::Mode { .. } => {
                "chmod 600 the file, or mount it as root's with mode 0440; if others could read it, make a new key"
            }
            Self::Owner { .. } => {
                "chown it to root or to the user that runs spiped, or run spiped as its owner"
            }
            Self::Link { .. } => {
                "links there must be root's: put the file itself there, or name the file it leads to"
            }
            Self::Length { .. } => {
                "make a key with 'spiped keygen PATH'; if this is a key, it was not copied unchanged"
            }
            Self::NoneCame => "give the content of a key file: add '< FILE' to the command",
            Self::NotBase64 => "paste all that 'sudo base64 FILE' prints on the other host",
            Self::Base64(_) => "this is the base64 of a key; decode it: base64 -d",
            Self::Exists(_) => "choose another path, or move the old key away once no end uses it",
            Self::Write { .. } => "check that the folder exists and that this user may write to it",
            Self::Randomness(_) => "try again once the system has started",
            Self::Memory(_) => "raise the limit of memory (MemoryMax=, ulimit -v)",
            Self::Name(_) | Self::NameInFolder { .. } => NAMES,
            Self::Twice(_) => "name each file once: a key has one name",
            Self::FolderOfSender(_) => "name one key file; only a receiver (-d) takes a folder",
            Self::NoKeys(_) => "make a key there with 'spiped keygen FOLDER/NAME.key'",
            Self::FolderMode { .. } => {
                "run 'chmod go-w' on it; if others could write, look at each key"
            }
            Self::NoKeyOfFolder(_) | Self::FolderInFolder(_) => {
                "a folder of keys has only NAME.key and NAME.conf: move anything else elsewhere"
            }
            Self::Settings { .. } => "see KEYS in spiped(1)",
            Self::SameName(_) => "a key is named after its file: rename one of the two files",
            Self::SameKey(..) => "remove one of the two files, and make a key of its own for it",
            Self::TooMany => "one end has at most 1000 keys, of 3 MiB together",
            Self::OutOfRange { .. } => "choose another ADDRESS= in NAME.conf",
            Self::SameAddress(..) => "give one of them another ADDRESS= in its NAME.conf",
            Self::NoRange(_) => "add --bind-per-key, or remove ADDRESS= from NAME.conf",
            Self::Revoked { .. } => {
                "remove its file; if it is to be in force again, restart this spiped"
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. } | Self::NoneCame | Self::NoKeys(_) => exit::NO_INPUT,
            Self::Length { .. }
            | Self::NotBase64
            | Self::Base64(_)
            | Self::NameInFolder { .. }
            | Self::NoKeyOfFolder(_)
            | Self::FolderInFolder(_)
            | Self::Settings { .. }
            | Self::SameName(_)
            | Self::SameKey(..)
            | Self::TooMany
            | Self::OutOfRange { .. }
            | Self::SameAddress(..)
            | Self::NoRange(_)
            | Self::Revoked { .. } => exit::DATA,
            Self::NotRegular(_)
            | Self::Mode { .. }
            | Self::Owner { .. }
            | Self::Link { .. }
            | Self::FolderMode { .. } => exit::NO_PERMISSION,
            Self::Name(_) | Self::Twice(_) | Self::FolderOfSender(_) => exit::USAGE,
            Self::Exists(_) | Self::Write { .. } => exit::CANNOT_CREATE,
            Self::Randomness(_) | Self::Memory(_) => exit::OS,
        }
    }
}
