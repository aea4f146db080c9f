//! `-u`: becoming another user for good.

use nix::errno::Errno;
use nix::unistd::{
    Gid, Group, Uid, User, getresgid, getresuid, setgroups, setresgid, setresuid, setuid,
};
use thiserror::Error;

use super::inspection::forbid_inspection;
use crate::config::RunAs;
use crate::report::{Report, exit};

/// Why the process did not become another user.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum PrivilegesError {
    #[error("there is no user '{0}'")]
    NoUser(String),
    /// The user is a uid without an account.
    #[error("no user of this system has the number {0}, so its group is not known")]
    NoGroupOf(Uid),
    #[error("there is no group '{0}'")]
    NoGroup(String),
    /// The system refused a step.
    #[error("cannot become another user: {step}: {error}")]
    Step { step: &'static str, error: Errno },
    /// All steps succeeded, but the process could become the former user again.
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
            Self::WayBack => "this is a fault of the system, so spiped does not serve",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoUser(_) | Self::NoGroup(_) | Self::NoGroupOf(_) => exit::NO_USER,
            Self::Step { .. } | Self::WayBack => exit::NO_PERMISSION,
        }
    }
}

/// Becomes the user and group after `-u`: supplementary groups, group, user, in this order.
/// Then proves that there is no way back, and forbids inspection again.
///
/// # Errors
/// When there is no such user or group, or a step is refused.
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

/// The uid of the user after `-u`, if it names one.
///
/// # Errors
/// When there is no such user.
pub(crate) fn user_id(run_as: &RunAs) -> Result<Option<u32>, PrivilegesError> {
    run_as.user.as_deref().map(user_of_name).transpose()
}

/// The uid of a user, who is given by name or number.
///
/// # Errors
/// When there is no such user.
pub(crate) fn user_of_name(name: &str) -> Result<u32, PrivilegesError> {
    Ok(find_user(name)?.id.as_raw())
}

/// The gid of a group, which is given by name or number.
///
/// # Errors
/// When there is no such group.
pub(crate) fn group_of_name(name: &str) -> Result<u32, PrivilegesError> {
    Ok(find_group(name)?.as_raw())
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

/// A user. A uid may have no account, as in a container.
#[derive(Clone, Copy)]
struct Account {
    id: Uid,
    /// The group of the account, if there is one.
    group: Option<Gid>,
}

fn find_user(name: &str) -> Result<Account, PrivilegesError> {
    let of_account = |user: User| Account { id: user.uid, group: Some(user.gid) };
    if let Ok(Some(user)) = User::from_name(name) {
        return Ok(of_account(user));
    }
    let id = number(name).map(Uid::from_raw);
    let id = id.ok_or_else(|| PrivilegesError::NoUser(name.to_owned()))?;
    let account = User::from_uid(id).ok().flatten().map(of_account);
    Ok(account.unwrap_or(Account { id, group: None }))
}

/// A number that a user or group can have. The largest one stands for no change in
/// setresuid(2) and setresgid(2).
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

fn find_group(name: &str) -> Result<Gid, PrivilegesError> {
    Group::from_name(name)
        .ok()
        .flatten()
        .map(|group| group.gid)
        .or_else(|| number(name).map(Gid::from_raw))
        .ok_or_else(|| PrivilegesError::NoGroup(name.to_owned()))
}
