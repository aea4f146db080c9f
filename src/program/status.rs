//! `spiped status`: prints what the processes tell that were found and asked.

use std::io::{self, IsTerminal};
use std::thread::sleep;
use std::time::Duration;

use terminal_size::{Height, Width, terminal_size};
use thiserror::Error;

use super::find::{Found, find_and_ask};
use super::output::print;
use crate::config::StatusArgs;
use crate::report::{AnyError, Report, exit};
use crate::status::{self, Asked, Detail, tab, text};

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
    #[error("no pipe {} runs here", .0.join(", "))]
    NoPipe(Vec<String>),
    #[error("{failed} of {all} did not tell the status")]
    Some { failed: usize, all: usize },
    #[error("this user may not ask: only root and the user of a spiped may")]
    Rights,
    /// Why systemd has not told its units.
    #[error("{0}")]
    NotSeen(String),
}

impl NotTold {
    /// Of what was found, the first that counts.
    fn of(found: Found) -> Result<(), Self> {
        let all = found.asked.len();
        let failed = found.asked.iter().filter(|it| it.status().is_none()).count();
        match (found.missing.is_empty(), failed, found.not_seen) {
            (false, ..) => Err(Self::NoPipe(found.missing)),
            (_, 0, None) => Ok(()),
            (_, 0, Some(why)) => Err(Self::NotSeen(why)),
            _ if failed == found.without_rights => Err(Self::Rights),
            _ => Err(Self::Some { failed, all }),
        }
    }
}

impl Report for NotTold {
    fn hint(&self) -> &str {
        match self {
            Self::NoPipe(_) => {
                "'spiped status' shows all that run as units, 'systemctl' why not; a path begins with /"
            }
            Self::Some { .. } => "the lines above say why; the log of each may say more",
            Self::Rights => "try it with sudo; in the units only root may ask",
            Self::NotSeen(_) => "units that have failed may be missing: see 'systemctl --failed'",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoPipe(_) | Self::Some { .. } | Self::NotSeen(_) => exit::UNAVAILABLE,
            Self::Rights => exit::NO_PERMISSION,
        }
    }
}

/// Prints the status of the processes that are meant, once or again and again.
pub(super) fn status(args: &StatusArgs) -> Result<(), AnyError> {
    let mut screen = Screen::default();
    loop {
        let found = find_and_ask(&args.of, detail_of(args));
        screen.show(args, &found)?;
        if !args.watch {
            return Ok(NotTold::of(found)?);
        }
        sleep(AGAIN);
    }
}

/// What has been printed before.
#[derive(Default)]
struct Screen {
    is_used: bool,
}

impl Screen {
    fn show(&mut self, args: &StatusArgs, found: &Found) -> Result<(), AnyError> {
        // Where nobody has set a size, as behind some serial lines, it is 0.
        let is_set = |&(Width(width), Height(height)): &_| width > 0 && height > 0;
        let terminal = terminal_size().filter(is_set);
        let is_redrawn = args.watch && !args.json && !args.tab && io::stdout().is_terminal();
        let width = terminal.map_or(WIDTH, |(Width(width), _)| width.into());
        let mut lines = lines(args, &found.asked, width);
        if args.watch && !args.json && !args.tab {
            if !found.missing.is_empty() {
                lines.push(NotTold::NoPipe(found.missing.clone()).to_string());
            }
            lines.extend(found.not_seen.clone());
        }
        if args.tab && !self.is_used {
            lines.insert(0, tab::names(detail_of(args)));
        }
        let mut shown = String::new();
        if is_redrawn {
            // Over what is there, so that nothing flickers: home, lines, and no rest.
            let room = terminal.map(|(_, Height(height))| usize::from(height).saturating_sub(1));
            truncate(&mut lines, room.unwrap_or(usize::MAX));
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
