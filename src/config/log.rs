//! The options for the log.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::fmt;
use std::str::FromStr;

use clap::builder::ArgPredicate;
use clap::{ArgAction, Args};
use tracing::level_filters::LevelFilter;

use super::value::{ValueError, flag, with_words};

/// What is logged, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub(crate) struct LogConfig {
    /// off, error, warn, info or debug
    // Before the two options that change its default: clap takes an option for given
    // once it has its own default, and gives defaults in this order.
    #[arg(
        long = "log",
        value_name = "LEVEL",
        value_parser = with_words::<LogLevel>(&["off", "error", "warn", "info", "debug"]),
        hide_possible_values = true,
        default_value_t,
        default_value_ifs = [
            ("quiet", ArgPredicate::IsPresent, "warn"),
            ("verbose", ArgPredicate::IsPresent, "debug"),
        ]
    )]
    pub(crate) level: LogLevel,

    /// Log warnings and errors only
    #[arg(short = 'q', long, conflicts_with = "verbose")]
    quiet: bool,

    /// Log more, such as probes
    #[arg(long)]
    verbose: bool,

    /// text or json
    #[arg(long = "log-format", value_name = "FORMAT", default_value_t,
          value_parser = with_words::<LogFormat>(&["text", "json"]), hide_possible_values = true)]
    pub(crate) format: LogFormat,

    /// Log to syslog; always so in the background
    #[arg(long = "syslog", action = ArgAction::SetTrue,
          value_parser = flag(LogSink::Stderr, LogSink::Syslog))]
    pub(crate) sink: LogSink,
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogSink {
    /// Standard error; with systemd's level prefixes where that is the journal.
    Stderr,
    /// The system's log.
    Syslog,
}

/// `--log`: from which level on lines are logged, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogLevel(pub LevelFilter);

impl Default for LogLevel {
    fn default() -> Self {
        Self(LevelFilter::INFO)
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Other programs have other words for the same level. `err` is not among them,
/// since whoever writes it wants to see failed connections, which are warnings.
/// A word that is not understood is refused, so that it hides nothing.
impl FromStr for LogLevel {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "off" | "none" => Ok(Self(LevelFilter::OFF)),
            "error" => Ok(Self(LevelFilter::ERROR)),
            "warn" | "warning" => Ok(Self(LevelFilter::WARN)),
            "info" | "notice" => Ok(Self(LevelFilter::INFO)),
            // There are no lines below.
            "debug" | "verbose" | "all" => Ok(Self(LevelFilter::DEBUG)),
            _ => Err(ValueError::not(text, "a level of the log (off, error, warn, info or debug)")),
        }
    }
}

/// `--log-format`: how each line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(ValueError::not(text, "a format of the log (text or json)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_several_words_and_no_others() {
        let level = |text: &str| text.parse::<LogLevel>().map(|level| level.0);
        assert_eq!(level("off"), Ok(LevelFilter::OFF));
        assert_eq!(level(" Warning\r"), Ok(LevelFilter::WARN));
        assert!(["spiped=debug", "err", "trace", "4"].map(level).iter().all(Result::is_err));
    }
}
