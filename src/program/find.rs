//! Finds the processes of this host's pipes, and asks them all at once; and the units of
//! systemd that have none.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::StatusOf;
use crate::daemon::control::client::{self, ControlError};
use crate::process::at_once::ask_at_once;
use crate::report::Report;
use crate::setup::{Idle, SeenUnit, seen_units};
use crate::status::{Answer, Asked, Detail};

/// Where the units have a folder each, with a control socket.
const RUN: &str = "/run";

/// A process to be asked.
struct Process {
    name: String,
    socket: PathBuf,
    /// It may have ended since, and nobody misses it.
    may_be_gone: bool,
}

/// What came of all of them.
#[derive(Default)]
pub(super) struct Found {
    pub(super) asked: Vec<Asked>,
    /// How many did not tell because this user may not ask.
    pub(super) without_rights: usize,
    /// The pipes that were named, and of which nothing runs.
    pub(super) missing: Vec<String>,
    /// The units of these pipes that systemd has loaded.
    pub(super) units: Vec<SeenUnit>,
    /// Why the units of systemd could not be seen.
    pub(super) not_seen: Option<String>,
    /// The sockets at which no process listens any more.
    nobody: BTreeSet<String>,
}

/// Asks the processes that are meant; without any, all of units of this host.
pub(super) fn find_and_ask(those: &[StatusOf], detail: Detail) -> Found {
    let mut found = Found::default();
    let mut processes = Vec::new();
    let is_unit = |of: &StatusOf| !matches!(of, StatusOf::Socket(_));
    let is_any_systemd = (those.is_empty() || those.iter().any(is_unit)) && found.see_units();
    if those.is_empty() {
        for unit in all_units() {
            found.add_processes(of_unit(&unit), &mut processes);
        }
    } else {
        let names: Vec<_> = those.iter().flat_map(StatusOf::units).collect();
        found.units.retain(|unit| names.contains(&unit.service));
    }
    for of in those {
        for unit in of.units() {
            found.add_processes(of_unit(&unit), &mut processes);
        }
        if let StatusOf::Socket(path) = of {
            found.add_processes(of_socket(&path.display().to_string(), path), &mut processes);
        }
    }
    found.ask(processes, detail);
    if is_any_systemd {
        found.forget_stopped_units();
    }
    found.add_idle_units();
    let is_missing = |of: &&StatusOf| !found.asked.iter().any(|asked| is_of(asked, of));
    found.missing = those.iter().filter(is_missing).map(ToString::to_string).collect();
    found.asked.sort_by(|one, other| (&one.name, &one.socket).cmp(&(&other.name, &other.socket)));
    found
}

/// The units of spiped that have a folder, whether they run or not.
fn all_units() -> Vec<String> {
    let folders = fs::read_dir(RUN).into_iter().flatten().flatten();
    // By a link of another name, a pipe would count twice; systemd's own links keep the name.
    let folders = folders.filter(|it| {
        let link = fs::read_link(it.path());
        link.map_or(true, |to| to.file_name() == Some(&it.file_name()))
    });
    let names = folders.filter_map(|it| it.file_name().into_string().ok());
    names.filter(|name| matches!(name.parse(), Ok(StatusOf::Unit(unit)) if unit == *name)).collect()
}

/// The name of the pipe of a unit.
fn name_of(unit: &str) -> &str {
    unit.split_once('@').map_or(unit, |(_, instance)| instance)
}

/// The control socket of a unit.
fn control_of(unit: &str) -> PathBuf {
    Path::new(RUN).join(unit).join("control")
}

