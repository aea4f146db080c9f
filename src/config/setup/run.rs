//! Whether `spiped setup` does what it is told.

/// Whether anything is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Each step is done.
    Real,
    /// `--dry-run`: each step is printed only.
    Dry,
}

/// The value of `--dry-run`.
impl From<bool> for Run {
    fn from(dry_run: bool) -> Self {
        if dry_run { Self::Dry } else { Self::Real }
    }
}
