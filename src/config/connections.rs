//! The options for a daemon's connections.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::ArgPredicate;
use clap::{ArgAction, Args};

use super::loopback_range::LoopbackRange;
use super::value::{ValueError, flag, seconds, with_words};

/// How many connections there are, and to where. `spipe` has none of this.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct ConnectionsConfig {
    /// Connections at once; 0 is what fits
    #[arg(short = 'n', long = "connections", value_name = "NUMBER", default_value_t)]
    pub(crate) max: MaxConnections,

    /// With -d: at once of one key
    #[arg(long, value_name = "NUMBER", default_value_t, conflicts_with = "encrypt")]
    pub(crate) per_key: PerKey,

    /// With -d: connect from an address of the key
    #[arg(long, value_name = "RANGE", conflicts_with_all = ["encrypt", "bind"])]
    pub(crate) bind_per_key: Option<LoopbackRange>,

    /// How often to resolve the target
    #[arg(
        short = 'r',
        long = "resolve",
        value_name = "SECONDS",
        default_value_t,
        default_value_if("no_resolve", ArgPredicate::IsPresent, "0")
    )]
    pub(crate) refresh: Refresh,

    /// Never resolve the target again
    // After -r, whose default it changes, as in log.rs.
    #[arg(short = 'R', long, conflicts_with = "refresh")]
    no_resolve: bool,

    /// With -e: sessions to keep ready
    #[arg(long, value_name = "NUMBER", default_value_t, conflicts_with = "decrypt")]
    pub(crate) prewarm: Prewarm,

    /// Many connections over few sessions: on, off
    #[arg(long, value_name = "USE", default_value_t,
          value_parser = with_words::<CarriersUse>(&["on", "off"]), hide_possible_values = true)]
    pub(crate) carriers: CarriersUse,

    /// With -e: tell the receiver the client's address
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "decrypt",
          value_parser = flag(TellClient::No, TellClient::Yes))]
    pub(crate) tell_client: TellClient,

    /// With -d: tell the target whose connection it is
    #[arg(long, conflicts_with = "encrypt")]
    pub(crate) proxy_protocol: bool,

    /// The same, the client's address alone
    #[arg(long, conflicts_with_all = ["encrypt", "proxy_protocol"])]
    pub(crate) proxy_protocol_address: bool,
}

/// `-n`: how many connections there may be at once; `None` for as many as the
/// file descriptors allow (written 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MaxConnections(pub Option<NonZeroU32>);

impl fmt::Display for MaxConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.map_or(0, NonZeroU32::get))
    }
}

impl FromStr for MaxConnections {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(|number| Self(NonZeroU32::new(number))).map_err(|_| {
            ValueError::not(text, "a number of connections (0: no limit but the file descriptors)")
        })
    }
}

/// `--per-key`: how many connections one key may have at once; `None` for as many as
/// there are (written 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerKey(pub Option<NonZeroU32>);

impl fmt::Display for PerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        MaxConnections(self.0).fmt(f)
    }
}

impl FromStr for PerKey {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(|number| Self(NonZeroU32::new(number))).map_err(|_| {
            ValueError::not(text, "a number of connections of one key (0: no limit of its own)")
        })
    }
}

/// `-r`: how often the target's name is resolved again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// After this time.
    Every(Duration),
    /// Once it has been resolved, never again (written 0).
    Never,
}

impl Default for Refresh {
    fn default() -> Self {
        Self::Every(Duration::from_mins(1))
    }
}

impl fmt::Display for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(time) => write!(f, "{}", time.as_secs_f64()),
            Self::Never => f.write_str("0"),
        }
    }
}

impl FromStr for Refresh {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match seconds(text) {
            Some(Duration::ZERO) => Ok(Self::Never),
            Some(time) => Ok(Self::Every(time)),
            None => Err(ValueError::not(text, "a time in seconds, at most 86400 (0: never)")),
        }
    }
}

/// `--prewarm`: how many sessions a sender keeps ready for connections to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prewarm(usize);

impl Prewarm {
    const MAX: usize = 1000;

    /// The number of sessions; 0 keeps none.
    #[must_use]
    pub(crate) const fn get(self) -> usize {
        self.0
    }
}

impl fmt::Display for Prewarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Prewarm {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = text.parse().ok().filter(|number| *number <= Self::MAX).map(Self);
        number.ok_or_else(|| ValueError::not(text, "a number of sessions from 0 to 1000"))
    }
}

/// `--carriers`: whether connections share sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CarriersUse {
    /// Many connections share a session, where both ends do so.
    On,
    /// Each connection has a session of its own.
    #[default]
    Off,
}

impl fmt::Display for CarriersUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

impl FromStr for CarriersUse {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(ValueError::not(text, "on or off")),
        }
    }
}

/// `--tell-client`: whether the receiver's log names the clients of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TellClient {
    /// It names the sender alone.
    No,
    /// It names the sender, and the client as the sender says.
    Yes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_their_bounds_are_refused() {
        assert_eq!("0".parse(), Ok(MaxConnections(None)));
        assert_eq!("7".parse(), Ok(MaxConnections(NonZeroU32::new(7))));
        assert!("-1".parse::<MaxConnections>().is_err());
        assert_eq!("1000".parse().map(Prewarm::get), Ok(1000));
        assert!("1001".parse::<Prewarm>().is_err());
        assert_eq!("0".parse(), Ok(Refresh::Never));
    }
}
