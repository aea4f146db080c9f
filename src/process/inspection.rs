//! Inspection of this process by others.

use nix::errno::Errno;
use nix::sys::prctl::{get_dumpable, set_dumpable};

/// Forbids other processes of this user, such as debuggers, to inspect this one, and forbids
/// core dumps, whatever `core_pattern` says. Root can still inspect it.
///
/// To be called first of all, and again after a change of the user, which undoes it.
///
/// # Errors
/// When the system refuses, or does not do it.
pub(crate) fn forbid_inspection() -> nix::Result<()> {
    set_dumpable(false)?;
    if get_dumpable()? { Err(Errno::EPERM) } else { Ok(()) }
}