/// The processes of a unit: none where it does not run.
fn of_unit(unit: &str) -> (Vec<Process>, Option<(Process, ControlError)>) {
    let (mut processes, failed) = of_socket(name_of(unit), &control_of(unit));
    // What cannot be seen may be there.
    let is_gone = |process: &Process| {
        let there = process.socket.symlink_metadata();
        there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    processes.retain(|process| !is_gone(process));
    (processes, failed)
}

/// The processes that have, or have had, a socket at this path, and why some may be missing.
fn of_socket(name: &str, path: &Path) -> (Vec<Process>, Option<(Process, ControlError)>) {
    let process =
        |socket: PathBuf| Process { name: name.to_owned(), may_be_gone: socket != path, socket };
    let (sockets, failed) = match client::sockets(path) {
        Ok(found) => found,
        Err(error) => (vec![], Some(error)),
    };
    let failed = failed.map(|error| (process(path.to_owned()), error));
    (sockets.into_iter().map(process).collect(), failed)
}

impl Found {
    /// Returns whether systemd has told of its units.
    fn see_units(&mut self) -> bool {
        match seen_units() {
            Ok(units) => {
                let is_any = units.is_some();
                self.units = units.unwrap_or_default();
                is_any
            }
            Err(error) => {
                self.not_seen = Some(format!("the units of systemd could not be seen: {error}"));
                false
            }
        }
    }

    fn add_processes(
        &mut self,
        (processes, failed): (Vec<Process>, Option<(Process, ControlError)>),
        all: &mut Vec<Process>,
    ) {
        all.extend(processes);
        if let Some((process, error)) = failed {
            self.add_failure(process, &error, None);
        }
    }

    /// Asks many at once: one that does not answer delays few others. First those that serve.
    fn ask(&mut self, mut processes: Vec<Process>, detail: Detail) {
        processes.sort_by_key(|process| process.may_be_gone);
        let answers =
            ask_at_once(&processes, |process| client::status_and_pid(&process.socket, detail));
        for ((answer, pid), process) in answers.into_iter().zip(processes) {
            match answer {
                Ok(status) => self.asked.push(Asked {
                    name: process.name,
                    socket: process.socket.display().to_string(),
                    pid,
                    answer: Answer::Told(Box::new(status)),
                }),
                Err(error) if process.may_be_gone && error.is_of_nobody() => {}
                Err(error) => {
                    if error.is_of_nobody() {
                        self.nobody.insert(process.socket.display().to_string());
                    }
                    self.add_failure(process, &error, pid);
                }
            }
        }
    }

    /// A process that was killed leaves its socket. Of a unit that is stopped, and that nobody
    /// wants to run, that is nothing; of one that should run, systemd tells more.
    fn forget_stopped_units(&mut self) {
        let is_active = |unit: &&SeenUnit| unit.is_active() && !unit.is_socket();
        let active = self.units.iter().filter(is_active).map(|unit| path_of(&unit.service));
        let active: BTreeSet<_> = active.collect();
        let nobody = &self.nobody;
        // Another one was named by its path.
        self.asked.retain(|asked| {
            !nobody.contains(&asked.socket)
                || active.contains(&asked.socket)
                || asked.name == asked.socket
        });
    }

    /// Units that should run, and do not; and those that are on their way, unless they answer.
    fn add_idle_units(&mut self) {
        let answering: BTreeSet<_> =
            self.asked.iter().filter(|it| it.status().is_some()).map(|it| &it.socket).collect();
        let mut idle = Vec::new();
        for unit in &self.units {
            let socket = path_of(&unit.service);
            let state = match unit.idle() {
                Some(Idle::Changing(_)) if answering.contains(&socket) => continue,
                Some(Idle::Changing(state) | Idle::Down(state)) => state,
                None => continue,
            };
            idle.push(Asked {
                name: name_of(&unit.service).to_owned(),
                socket,
                pid: None,
                answer: Answer::Failed {
                    error: format!("the unit {} is {state}", unit.name),
                    hint: format!("'systemctl status {}' says why", unit.name),
                },
            });
        }
        self.asked.extend(idle);
    }

    fn add_failure(&mut self, process: Process, error: &ControlError, pid: Option<u32>) {
        if error.is_of_rights() {
            self.without_rights += 1;
        }
        self.asked.push(Asked {
            name: process.name,
            socket: process.socket.display().to_string(),
            pid,
            answer: Answer::Failed { error: error.to_string(), hint: error.hint().to_owned() },
        });
    }
}

fn path_of(unit: &str) -> String {
    control_of(unit).display().to_string()
}

/// Whether this came of asking for that.
fn is_of(asked: &Asked, of: &StatusOf) -> bool {
    if let StatusOf::Socket(path) = of {
        return asked.name == path.display().to_string();
    }
    let folder = Path::new(&asked.socket).parent();
    of.units().iter().any(|unit| folder == control_of(unit).parent())
}
