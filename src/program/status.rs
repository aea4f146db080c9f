//! `spiped status`: finds the processes, asks them all at once, and prints what they tell.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use terminal_size::{Height, Width, terminal_size};
use thiserror::Error;

use super::output::print;
use crate::config::{StatusArgs, StatusOf};
use crate::daemon::control::client::{self, ControlError};
use crate::process::at_once::ask_at_once;
use crate::report::{AnyError, Report, exit};
use crate::setup::idle_units;
use crate::status::{self, Answer, Asked, Detail, tab, text};

/// Where the units have a folder each, with a control socket.
const RUN: &str = "/run";
/// How lines are cut where there is no terminal.
const WIDTH: usize = 120;
/// What is said where no unit of spiped runs.
const NOTHING: [&str; 2] = [
    "no pipe runs here as a unit",
    "hint: 'spiped status /PATH' asks a process with --control /PATH",
];
/// How often `--watch` asks.
const AGAIN: Duration = Duration::from_secs(2);

/// Not all have told their status. What is printed says which, and why.
#[derive(Debug, Error)]
enum NotTold {
    #[error("no pipe {0} runs here")]
    NoPipe(String),
    #[error("{failed} of {all} did not tell the status")]
    Some { failed: usize, all: usize },
    #[error("this user may not ask: only root and the user of a spiped may")]
    Rights,
}

impl Report for NotTold {
    fn hint(&self) -> &str {
        match self {
            Self::NoPipe(_) => {
                "'spiped status' shows all that run as units, 'systemctl' why not; a path begins with /"
            }
            Self::Some { .. } => "the lines above say why; the log of each may say more",
            Self::Rights => "try it with sudo; in the units only root may ask",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoPipe(_) | Self::Some { .. } => exit::UNAVAILABLE,
            Self::Rights => exit::NO_PERMISSION,
        }
    }
}

/// A process to be asked.
struct Process {
    name: String,
    socket: PathBuf,
    /// It may have ended since, and nobody misses it.
    may_be_gone: bool,
}

/// What came of all of them.
#[derive(Default)]
struct Found {
    asked: Vec<Asked>,
    /// How many did not tell because this user may not ask.
    without_rights: usize,
    /// A pipe that was named, and of which nothing runs.
    missing: Option<String>,
}

/// Prints the status of the processes that are meant, once or again and again.
pub(super) fn status(args: &StatusArgs) -> Result<(), AnyError> {
    let mut screen = Screen::default();
    loop {
        let found = find_and_ask(&args.of, detail_of(args));
        screen.show(args, &found)?;
        if !args.watch {
            return found.result();
        }
        sleep(AGAIN);
    }
}

/// Asks all processes of units of this host for all that they tell.
pub(super) fn ask_all() -> Vec<Asked> {
    find_and_ask(&[], Detail::Connections).asked
}

