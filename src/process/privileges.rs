//! `-u`: becoming another user for good.

use nix::errno::Errno;
use nix::unistd::{
    Gid, Group, Uid, User, getresgid, getresuid, setgroups, setresgid, setresuid, setuid,
};
use thiserror::Error;

use super::inspection::forbid_inspection;
use crate::config::RunAs;
use crate::report::{Report, exit};

/// Why the process did not become whom it should.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum PrivilegesError {
    /// There is no such user.
    #[error("there is no user '{0}'")]
    NoUser(String),
    /// The user is a number that no account has, so its group is not known.
    #[error("no user of this system has the number {0}, so its group is not known")]
    NoGroupOf(Uid),
    /// There is no such group.
    #[error("there is no group '{0}'")]
    NoGroup(String),
    /// The system refused a step.
    #[error("cannot become another user: {step}: {error}")]
    Step {
        /// Which step.
        step: &'static str,
        /// The system's word.
        error: Errno,
    },
    /// Everything went well, and yet there is a way back.
    #[error("becoming another user left a way back")]
    WayBack,
}

impl Report for PrivilegesError {
    fn hint(&self) -> &str {
        match self {
            Self::NoUser(_) => "name a user of this system, or its number",
            Self::NoGroupOf(_) => "name its group as well: USER:GROUP",
            Self::NoGroup(_) => "name a group of this system, or its number",
            Self::Step { .. } => "only root can become another user",
            Self::WayBack => "a fault of the system; nothing is served like this",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoUser(_) | Self::NoGroup(_) | Self::NoGroupOf(_) => exit::NO_USER,
            Self::Step { .. } | Self::WayBack => exit::NO_PERMISSION,
        }
    }
}

/// Becomes whom `-u` names: supplementary groups, group, user, in this order;
/// then proves that there is no way back, and closes the process to that user's
/// others again.
///
/// # Errors
/// When there is nobody of that name, or any step is refused.
pub(crate) fn drop_to(run_as: &RunAs) -> Result<(), PrivilegesError> {
    let user = run_as.user.as_deref().map(find_user).transpose()?;
    let group = run_as.group.as_deref().map(find_group).transpose()?;
    let gid = match (group, user) {
        (Some(group), _) => Some(group),
        (None, None) => None,
        (None, Some(user)) => Some(user.group.ok_or(PrivilegesError::NoGroupOf(user.id))?),
    };
    if let Some(gid) = gid {
        setgroups(&[gid]).map_err(refused("setgroups"))?;
        setresgid(gid, gid, gid).map_err(refused("setgid"))?;
    }
    if let Some(user) = user {
        setresuid(user.id, user.id, user.id).map_err(refused("setuid"))?;
    }
    prove_no_way_back(gid, user.map(|user| user.id))?;
    forbid_inspection().map_err(refused("prctl(PR_SET_DUMPABLE)"))
}

/// The number of the user that `-u` names, if it names one.
///
/// # Errors
/// When there is none of that name.
pub(crate) fn user_id(run_as: &RunAs) -> Result<Option<u32>, PrivilegesError> {
    run_as.user.as_deref().map(user_of_name).transpose()
}

/// The number of a user, by name or number.
///
/// # Errors
/// When there is none of that name.
pub(crate) fn user_of_name(name: &str) -> Result<u32, PrivilegesError> {
    Ok(find_user(name)?.id.as_raw())
}

fn prove_no_way_back(gid: Option<Gid>, uid: Option<Uid>) -> Result<(), PrivilegesError> {
    if let Some(gid) = gid {
        let now = getresgid().map_err(refused("getresgid"))?;
        if [now.real, now.effective, now.saved] != [gid; 3] {
            return Err(PrivilegesError::WayBack);
        }
    }
    if let Some(uid) = uid {
        let now = getresuid().map_err(refused("getresuid"))?;
        let is_root_again = !uid.is_root() && setuid(Uid::from_raw(0)).is_ok();
        if is_root_again || [now.real, now.effective, now.saved] != [uid; 3] {
            return Err(PrivilegesError::WayBack);
        }
    }
    Ok(())
}

fn refused(step: &'static str) -> impl Fn(Errno) -> PrivilegesError {
    move |error| PrivilegesError::Step { step, error }
}

/// Whom a process can become: a number may have no account, as in a container.
#[derive(Clone, Copy)]
struct Whom {
    id: Uid,
    /// The account's own.
    group: Option<Gid>,
}

fn find_user(name: &str) -> Result<Whom, PrivilegesError> {
    let of_account = |user: User| Whom { id: user.uid, group: Some(user.gid) };
    if let Ok(Some(user)) = User::from_name(name) {
        return Ok(of_account(user));
    }
    let id = name.parse().map(Uid::from_raw);
    let id = id.map_err(|_| PrivilegesError::NoUser(name.to_owned()))?;
    let account = User::from_uid(id).ok().flatten().map(of_account);
    Ok(account.unwrap_or(Whom { id, group: None }))
}

fn find_group(name: &str) -> Result<Gid, PrivilegesError> {
    Group::from_name(name)
        .ok()
        .flatten()
        .map(|group| group.gid)
        .or_else(|| name.parse().ok().map(Gid::from_raw))
        .ok_or_else(|| PrivilegesError::NoGroup(name.to_owned()))
}
