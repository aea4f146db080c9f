//! Applying a plan: its steps are done, or undone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::process;
use tokio::runtime::Builder;
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind};

use super::error::SetupError;
use super::plan::Step;
use super::systemd::{Activity, command, judge, run};
use super::unit::{Failure, Unit};
use crate::process::new_file;
use crate::process::signals::{next, unblock, unless_ignored};

/// The undoing of a step that was done.
enum Undo {
    RemoveFolder(PathBuf),
    RemoveFile(PathBuf),
    Disable(Unit),
    Stop(Unit),
}

/// Does all steps, and then the last one, which no signal interrupts.
///
/// # Errors
/// When a step fails or a signal comes. The steps that were done are undone then, unless it is
/// not known whether the last one was done.
pub(super) fn all<T>(
    steps: Vec<Step>,
    last: impl FnOnce() -> Result<T, SetupError>,
) -> Result<T, SetupError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(SetupError::System)?;
    let mut done = Vec::new();
    let result = runtime.block_on(async {
        let mut signals = Interrupts::watch().map_err(SetupError::System)?;
        select! {
            // A signal counts if it comes before these steps are done.
            biased;
            number = signals.any() => Err(SetupError::Interrupted(number)),
            result = each(steps, &mut done) => result,
        }
    });
    // From here on signals are ignored: the rest takes only a moment.
    result
        .and_then(|()| last())
        .map_err(|error| if error.leaves_keys_unknown() { error } else { undo(done, error) })
}

async fn each(steps: Vec<Step>, done: &mut Vec<Undo>) -> Result<(), SetupError> {
    for step in steps {
        one(step, done).await?;
    }
    Ok(())
}

/// Does a step. A step that can be cut off in the middle is noted in `done` before it
/// begins.
async fn one(step: Step, done: &mut Vec<Undo>) -> Result<(), SetupError> {
    if let Step::Key { path, .. } | Step::File { path, .. } = &step
        && let Some(folder) = path.parent()
    {
        new_file::remove_unfinished(folder);
    }
    match step {
        Step::Folder { path, mode } => {
            make_folder(&path, mode).map_err(|error| cannot_make(&path, error))?;
            done.push(Undo::RemoveFolder(path));
        }
        Step::Key { path, key, .. } => {
            key.write(&path)?;
            done.push(Undo::RemoveFile(path));
        }
        Step::File { path, content } => {
            new_file::write(&path, content.as_bytes(), 0o644)
                .map_err(|error| cannot_make(&path, error))?;
            done.push(Undo::RemoveFile(path));
        }
        Step::ReadUnits => systemctl(&["daemon-reload"]).await?,
        Step::Enable(unit) => {
            done.push(Undo::Disable(unit.clone()));
            systemctl(&["enable", &unit.to_string()]).await?;
        }
        Step::Start(unit, before) => {
            if before == Activity::Stopped {
                done.push(Undo::Stop(unit.clone()));
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            // `start` would wait for a unit that waits for its port.
            let how = if before == Activity::Retrying { "restart" } else { "start" };
            if let Err(error) = systemctl(&[how, &unit.to_string()]).await {
                let failure = Failure::of(&unit, now, &error);
                return Err(SetupError::Start { unit, failure });
            }
        }
    }
    Ok(())
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn cannot_make(path: &Path, error: io::Error) -> SetupError {
    SetupError::File { what: "make", path: path.into(), error }
}

async fn systemctl(words: &[&str]) -> Result<(), SetupError> {
    let command = command("systemctl", words);
    let mut command = process::Command::from(command);
    // The command is killed when a signal ends this.
    let output = command.kill_on_drop(true).output().await;
    judge(command.as_std(), output).map(drop)
}

/// Undoes steps, the last one first.
fn undo(done: Vec<Undo>, error: SetupError) -> SetupError {
    let left: Vec<_> = done.into_iter().rev().filter_map(|step| step.run().err()).collect();
    if left.is_empty() {
        return error;
    }
    SetupError::NotUndone { error: Box::new(error), left: left.join(", ") }
}

impl Undo {
    fn run(self) -> Result<(), String> {
        // Twice, since a signal may have ended the first command.
        let once = |words: &[&str]| run(&mut command("systemctl", words)).map(drop);
        let systemctl = |words: &[&str]| once(words).or_else(|_| once(words));
        match self {
            Self::RemoveFile(path) => fs::remove_file(&path).map_err(|error| not(&path, &error)),
            Self::RemoveFolder(path) => match fs::remove_dir(&path) {
                // Not an error where somebody has put a file there meanwhile.
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                    Err(not(&path, &error))
                }
                _ => Ok(()),
            },
            Self::Disable(unit) => {
                systemctl(&["disable", &unit.to_string()]).map_err(|error| error.to_string())
            }
            Self::Stop(unit) => {
                // The socket may have started its service for a client.
                let units = [Some(unit.to_string()), unit.started_by_it().map(|it| it.to_string())];
                let units: Vec<_> = units.iter().flatten().map(String::as_str).collect();
                let of_units = |verb| [&[verb], units.as_slice()].concat();
                let stopped = systemctl(&of_units("stop")).map_err(|error| error.to_string());
                // Fails where no unit has failed.
                let _nothing = systemctl(&of_units("reset-failed"));
                stopped
            }
        }
    }
}

fn not(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// INT, TERM and HUP, except those that were ignored at the start.
struct Interrupts([(SignalKind, Option<Signal>); 3]);

impl Interrupts {
    fn watch() -> io::Result<Self> {
        let watch = |kind| Ok::<_, io::Error>((kind, unless_ignored(kind)?));
        let signals = Self([
            watch(SignalKind::interrupt())?,
            watch(SignalKind::terminate())?,
            watch(SignalKind::hangup())?,
        ]);
        unblock()?;
        Ok(signals)
    }

    /// Waits for a signal, and returns its number.
    async fn any(&mut self) -> i32 {
        let [(int, on_int), (term, on_term), (hup, on_hup)] = &mut self.0;
        select! {
            () = next(on_int) => int.as_raw_value(),
            () = next(on_term) => term.as_raw_value(),
            () = next(on_hup) => hup.as_raw_value(),
        }
    }
}
