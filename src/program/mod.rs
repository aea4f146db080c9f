//! The program: parses the command line, runs it, prints an error with its hint, and exits
//! with its code.

mod check;
mod config_check;
mod find;
mod keys;
mod output;
mod status;
mod usage;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use thiserror::Error;
use tracing::warn;

use self::output::print;
use self::usage::usage;
use crate::config::setup::{SetupCommand, Task};
use crate::config::{
    AccessConfig, Args, Command, CommandLine, Config, KeyName, Program, Role, RunMode, SpipeArgs,
    TunnelConfig, UnknownVariable, as_given, unit_name, variable_of,
};
use crate::daemon::accept::{Inherited, Rights};
use crate::daemon::spipe::{self, PipeBroken, SpipeEnd};
use crate::daemon::{self, Start};
use crate::keys::KeyStore;
use crate::keys::entry::{self, KeyEntry};
use crate::keys::file::Owners;
use crate::keys::folder::{self, Folders, UnusedSettings};
use crate::keys::guessable::GuessableKey;
use crate::process::access::{self, AllowedClients, SocketOwner};
use crate::process::background::{Announcement, Detached, PidFile, detach};
use crate::process::inspection::forbid_inspection;
use crate::process::stdio::Stdout;
use crate::process::{privileges, signals};
use crate::protocol::SharedKey;
use crate::report::{AnyError, Report, SystemError, WARNING, exit};
use crate::unit::check::check as check_unit;
use crate::unit::handover;
use crate::unit::keeper::{Split, split};
use crate::unit::notify::{Watchdog, tell_last_status, tell_ready};
use crate::{logging, setup};

/// The whole program, under either of its names: `spiped` and `spipe`.
#[must_use]
pub fn main() -> ExitCode {
    // A write beyond the limit of a file's size is an error, and does not end this process.
    signals::ignore_file_size();
    // Before a key is in memory.
    if let Err(error) = forbid_inspection() {
        return end(Err(
            SystemError::of("cannot close this process to others")(error.into()).into()
        ));
    }
    if is_named_spipe() {
        return spipe_and_end();
    }
    if check::is_typed() {
        return check::run();
    }
    if config_check::is_typed() {
        return config_check::run();
    }
    let line = match CommandLine::<Args>::read() {
        Ok(line) => line,
        Err(error) => return end(told(usage(error))),
    };
    match line.command {
        Some(Command::Keygen { path }) => end(keys::keygen(&path)),
        Some(Command::Keyid { path, user, bind_per_key }) => {
            end(told(keys::keyid(&path, user.as_deref(), bind_per_key)))
        }
        Some(Command::UnitCheck { configuration, keys }) => {
            let checked = check_unit(&configuration, &keys).map_err(Into::into);
            end(told(checked.map(|guessable| {
                warn_of(guessable);
                warn_of_settings(&keys);
            })))
        }
        Some(Command::Rekey { socket, keys, if_exists }) => {
            end(keys::rekey(&socket, &if if_exists { folder::existing(&keys) } else { keys }))
        }
        Some(Command::Revoke { socket, key }) => end(keys::revoke(&socket, &key)),
        Some(Command::Status(args)) => end(status::status(&args)),
        Some(Command::Handover { unit, adopt }) => end(hand_over(&unit, adopt)),
        Some(Command::Setup { what }) => end(set_up(what)),
        Some(Command::Check(_)) => check::run(),
        Some(Command::ConfigCheck { .. }) => config_check::run(),
        Some(Command::Completions { shell, name }) => end(completions(shell, name)),
        None => match line.config() {
            Ok((config, unknown)) => pipe(&config, &unknown),
            Err(error) => end(told(usage(error))),
        },
    }
}

/// Whether the program was started as `spipe`, which is a link to `spiped`.
fn is_named_spipe() -> bool {
    std::env::args_os().next().is_some_and(|name| Path::new(&name).ends_with("spipe"))
}

/// Runs `spipe`. Where standard output is a socket, its reader sees the end even if other
/// processes have the socket, too.
fn spipe_and_end() -> ExitCode {
    match spipe() {
        Ok(code) => code,
        Err(error) => {
            let is_of_stream = is_of_stream(&*error);
            let code = end(Err(error));
            if is_of_stream {
                Stdout::end_socket();
            }
            code
        }
    }
}

fn is_of_stream(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<PipeBroken>()
}

