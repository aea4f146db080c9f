//! What a reload has changed, key by key.

use std::fmt;

use crate::config::KeyName;
use crate::protocol::KeyId;

/// What has become of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyChange {
    pub(crate) what: Change,
    pub(crate) name: KeyName,
    /// As [`KeyId`] is written.
    pub(crate) id: String,
    /// How many connections have the key.
    pub(crate) open: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Removed,
    Kept,
    Revoked,
}

impl Change {
    const ALL: [Self; 4] = [Self::Added, Self::Removed, Self::Kept, Self::Revoked];

    const fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Kept => "kept",
            Self::Revoked => "revoked",
        }
    }
}

impl KeyChange {
    pub(super) fn new(what: Change, name: &KeyName, id: KeyId, open: usize) -> Self {
        Self { what, name: name.clone(), id: id.to_string(), open }
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.what == Change::Removed
    }

    /// The line of an answer: `added alice 3f9a-12bc-07de-5581 0`.
    pub(crate) fn line(&self) -> String {
        format!("{} {} {} {}", self.what.word(), self.name, self.id, self.open)
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let [what, name, id, open] = words[..] else { return None };
        let what = Change::ALL.into_iter().find(|known| known.word() == what)?;
        let (name, open) = (name.parse().ok()?, open.parse().ok()?);
        Some(Self { what, name, id: id.to_owned(), open })
    }
}

/// For people: `removed bob 3f9a-12bc-07de-5581 (3 connections open)`.
impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, name, id, open } = self;
        write!(f, "{} {name} {id}", what.word())?;
        let connections = if *open == 1 { "connection" } else { "connections" };
        match what {
            Change::Added | Change::Kept => Ok(()),
            Change::Removed => write!(f, " ({open} {connections} open)"),
            Change::Revoked => write!(f, " ({open} {connections} ended)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_understood_as_it_was_told() {
        for what in Change::ALL {
            let id = "3f9a-12bc-07de-5581".to_owned();
            let change = KeyChange { what, name: "a.b".parse().unwrap(), id, open: 1 };
            assert_eq!(KeyChange::parse(&change.line()), Some(change));
        }
        for wrong in ["added a b", "lost a b 1", "added - b 1", "kept a b -1", ""] {
            assert_eq!(KeyChange::parse(wrong), None, "{wrong}");
        }
    }
}
