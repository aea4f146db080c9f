//! Standard output of the commands.

use std::fmt;
use std::io::Write;

use crate::process::stdio::Stdout;
use crate::report::{AnyError, SystemError};

/// Prints a text.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn print(text: &dyn fmt::Display) -> Result<(), AnyError> {
    let written = Stdout.write_all(text.to_string().as_bytes());
    Ok(written.map_err(SystemError::of("cannot write to standard output"))?)
}
