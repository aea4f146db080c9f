//! The names of a pipe's units.

use std::fmt;

use crate::config::Role;
use crate::config::setup::{End, PipeName};
use crate::unit::configuration::prefix;

/// The name of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit(pub(super) String);

impl Unit {
    pub(super) fn service(end: &End) -> Self {
        Self::both(end.role, &end.name).0
    }

    pub(super) fn socket(end: &End) -> Self {
        Self::both(end.role, &end.name).1
    }

    /// The names of an end's service and socket.
    pub(super) fn both(role: Role, name: &PipeName) -> (Self, Self) {
        let prefix = prefix(role);
        (Self(format!("{prefix}{name}.service")), Self(format!("{prefix}{name}.socket")))
    }

    /// The service that a socket starts.
    pub(super) fn started_by_it(&self) -> Option<Self> {
        Some(Self(format!("{}.service", self.0.strip_suffix(".socket")?)))
    }
}

/// The pipe of a unit, if it is a unit of spiped.
pub(super) fn pipe_of(unit: &str) -> Option<&str> {
    let of = |role| unit.strip_prefix(prefix(role));
    Some(of(Role::Decrypt).or_else(|| of(Role::Encrypt))?.rsplit_once('.')?.0)
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a unit does not start.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) hint: String,
    /// The unit's exit code, if it is one of spiped's.
    pub(crate) code: Option<u8>,
}
