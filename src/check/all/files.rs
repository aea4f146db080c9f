//! The files of a unit.

use std::path::{Path, PathBuf};

use crate::setup::plan::PLAIN_CONF;
use crate::unit::configuration::FOLDER;

/// The name of the pipe of the units that have none.
const PLAIN: &str = "redis";

/// The files of a unit, as its unit file names them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnitFiles {
    pub(crate) conf: PathBuf,
    pub(crate) key: PathBuf,
    /// The folder of further keys of a receiver.
    pub(crate) keys: PathBuf,
}

impl UnitFiles {
    /// The files of a unit of this name; none of a unit that is not ours.
    pub(crate) fn of(unit: &str) -> Option<Self> {
        let unit = unit.strip_suffix(".service")?;
        let (kind, name) = unit.split_once('@').unwrap_or((unit, PLAIN));
        if !matches!(kind, "spiped-receive" | "spiped-send") {
            return None;
        }
        let at = |ending: &str| Path::new(FOLDER).join(format!("{name}.{ending}"));
        let conf = if unit.contains('@') { at("conf") } else { PLAIN_CONF.into() };
        Some(Self { conf, key: at("key"), keys: at("keys") })
    }

    /// Where the file of a key of this name may be: the key, and the encrypted credential.
    pub(crate) fn of_key(&self, name: &str) -> Vec<PathBuf> {
        let file = format!("{name}.key");
        let own = self.key.ends_with(&file).then(|| self.key.clone());
        let with_cred = |path: &Path| PathBuf::from(format!("{}.cred", path.display()));
        let encrypted = own.as_deref().map(with_cred);
        let folder = self.keys.join(&file);
        let of_folder = with_cred(&with_cred(&self.keys).join(&file));
        own.into_iter().chain([folder]).chain(encrypted).chain([of_folder]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_names_its_files() {
        let of = |unit: &str| UnitFiles::of(unit).map(|it| it.conf.display().to_string());
        assert_eq!(of("spiped-send@a.b.service").as_deref(), Some("/etc/spiped/a.b.conf"));
        assert_eq!(of("spiped-receive.service").as_deref(), Some("/etc/spiped/redis.addr"));
        assert_eq!(of("redis.service"), None);
        let files = UnitFiles::of("spiped-receive@a.service").unwrap();
        let paths = |name: &str| {
            let all = files.of_key(name).into_iter().map(|it| it.display().to_string());
            all.collect::<Vec<_>>().join(" ").replace("/etc/spiped/", "")
        };
        assert_eq!(paths("a"), "a.key a.keys/a.key a.key.cred a.keys.cred/a.key.cred");
        assert_eq!(paths("bob"), "a.keys/bob.key a.keys.cred/bob.key.cred");
    }
}