/// Runs `spipe`: standard input and output through a pipe.
fn spipe() -> Result<ExitCode, AnyError> {
    let line = CommandLine::<SpipeArgs>::read().and_then(CommandLine::config);
    let (config, unknown): (TunnelConfig, _) = match line {
        Ok(config) => config,
        Err(error) => return usage(error).map(|()| ExitCode::SUCCESS),
    };
    for unknown in unknown {
        say(&unknown.to_string(), unknown.hint());
    }
    let (_name, key) = sender_key(&config.keys)?;
    Ok(match spipe::spipe(&config, &key)? {
        SpipeEnd::Cleanly => ExitCode::SUCCESS,
        SpipeEnd::BySignal(number) => ExitCode::from(exit::by_signal(number)),
    })
}

/// The first of a sender's keys, and its name; the others are checked.
fn sender_key(paths: &[PathBuf]) -> Result<(KeyName, SharedKey), AnyError> {
    let entries = folder::read_all(paths, Owners::Own, Folders::Refused);
    let key = entries.and_then(|entries| {
        entry::check(&entries)?;
        warn_of(entries.iter().filter_map(KeyEntry::guessable));
        let first = entries.into_iter().next();
        first.map(|entry| Ok((entry.name.clone(), entry.derive()?))).transpose()
    });
    let Some(key) = key.map_err(caused_by("-k"))? else { unreachable!("-k is required") };
    Ok(key)
}

/// Runs one end of a pipe until a signal ends it.
fn pipe(config: &Config, unknown: &[UnknownVariable]) -> ExitCode {
    let start = match Inherited::take() {
        Ok(sockets) => Start { sockets, watchdog: Watchdog::from_env(), ..Start::default() },
        Err(error) => return end(told(Err(error.into()))),
    };
    match config.process.run_mode() {
        RunMode::Foreground => end(told(serve(config, unknown, start, None))),
        RunMode::Handover => match split() {
            Ok(Split::Keeper(keeper)) => {
                drop(start);
                keeper.keep().unwrap_or_else(|error| {
                    end(Err(SystemError::of("cannot watch the process that serves")(error).into()))
                })
            }
            Ok(Split::Worker(listening)) => {
                let start = Start { listening: Some(listening), ..start };
                end(told(serve(config, unknown, start, None)))
            }
            Err(error) => end(Err(SystemError::of("cannot start a process")(error).into())),
        },
        // Before the key is read, so that the parent never has it.
        RunMode::Background => match detach(&start.sockets.descriptors()) {
            Ok(Detached::Parent(code)) => code,
            Ok(Detached::Child(announcement)) => {
                end(serve(config, unknown, start, Some(announcement)))
            }
            Err(error) => end(Err(SystemError::of("cannot detach")(error).into())),
        },
    }
}

/// Reads the key, binds the source, drops privileges, tells that it is ready, and serves.
fn serve(
    config: &Config,
    unknown: &[UnknownVariable],
    start: Start,
    announcement: Option<Announcement>,
) -> Result<(), AnyError> {
    let run_as = config.process.run_as.as_ref();
    let (user, owners, folders) = whose_keys(config)?;
    let loaded =
        KeyStore::load(&config.tunnel.keys, owners, folders, config.connections.bind_per_key);
    let (keys, guessable) = loaded.map_err(caused_by("-k"))?;
    let _log = logging::start(config.log).map_err(SystemError::of("cannot start the log"))?;
    for unknown in unknown {
        warn!(hint = unknown.hint(), "{unknown}");
    }
    for (key_id, guessable) in guessable {
        warn!(hint = GuessableKey::HINT, %key_id, "{guessable}");
    }
    // The check of a unit has warned of these.
    if unit_name().is_none() {
        for unused in folder::unused_settings(&config.tunnel.keys) {
            warn!(hint = UnusedSettings::HINT, "{unused}");
        }
    }
    let mut pid_file = None;
    let (rights, allowed) = access(&config.access)?;
    let start = Start { user, rights, allowed, ..start };
    daemon::run(config, keys, start, || {
        pid_file = config.process.pid_file.as_deref().map(PidFile::write).transpose()?.flatten();
        if let Some(run_as) = run_as {
            privileges::drop_to(run_as).map_err(caused_by("-u"))?;
        }
        // In the background the parent notifies systemd, which still expects it from there.
        if let Some(announcement) = announcement {
            return Ok(announcement.announce().map_err(SystemError::of("cannot detach"))?);
        }
        tell_ready();
        Ok(())
    })
}

/// Looks up whom the process becomes; and tells whose key files it reads, and whether folders.
fn whose_keys(config: &Config) -> Result<(Option<u32>, Owners, Folders), AnyError> {
    let run_as = config.process.run_as.as_ref();
    let user = run_as.map(privileges::user_id).transpose().map_err(caused_by("-u"))?.flatten();
    let owners = user.map_or(Owners::Own, Owners::OwnOr);
    let folders = match config.role {
        Role::Decrypt => Folders::Allowed,
        Role::Encrypt => Folders::Refused,
    };
    Ok((user, owners, folders))
}

