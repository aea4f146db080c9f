//! The options for the status over HTTP.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::net::SocketAddr;

use clap::{Args, ValueHint};

use super::address::Address;
use super::environment::as_given;
use super::error::ConfigError;
use super::value::ValueError;

/// Where the status is served over HTTP. `spipe` has none of this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct StatusConfig {
    /// Serve metrics, health and a page over HTTP here
    #[arg(long = "status", value_name = "ADDRESS", value_parser = status,
          value_hint = ValueHint::FilePath)]
    pub(crate) at: Option<Address>,

    /// Let other hosts reach --status
    #[arg(long = "expose-status")]
    pub(crate) is_exposed: bool,
}

impl StatusConfig {
    /// Refuses an address that other hosts reach, unless that is wanted.
    pub(super) fn unless_exposed(self) -> Result<Self, ConfigError> {
        match &self.at {
            Some(Address::Inet(at)) if !self.may_listen_on(*at) => {
                let reason = format!("other hosts could read the status at {}", Address::Inet(*at));
                let hint = "use 127.0.0.1, [::1] or a unix socket; --expose-status allows it";
                let by = as_given("--status").into();
                Err(ConfigError::Value { by, error: ValueError::new(reason, hint) })
            }
            _ => Ok(self),
        }
    }

    /// Whether the status may be served at an address.
    pub(crate) fn may_listen_on(&self, at: SocketAddr) -> bool {
        self.is_exposed || at.ip().to_canonical().is_loopback()
    }
}

/// Reads the address of `--status`. A name could become the address of another host.
fn status(text: &str) -> Result<Address, ValueError> {
    match text.parse()? {
        Address::Host(name, _) => {
            let reason = format!("'{name}' is a name, and the status is served at an address");
            Err(ValueError::new(reason, "write 127.0.0.1:9101, [::1]:9101 or /path/of/unix/socket"))
        }
        address @ (Address::Inet(_) | Address::Unix(_)) => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_hosts_reach_the_status_only_where_that_is_wanted() {
        let at = |text: &str, is_exposed| {
            StatusConfig { at: Some(status(text).unwrap()), is_exposed }.unless_exposed()
        };
        for here in ["127.0.0.1:9101", "127.9.9.9:1", "[::1]:9101", "[::ffff:127.0.0.1]:1", "/s"] {
            assert!(at(here, false).is_ok(), "{here}");
        }
        for beyond in ["0.0.0.0:9101", "[::]:9101", "192.0.2.1:9101", "[2001:db8::1]:1"] {
            assert!(at(beyond, false).is_err() && at(beyond, true).is_ok(), "{beyond}");
        }
        assert!(status("localhost:9101").is_err());
    }
}
