//! The words of `spiped setup client`, `revoke` and `rotate` become a [`KeyTask`].

use std::path::PathBuf;

use super::args::{KeyArgs, RotateArgs};
use super::error::SetupConfigError;
use super::name::PipeName;
use super::run::Run;
use crate::config::key_name::{KEY_ENDING, KeyName, NEW};

/// What is to be done with the keys of a pipe that is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyTask {
    pub(crate) pipe: PipeName,
    pub(crate) work: KeyWork,
    /// Whether anything is done.
    pub(crate) run: Run,
}

/// What is to be done with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyWork {
    /// On the receiver's host: make a key for a client.
    Add(KeyName),
    /// On the receiver's host: shut out the client of this key.
    Revoke(KeyName),
    /// On the receiver's host: put a new key in force beside the one of this name.
    Rotate(KeyNames),
    /// On the receiver's host: take the old key out of force, once the client has the new one.
    Finish(KeyNames, OldConnections),
    /// On the sender's host: put this key in place of the one that the sender has.
    Switch(PathBuf),
}

/// What becomes of the open connections that have the old key at the end of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OldConnections {
    GoOn,
    /// `--revoke`: they end at once.
    End,
}

/// The name of a key's file, and that of the new key's while the key is rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyNames {
    pub(crate) name: KeyName,
    pub(crate) new: KeyName,
}

impl TryFrom<KeyName> for KeyNames {
    type Error = SetupConfigError;

    fn try_from(name: KeyName) -> Result<Self, SetupConfigError> {
        let new = format!("{name}{NEW}").parse();
        match new {
            Ok(new) if !name.as_str().ends_with(NEW) => Ok(Self { name, new }),
            _ => Err(SetupConfigError::NoNameToRotate(name)),
        }
    }
}

impl KeyTask {
    /// The task of `setup client`.
    pub(super) fn add(KeyArgs { name, pipe, dry_run }: KeyArgs) -> Result<Self, SetupConfigError> {
        if name.as_str().ends_with(KEY_ENDING) {
            return Err(SetupConfigError::NameOfFile(name));
        }
        // Its key is to be rotated one day.
        let KeyNames { name, .. } = name.try_into()?;
        Ok(Self { pipe, work: KeyWork::Add(name), run: dry_run.into() })
    }

    /// The task of `setup revoke`.
    pub(super) fn revoke(KeyArgs { name, pipe, dry_run }: KeyArgs) -> Self {
        Self { pipe, work: KeyWork::Revoke(name), run: dry_run.into() }
    }

    /// The task of `setup rotate`.
    pub(super) fn rotate(args: RotateArgs) -> Result<Self, SetupConfigError> {
        let RotateArgs { name, pipe, finish, revoke, key, dry_run } = args;
        let old = if revoke { OldConnections::End } else { OldConnections::GoOn };
        let (pipe, work) = match (pipe, key) {
            (Some(pipe), _) if finish => (pipe, KeyWork::Finish(name.try_into()?, old)),
            (Some(pipe), _) => (pipe, KeyWork::Rotate(name.try_into()?)),
            (None, Some(key)) => (name.into(), KeyWork::Switch(key)),
            (None, None) => return Err(SetupConfigError::NoSide),
        };
        Ok(Self { pipe, work, run: dry_run.into() })
    }
}
