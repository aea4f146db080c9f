//! Errors of the command line, and its help.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use thiserror::Error;

use super::output::print;
use crate::config::Unread;
use crate::report::{AnyError, Report, exit};

/// The command line cannot be read.
#[derive(Debug, Error)]
#[error("{reason}")]
struct UsageError {
    reason: String,
    /// A guess of what was meant.
    meant: Option<String>,
}

impl Report for UsageError {
    fn hint(&self) -> &str {
        self.meant.as_deref().unwrap_or("'--help' lists the options")
    }

    fn exit_code(&self) -> u8 {
        exit::USAGE
    }
}

/// Prints what clap asks for, help or version; of an error, takes the first line.
pub(super) fn usage(error: Unread) -> Result<(), AnyError> {
    let error = match error {
        Unread::Options(error) => return Err(error.into()),
        Unread::Words(error) => error,
    };
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return print(&error.render());
    }
    if error.kind() == ErrorKind::InvalidUtf8
        && let Some(wrong) = std::env::args_os().find(|argument| argument.to_str().is_none())
    {
        let reason = format!("'{}' is not valid UTF-8", wrong.to_string_lossy());
        return Err(UsageError { reason, meant: None }.into());
    }
    let text = error.render().to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let line = lines.collect::<Vec<_>>().join(" ");
    let suggestions =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let meant = suggestions.iter().find_map(|kind| {
        let meant = error.get(*kind)?;
        if let ContextValue::Strings(several) = meant {
            // The likeliest one is the last.
            return several.last().cloned();
        }
        Some(meant.to_string())
    });
    Err(UsageError {
        reason: line.trim_start_matches("error: ").to_owned(),
        meant: meant.map(|meant| format!("did you mean '{meant}'? '--help' lists the options")),
    }
    .into())
}