fn find_and_ask(those: &[StatusOf], detail: Detail) -> Found {
    let mut found = Found::default();
    let mut processes = Vec::new();
    if those.is_empty() {
        for unit in all_units() {
            found.add_processes(of_unit(&unit), &mut processes);
        }
        found.add_idle_units();
    }
    for of in those {
        let before = processes.len() + found.asked.len();
        for unit in of.units() {
            found.add_processes(of_unit(&unit), &mut processes);
        }
        if let StatusOf::Socket(path) = of {
            found.add_processes(of_socket(&path.display().to_string(), path), &mut processes);
        }
        if processes.len() + found.asked.len() == before {
            found.missing = Some(of.to_string());
        }
    }
    found.ask(processes, detail);
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
    fn add_processes(
        &mut self,
        (processes, failed): (Vec<Process>, Option<(Process, ControlError)>),
        all: &mut Vec<Process>,
    ) {
        all.extend(processes);
        if let Some((process, error)) = failed {
            self.add_failure(process, &error);
        }
    }

    /// Asks many at once: one that does not answer delays few others. First those that serve.
    fn ask(&mut self, mut processes: Vec<Process>, detail: Detail) {
        processes.sort_by_key(|process| process.may_be_gone);
        let answers = ask_at_once(&processes, |process| client::status(&process.socket, detail));
        for (answer, process) in answers.into_iter().zip(processes) {
            match answer {
                Ok(status) => self.asked.push(Asked {
                    name: process.name,
                    socket: process.socket.display().to_string(),
                    answer: Answer::Told(Box::new(status)),
                }),
                Err(error) if process.may_be_gone && error.is_of_nobody() => {}
                Err(error) => self.add_failure(process, &error),
            }
        }
    }

    /// Units that should run, and do not.
    fn add_idle_units(&mut self) {
        for (service, state) in idle_units() {
            let unit = service.rsplit_once('.').map_or(&*service, |(unit, _kind)| unit);
            self.asked.push(Asked {
                name: name_of(unit).to_owned(),
                socket: control_of(unit).display().to_string(),
                answer: Answer::Failed {
                    error: format!("the unit {service} is {state}"),
                    hint: format!("'systemctl status {service}' says why"),
                },
            });
        }
    }

    fn add_failure(&mut self, process: Process, error: &ControlError) {
        if error.is_of_rights() {
            self.without_rights += 1;
        }
        self.asked.push(Asked {
            name: process.name,
            socket: process.socket.display().to_string(),
            answer: Answer::Failed { error: error.to_string(), hint: error.hint().to_owned() },
        });
    }

    fn result(self) -> Result<(), AnyError> {
        let all = self.asked.len();
        let failed = self.asked.iter().filter(|it| it.status().is_none()).count();
        if let Some(missing) = self.missing {
            return Err(NotTold::NoPipe(missing).into());
        }
        match failed {
            0 => Ok(()),
            _ if failed == self.without_rights => Err(NotTold::Rights.into()),
            _ => Err(NotTold::Some { failed, all }.into()),
        }
    }
}

/// What has been printed before.
#[derive(Default)]
struct Screen {
    is_used: bool,
}

impl Screen {
    fn show(&mut self, args: &StatusArgs, found: &Found) -> Result<(), AnyError> {
        let terminal = terminal_size();
        let is_redrawn = args.watch && !args.json && !args.tab && io::stdout().is_terminal();
        let width = terminal.map_or(WIDTH, |(Width(width), _)| width.into());
        let mut lines = lines(args, &found.asked, width);
        if let Some(missing) = &found.missing
            && args.watch
            && !args.json
            && !args.tab
        {
            lines.push(NotTold::NoPipe(missing.clone()).to_string());
        }
        if args.tab && !self.is_used {
            lines.insert(0, tab::names(detail_of(args)));
        }
        let mut shown = String::new();
        if is_redrawn {
            // Over what is there, so that nothing flickers: home, lines, and no rest.
            let height = terminal.map_or(lines.len(), |(_, Height(height))| height.into());
            truncate(&mut lines, height.saturating_sub(1));
            shown.push_str(if self.is_used { "\x1b[H" } else { "\x1b[2J\x1b[H" });
            for line in lines {
                shown += &line[..line.len().min(width)];
                shown += "\x1b[K\n";
            }
            shown += "\x1b[J";
        } else {
            if self.is_used && !args.json && !args.tab {
                shown.push('\n');
            }
            for line in lines {
                shown += &line;
                shown.push('\n');
            }
        }
        self.is_used = true;
        print(&shown)
    }
}

/// Keeps as many lines as there is room for, and tells how many there are not.
fn truncate(lines: &mut Vec<String>, room: usize) {
    if let Some(last) = room.checked_sub(1).filter(|_| lines.len() > room) {
        let more = lines.len() - last;
        lines.truncate(last);
        lines.push(format!("... {more} more lines: make the terminal higher"));
    }
}

const fn detail_of(args: &StatusArgs) -> Detail {
    if args.connections { Detail::Connections } else { Detail::Summary }
}

fn lines(args: &StatusArgs, asked: &[Asked], width: usize) -> Vec<String> {
    match (args.json, args.tab, args.connections) {
        (true, ..) => vec![status::to_json(asked)],
        (_, true, true) => tab::connections(asked),
        (_, true, false) => tab::processes(asked),
        _ if asked.is_empty() && args.of.is_empty() => NOTHING.map(str::to_owned).to_vec(),
        (_, _, true) => text::connections(asked, width),
        _ if args.of.is_empty() => text::overview(asked, width),
        _ => asked.iter().flat_map(text::full).collect(),
    }
}
