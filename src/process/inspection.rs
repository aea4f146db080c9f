//! Whether other processes may look into this one.

use nix::errno::Errno;
use nix::sys::prctl::{get_dumpable, set_dumpable};

/// Closes this process to others of its own user, such as debuggers, and has it
/// leave no core dump, wherever `core_pattern` would send it. Only root is let in.
///
/// To be called first of all, and again after a change of the user, which takes
/// it back.
///
/// # Errors
/// When the system refuses, or says that it did not do it.
pub(crate) fn forbid_inspection() -> nix::Result<()> {
    set_dumpable(false)?;
    if get_dumpable()? { Err(Errno::EPERM) } else { Ok(()) }
}
