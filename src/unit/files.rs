//! The files of a unit.

use std::path::{Path, PathBuf};

use super::configuration::{FOLDER, prefix};
use crate::config::{KeyName, Role, StatusOf};

/// The configuration of the units without a name. It is not a .conf file, so that it cannot
/// be taken for that of a pipe.
pub(crate) const PLAIN_CONF: &str = "/etc/spiped/redis.addr";
/// The name of the pipe of the units that have none.
const PLAIN: &str = "redis";

/// The files of a unit, as its unit file names them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnitFiles {
    pub(crate) role: Role,
    pub(crate) conf: PathBuf,
    pub(crate) key: PathBuf,
    /// The folder of further keys of a receiver.
    pub(crate) keys: PathBuf,
}

impl UnitFiles {
    /// The files of a unit of this name; none of a unit that is not ours.
    pub(crate) fn of(unit: &str) -> Option<Self> {
        let unit = unit.strip_suffix(".service")?;
        // So no name leads out of the folder.
        if !matches!(unit.parse(), Ok(StatusOf::Unit(name)) if name == unit) {
            return None;
        }
        let (kind, name) = unit.split_once('@').unwrap_or((unit, PLAIN));
        let is_receiver = prefix(Role::Decrypt).starts_with(kind);
        let role = if is_receiver { Role::Decrypt } else { Role::Encrypt };
        let at = |ending: &str| Path::new(FOLDER).join(format!("{name}.{ending}"));
        let conf = if unit.contains('@') { at("conf") } else { PLAIN_CONF.into() };
        Some(Self { role, conf, key: at("key"), keys: at("keys") })
    }

    /// Where the file of a key of this name may be: the key, and the encrypted credential.
    pub(crate) fn of_key(&self, name: &KeyName) -> Vec<PathBuf> {
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
        for foreign in ["redis.service", "spiped-receive@../../tmp/evil.service", "spiped-send"] {
            assert_eq!(of(foreign), None);
        }
        let role = |unit: &str| UnitFiles::of(unit).unwrap().role;
        assert_eq!(role("spiped-send.service"), Role::Encrypt);
        let files = UnitFiles::of("spiped-receive@a.service").unwrap();
        assert_eq!(files.role, Role::Decrypt);
        let paths = |name: &str| {
            let all =
                files.of_key(&name.parse().unwrap()).into_iter().map(|it| it.display().to_string());
            all.collect::<Vec<_>>().join(" ").replace("/etc/spiped/", "")
        };
        assert_eq!(paths("a"), "a.key a.keys/a.key a.key.cred a.keys.cred/a.key.cred");
        assert_eq!(paths("bob"), "a.keys/bob.key a.keys.cred/bob.key.cred");
    }
}
