//! The keys of a pipe that is set up: `spiped setup client`, `revoke` and `rotate`.
//!
//! ```text
//! client NAME --pipe PIPE             server   makes PIPE.keys/NAME.key
//!
//! rotate NAME --pipe PIPE             server   makes PIPE.keys/NAME.new.key: both are in force
//! rotate PIPE --key FILE              client   proves the new key, replaces PIPE.key
//! rotate NAME --pipe PIPE --finish    server   NAME.new.key becomes NAME.key
//!
//! revoke NAME --pipe PIPE             server   removes the file, then ends the connections
//! ```
//!
//! The key that a pipe was made with is PIPE.key, and its name is PIPE. Files change first,
//! the running process second, so that it has no key that a boot would not have. Each change
//! of a file is done as a whole or not at all, and the running process takes the files as
//! they are: a run that was cut off is finished by the same command.

mod client;
mod receiver;
mod revoke;
mod rotate;
mod switch;

use self::receiver::Receiver;
use super::SetupReport;
use super::error::SetupError;
use super::lock::lock;
use super::plan::is_barred;
use crate::config::setup::{KeyTask, KeyWork, Run};

/// Does what is to be done with a key; with `--dry-run` only looks.
///
/// # Errors
/// When it is not done, or not to its end.
pub(super) fn run(task: &KeyTask) -> Result<SetupReport, SetupError> {
    if is_barred() {
        return Ok(SetupReport::of("only root sees which keys there are\n".to_owned()));
    }
    // It locks once it has read the key, which may come slowly.
    if let KeyWork::Switch(key) = &task.work {
        return switch::switch(&task.pipe, key, task.run);
    }
    let _lock = (task.run == Run::Real).then(lock).transpose()?;
    let receiver = Receiver::find(&task.pipe)?;
    let text = match &task.work {
        KeyWork::Revoke(name) => return revoke::revoke(&receiver, name, task.run),
        KeyWork::Finish(names, old) => {
            return rotate::finish(&receiver, names, *old, task.run);
        }
        KeyWork::Add(name) => client::add(&receiver, name, task.run),
        KeyWork::Rotate(names) => rotate::begin(&receiver, names, task.run),
        KeyWork::Switch(_) => unreachable!("it was done before"),
    };
    text.map(SetupReport::of)
}
