//! A process that has answered, and what of its answer can be believed: any user may answer at a
//! control socket of his own, and must not hide, or make up, anything of other pipes.

use std::net::SocketAddr;
use std::path::Path;

use nix::unistd::geteuid;

use super::facts::{Pipe, Told};
use super::sockets::Sockets;
use crate::config::Address;
use crate::status::{Answer, Asked, State, Status};
use crate::unit::files::UnitFiles;

/// A process that has answered.
pub(super) struct Process<'a> {
    pub(super) status: &'a Status,
    /// As the kernel tells.
    pub(super) pid: u32,
    /// The unit of systemd whose folder has its socket, and the files of that.
    unit: Option<(String, UnitFiles)>,
    /// What it really has; none where that is not seen.
    sockets: Option<&'a Sockets>,
}

impl<'a> Process<'a> {
    /// # Errors
    /// Why it could not be asked, or says what cannot be; and a hint.
    pub(super) fn of(
        asked: &'a Asked,
        sockets: Option<&'a Sockets>,
    ) -> Result<Self, (String, String)> {
        let status = match &asked.answer {
            Answer::Told(status) => status,
            Answer::Failed { error, hint } => return Err((error.clone(), hint.clone())),
        };
        let unit = match &status.unit {
            Some(told) => Some(unit_of(asked, told, status)?),
            None => None,
        };
        // Where the kernel does not tell, it is of another namespace of processes.
        let pid = asked.pid.unwrap_or(status.pid);
        // No other user sees the sockets of a spiped, which lets no one look into it.
        let sockets = sockets.filter(|_| geteuid().is_root());
        Ok(Self { status, pid, unit, sockets })
    }

    /// The unit that it is of.
    pub(super) fn unit(&self) -> Option<&str> {
        self.unit.as_ref().map(|(unit, _)| &**unit)
    }

    pub(super) fn files(&self) -> Option<&UnitFiles> {
        self.unit.as_ref().map(|(_, files)| files)
    }

    /// Whether it has a socket that listens at an address.
    pub(super) fn listens_at(&self, address: &Address) -> bool {
        self.sockets.is_none_or(|sockets| sockets.has(self.pid, address))
    }

    /// Where it listens, with TCP; nowhere while it only drains.
    pub(super) fn sources(&self) -> Vec<SocketAddr> {
        let drains = self.status.state == State::Draining;
        let told = self.status.listening.iter().filter(|_| !drains);
        let told = told.filter_map(|it| it.parse::<Address>().ok());
        told.filter(|it| self.listens_at(it)).filter_map(|it| it.inet()).collect()
    }
}

/// The unit that a process says that it is of: that in whose folder its socket is.
fn unit_of(
    asked: &Asked,
    told: &str,
    status: &Status,
) -> Result<(String, UnitFiles), (String, String)> {
    let folder = Path::new(&asked.socket).parent().and_then(Path::file_name);
    let is_of_folder = folder.and_then(|it| it.to_str()) == told.strip_suffix(".service");
    let files = UnitFiles::of(told).filter(|it| is_of_folder && it.role == status.role);
    files.map(|files| (told.to_owned(), files)).ok_or_else(|| {
        let role = status.role;
        let error = format!("it says that it is the {role} of {told}, whose socket is not there");
        let hint = "find out which program answers there: 'ss -xlp' shows it";
        (error, hint.to_owned())
    })
}

/// A spiped that listens on this host, and is not asked.
pub(super) fn without_control((pid, addresses): (i32, Vec<String>)) -> Pipe {
    let at = addresses.join(", ");
    let error = format!(
        "process {pid}, a spiped, listens at {at}, and is not asked: no control socket in \
         /run/spiped-receive* or /run/spiped-send* is of it"
    );
    let hint = "run it as a unit, or with --control /run/spiped-receive@NAME/control, or with \
                spiped-send in it";
    let told = Told::Failed { error, hint: hint.to_owned() };
    Pipe { name: format!("process {pid}"), socket: None, told }
}
