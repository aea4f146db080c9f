//! The process as the system sees it.

pub(crate) mod access;
pub(crate) mod at_once;
pub(crate) mod background;
pub(crate) mod blocking;
pub(crate) mod inspection;
pub(crate) mod new_file;
pub(crate) mod privileges;
pub(crate) mod signals;
pub(crate) mod stdio;
pub(crate) mod usage;
