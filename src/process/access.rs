//! Who may connect to the source, in numbers. Names are looked up once, at the start: a
//! look-up may take seconds, and no connection waits for one.

use std::{fs, io};

use nix::unistd::{Gid, Uid};
use thiserror::Error;

use super::privileges::{PrivilegesError, group_of_name, user_of_name};
use crate::config::AccessConfig;
use crate::report::{Report, exit};

/// The users and groups that may use a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AllowedClients {
    pub(crate) uids: Vec<u32>,
    pub(crate) gids: Vec<u32>,
}

/// The owner and the group of a unix source; `None`: those of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketOwner {
    pub(crate) user: Option<Uid>,
    pub(crate) group: Option<Gid>,
}

/// Why it is not known who may connect.
#[derive(Debug, Error)]
pub(crate) enum AccessError {
    #[error(transparent)]
    Account(#[from] PrivilegesError),
    /// In this user namespace, a user or group looks like any other that it lacks.
    #[error("{kind} '{name}' cannot be told from others in this user namespace")]
    Hidden { kind: &'static str, name: String },
    #[error("cannot read {file}: {error}")]
    Namespace { file: &'static str, error: io::Error },
}

impl Report for AccessError {
    fn hint(&self) -> &str {
        match self {
            Self::Account(error) => error.hint(),
            Self::Hidden { .. } => {
                "a unit needs PrivateUsers=no, see WHO MAY USE THE SENDER in man spiped.conf"
            }
            Self::Namespace { .. } => "spiped needs /proc to know which users it can tell apart",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Account(error) => error.exit_code(),
            Self::Hidden { .. } => exit::NO_USER,
            Self::Namespace { .. } => exit::OS,
        }
    }
}

/// The users after `--allow-uid`.
///
/// # Errors
/// When there is no such user, or this process cannot tell it from others.
pub(crate) fn allowed_uids(config: &AccessConfig) -> Result<Vec<u32>, AccessError> {
    let files = ("/proc/self/uid_map", "/proc/sys/kernel/overflowuid");
    ids("user", &config.allow_uid, user_of_name, files)
}

/// The groups after `--allow-gid`.
///
/// # Errors
/// As [`allowed_uids`].
pub(crate) fn allowed_gids(config: &AccessConfig) -> Result<Vec<u32>, AccessError> {
    let files = ("/proc/self/gid_map", "/proc/sys/kernel/overflowgid");
    ids("group", &config.allow_gid, group_of_name, files)
}

fn ids(
    kind: &'static str,
    names: &[String],
    find: fn(&str) -> Result<u32, PrivilegesError>,
    (map, overflow): (&'static str, &str),
) -> Result<Vec<u32>, AccessError> {
    if names.is_empty() {
        return Ok(vec![]);
    }
    let map =
        fs::read_to_string(map).map_err(|error| AccessError::Namespace { file: map, error })?;
    // The sandbox of the units hides the file; the number is the kernel's default.
    let overflow = fs::read_to_string(overflow).ok().and_then(|id| id.trim().parse().ok());
    let overflow = overflow.unwrap_or(65534);
    let find = |name: &String| match find(name) {
        Ok(id) if is_distinct(id, &map, overflow) => Ok(id),
        Ok(_) => Err(AccessError::Hidden { kind, name: name.clone() }),
        Err(error) => Err(error.into()),
    };
    names.iter().map(find).collect()
}

/// Whether an id stands for one user only. A user namespace has some of the ids of the
/// system; all others look like the overflow id in it.
fn is_distinct(id: u32, map: &str, overflow: u32) -> bool {
    // Lines of: first id inside, first id outside, count.
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        Some((numbers.next()??, numbers.nth(1)??))
    });
    let ranges: Vec<_> = ranges.collect();
    let has_all =
        ranges.iter().map(|(_, count)| u64::from(*count)).sum::<u64>() >= u64::from(u32::MAX);
    let is_inside =
        |(first, count): &(u32, u32)| id.checked_sub(*first).is_some_and(|offset| offset < *count);
    ranges.iter().any(is_inside) && (has_all || id != overflow)
}

/// The owner and the group after `--socket-owner` and `--socket-group`.
///
/// # Errors
/// When there is no such user or group.
pub(crate) fn socket_user(config: &AccessConfig) -> Result<Option<Uid>, PrivilegesError> {
    let user = config.socket_owner.as_deref().map(user_of_name).transpose()?;
    Ok(user.map(Uid::from_raw))
}

/// As [`socket_user`], of the group.
///
/// # Errors
/// When there is no such group.
pub(crate) fn socket_group(config: &AccessConfig) -> Result<Option<Gid>, PrivilegesError> {
    let group = config.socket_group.as_deref().map(group_of_name).transpose()?;
    Ok(group.map(Gid::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overflow_id_is_a_user_only_where_all_users_are() {
        let host = "         0          0 4294967295\n";
        assert!(is_distinct(65534, host, 65534) && is_distinct(113, host, 65534));
        assert!(!is_distinct(u32::MAX, host, 65534));
        // A container of one's own users, which has a user nobody, too.
        let container = "0 1000 1\n1 100000 65536\n";
        assert!(is_distinct(113, container, 65534) && is_distinct(65535, container, 65534));
        assert!(!is_distinct(65534, container, 65534) && !is_distinct(70000, container, 65534));
        // PrivateUsers=yes of systemd.
        let unit = "0 0 1\n64321 64321 1\n";
        assert!(is_distinct(0, unit, 65534) && !is_distinct(113, unit, 65534));
        assert!(!is_distinct(0, "", 65534));
    }
}
