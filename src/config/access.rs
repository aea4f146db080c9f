//! Who may connect to the source: users and groups of this host, and the file of a unix
//! socket.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::str::FromStr;

use clap::{ArgAction, Args};

use super::address::Address;
use super::environment::as_given;
use super::error::ConfigError;
use super::value::ValueError;

/// Who may connect to the source. `spipe` has none of this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct AccessConfig {
    /// With -e: the only users who may connect
    #[arg(long, value_name = "USER", action = ArgAction::Append, value_delimiter = ',',
          value_parser = name, conflicts_with = "decrypt")]
    pub(crate) allow_uid: Vec<String>,

    /// With -e: the only groups, on a unix socket
    #[arg(long, value_name = "GROUP", action = ArgAction::Append, value_delimiter = ',',
          value_parser = name, conflicts_with = "decrypt")]
    pub(crate) allow_gid: Vec<String>,

    /// Mode of a unix source, such as 0660
    #[arg(long, value_name = "MODE")]
    pub(crate) socket_mode: Option<SocketMode>,

    /// Owner of a unix source
    #[arg(long, value_name = "USER", value_parser = name)]
    pub(crate) socket_owner: Option<String>,

    /// Group of a unix source
    #[arg(long, value_name = "GROUP", value_parser = name)]
    pub(crate) socket_group: Option<String>,
}

impl AccessConfig {
    /// Refuses a mode, an owner or a group where this process does not make the socket.
    pub(super) fn unless_of_no_socket(self, source: Option<&Address>) -> Result<Self, ConfigError> {
        match source {
            Some(Address::Unix(_)) => Ok(self),
            Some(source) => self.unless_for_socket(|| {
                let reason = format!("the source {source} is not a unix socket");
                ValueError::new(reason, "leave it out, or listen on a unix socket: -s /path")
            }),
            None => self.unless_for_inherited(),
        }
    }

    /// Refuses a mode, an owner or a group where systemd has made the socket.
    ///
    /// # Errors
    /// When one of them is given.
    pub(crate) fn unless_for_inherited(self) -> Result<Self, ConfigError> {
        self.unless_for_socket(|| {
            let hint = "set SocketMode=, SocketUser= and SocketGroup= in the .socket unit";
            ValueError::new("the socket is not made here, but by systemd".into(), hint)
        })
    }

    fn unless_for_socket(self, error: impl Fn() -> ValueError) -> Result<Self, ConfigError> {
        let given = [
            ("--socket-mode", self.socket_mode.is_some()),
            ("--socket-owner", self.socket_owner.is_some()),
            ("--socket-group", self.socket_group.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            None => Ok(self),
            Some((option, _)) => {
                Err(ConfigError::Value { by: as_given(option).into(), error: error() })
            }
        }
    }
}

/// `--socket-mode`: the permissions of a unix socket's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketMode(u32);

impl SocketMode {
    /// The bits.
    #[must_use]
    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for SocketMode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is_octal = text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
        mode.map(Self).ok_or_else(|| ValueError::not(text, "an octal mode from 0000 to 0777"))
    }
}

/// Reads a name or a number; whether there is such a user is seen at the start.
fn name(text: &str) -> Result<String, ValueError> {
    if text.is_empty() {
        let reason = "a name is empty".to_owned();
        return Err(ValueError::new(reason, "name a user or a group, or several with commas"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_have_permissions_only() {
        let mode = |text: &str| text.parse().map(SocketMode::get);
        assert_eq!((mode("0660"), mode("660"), mode("0")), (Ok(0o660), Ok(0o660), Ok(0)));
        for wrong in ["", "+660", "-1", "0680", "1777", "rw", "0o660"] {
            assert!(mode(wrong).is_err(), "{wrong}");
        }
    }
}