/// Looks up who may connect to the source.
fn access(config: &AccessConfig) -> Result<(Rights, Option<AllowedClients>), AnyError> {
    let user = access::socket_user(config).map_err(caused_by("--socket-owner"))?;
    let group = access::socket_group(config).map_err(caused_by("--socket-group"))?;
    let rights = Rights { mode: config.socket_mode, owner: SocketOwner { user, group } };
    let uids = access::allowed_uids(config).map_err(caused_by("--allow-uid"))?;
    let gids = access::allowed_gids(config).map_err(caused_by("--allow-gid"))?;
    let is_for_all = uids.is_empty() && gids.is_empty();
    Ok((rights, (!is_for_all).then_some(AllowedClients { uids, gids })))
}

/// Names the variable that has given the value of an option, where one has.
fn caused_by<E: Into<AnyError>>(option: &str) -> impl Fn(E) -> AnyError {
    move |error| match variable_of(option) {
        Some(variable) => CausedBy { variable, error: error.into() }.into(),
        None => error.into(),
    }
}

/// An error that the value of a variable has caused.
#[derive(Debug, Error)]
#[error("{variable}: {error}")]
struct CausedBy {
    variable: &'static str,
    error: AnyError,
}

impl Report for CausedBy {
    fn hint(&self) -> &str {
        self.error.hint()
    }

    fn exit_code(&self) -> u8 {
        self.error.exit_code()
    }
}

fn hand_over(unit: &str, adopt: Option<i32>) -> Result<(), AnyError> {
    match adopt {
        Some(worker) => handover::adopt(Pid::from_raw(worker))?,
        None => handover::hand_over(unit)?,
    }
    Ok(())
}

fn set_up(what: SetupCommand) -> Result<(), AnyError> {
    let report = setup::run(&Task::try_from(what)?)?;
    warn_of(report.guessable);
    print(&report.text)?;
    report.failed.map_or(Ok(()), |error| Err(error.into()))
}

fn completions(shell: Shell, name: Program) -> Result<(), AnyError> {
    let mut command = match name {
        Program::Spiped => Args::command(),
        Program::Spipe => SpipeArgs::command(),
    };
    if name == Program::Spiped {
        // Nobody types what is hidden.
        command = command.mut_subcommand("handover", |command| {
            let visible = command.get_arguments().filter(|arg| !arg.is_hide_set());
            let about = command.get_about().cloned().unwrap_or_default();
            clap::Command::new("handover").about(about).args(visible.cloned())
        });
    }
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Tells systemd why a unit does not start, so that the unit's status has the reason.
fn told(result: Result<(), AnyError>) -> Result<(), AnyError> {
    result.inspect_err(|error| tell_last_status(&printable(&error.to_string())))
}

/// Whether standard error takes two lines within a second: a reader that has stopped must
/// not keep this process from ending.
fn stderr_has_room() -> bool {
    let stderr = io::stderr();
    let mut stderr = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    !matches!(poll(&mut stderr, PollTimeout::from(1000_u16)), Ok(0))
}

fn end(result: Result<(), AnyError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string(), error.hint());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Warns of keys that can be guessed.
fn warn_of(guessable: impl IntoIterator<Item = GuessableKey>) {
    for guessable in guessable {
        say(&format!("{WARNING}{guessable}"), GuessableKey::HINT);
    }
}

/// Warns of settings that no key has.
fn warn_of_settings(paths: &[PathBuf]) {
    for unused in folder::unused_settings(paths) {
        say(&format!("{WARNING}{unused}"), UnusedSettings::HINT);
    }
}

/// Writes an error or a warning, and its hint, to standard error. Where standard error is
/// gone, nothing tells of it but the exit code.
fn say(line: &str, hint: &str) {
    if stderr_has_room() {
        let name = if is_named_spipe() { "spipe" } else { "spiped" };
        let (line, hint) = (printable(line), printable(&as_given(hint)));
        let _unwritten = writeln!(io::stderr(), "{name}: {line}\nhint: {hint}");
    }
}

/// A text as one line for a terminal. A quoted part of an error or hint may have characters
/// that would begin another line or control the terminal.
fn printable(text: &str) -> String {
    let escape = |character: char| match character {
        '\'' | '"' | '\\' => character.to_string(),
        _ => character.escape_debug().to_string(),
    };
    text.chars().map(escape).collect()
}
