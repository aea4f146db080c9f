//! The options of `spiped status`.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueHint};

use super::process::control;
use super::setup::PipeName;
use super::value::ValueError;

/// What `spiped status` shows, and how.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct StatusArgs {
    /// Pipes of units, or paths that were given by --control; without any, all pipes of units
    #[arg(value_name = "NAME|PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) of: Vec<StatusOf>,
    /// Show each open connection, first those that have waited longest
    #[arg(long)]
    pub(crate) connections: bool,
    /// Print an array of JSON on one line
    #[arg(long, conflicts_with = "tab")]
    pub(crate) json: bool,
    /// Print lines with tabs between their columns, for programs
    #[arg(long)]
    pub(crate) tab: bool,
    /// Ask and print again every 2 seconds, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Whose status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StatusOf {
    /// Both ends of this name that units may run here.
    Pipe(PipeName),
    /// One unit, by its name without `.service`.
    Unit(String),
    /// The control socket of a process.
    Socket(PathBuf),
}

impl StatusOf {
    /// The names of its units; of a socket none.
    pub(crate) fn units(&self) -> Vec<String> {
        match self {
            Self::Pipe(name) => {
                vec![format!("spiped-receive@{name}"), format!("spiped-send@{name}")]
            }
            Self::Unit(name) => vec![name.clone()],
            Self::Socket(_) => vec![],
        }
    }
}

impl FromStr for StatusOf {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.contains('/') {
            return control(text).map(Self::Socket);
        }
        let unit = text.strip_suffix(".service").unwrap_or(text);
        let (kind, instance) = unit.split_once('@').unwrap_or((unit, ""));
        if matches!(kind, "spiped-receive" | "spiped-send") {
            if unit.contains('@') {
                instance.parse::<PipeName>()?;
            }
            return Ok(Self::Unit(unit.to_owned()));
        }
        text.parse().map(Self::Pipe)
    }
}

impl fmt::Display for StatusOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipe(name) => name.fmt(f),
            Self::Unit(name) => f.write_str(name),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_a_unit_and_a_socket_are_told_apart() {
        let units = |text: &str| text.parse::<StatusOf>().map(|of| of.units()).ok();
        let both = ["spiped-receive@redis".to_owned(), "spiped-send@redis".to_owned()];
        assert_eq!(units("redis"), Some(both.to_vec()));
        assert_eq!(units("spiped-send@redis.service"), Some(vec![both[1].clone()]));
        assert_eq!(units("spiped-send"), Some(vec!["spiped-send".to_owned()]));
        assert_eq!("/run/c".parse::<StatusOf>().ok(), Some(StatusOf::Socket("/run/c".into())));
        for wrong in ["", "..", "-", "a b", "spiped-send@", "redis@x", "spiped-send@a b"] {
            assert_eq!(units(wrong), None, "{wrong}");
        }
    }
}
