//! Parse, run, print what went wrong with a hint, exit with its code.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap_complete::Shell;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use tracing::warn;

use spiped::background::{Announcement, Detached, PidFile, detach};
use spiped::config::setup::{SetupCommand, Task};
use spiped::config::{
    Args, Command, CommandLine, Config, Ground, Name, SpipeArgs, TunnelConfig, UnknownVariable,
    as_given, unit, variable_of,
};
use spiped::daemon::{Ended, Inherited, Start, Watchdog};
use spiped::error::Error;
use spiped::keeper::{Split, split};
use spiped::key_file::{self, Owners};
use spiped::stdio::Stdout;
use spiped::{daemon, handover, logging, memory, privileges, rekey, setup, signals, unit_check};

fn main() -> ExitCode {
    // What cannot be written is an error, and does not end this process.
    signals::ignore_file_size();
    // Before a key is there to be seen.
    if let Err(error) = memory::forbid_inspection() {
        let what = "cannot close this process to others";
        return end(Err(Error::System { what, error: error.into() }));
    }
    if is_named_spipe() {
        return spipe_and_end();
    }
    let CommandLine { args, environment } = match CommandLine::<Args>::read() {
        Ok(line) => line,
        Err(error) => return end(usage(&error)),
    };
    match args.command {
        Some(Command::Keygen { path }) => end(keygen(&path)),
        Some(Command::Keyid { path, user }) => end(told(keyid(&path, user.as_deref()))),
        Some(Command::UnitCheck { configuration, key }) => {
            end(told(unit_check::check(&configuration, &key)))
        }
        Some(Command::Rekey { socket, key }) => {
            // In a unit the daemon has told it, in the same log.
            let told = |id| unit().map_or_else(|| print(&format_args!("{id}\n")), |_| Ok(()));
            end(rekey::rekey(&socket, &key).and_then(told))
        }
        Some(Command::Handover { unit, adopt }) => end(hand_over(&unit, adopt)),
        Some(Command::Setup { what }) => end(set_up(what)),
        Some(Command::Completions { shell, name }) => end(completions(shell, name)),
        None => match environment.check(Config::try_from(args)) {
            Ok((config, unknown)) => pipe(&config, &unknown),
            Err(error) => end(told(Err(error.into()))),
        },
    }
}

/// One binary, two names: `spipe` is a link to `spiped`.
fn is_named_spipe() -> bool {
    std::env::args_os().next().is_some_and(|name| Path::new(&name).ends_with("spipe"))
}

/// Whoever else holds a socket that is standard output: its reader sees the end.
fn spipe_and_end() -> ExitCode {
    match spipe() {
        Ok(code) => code,
        Err(error) => {
            let is_of_stream = matches!(error, Error::Pipe { .. });
            let code = end(Err(error));
            if is_of_stream {
                Stdout.end_socket();
            }
            code
        }
    }
}

/// Standard input and output through a pipe.
fn spipe() -> Result<ExitCode, Error> {
    let CommandLine { args, environment } = match CommandLine::<SpipeArgs>::read() {
        Ok(line) => line,
        Err(error) => return usage(&error).map(|()| ExitCode::SUCCESS),
    };
    let (config, unknown) = environment.check(TunnelConfig::try_from(&args.outgoing))?;
    for unknown in unknown {
        // Where that can't be told, nothing is lost but this.
        let _unwritten =
            writeln!(io::stderr(), "spipe: {unknown}\nhint: {}", UnknownVariable::HINT);
    }
    let key = key_file::read(&config.key, Owners::Own).map_err(caused_by("-k"))?;
    Ok(match daemon::spipe(&config, &key)? {
        Ended::Cleanly => ExitCode::SUCCESS,
        // As a shell has it.
        Ended::BySignal(number) => ExitCode::from(number.saturating_add(128)),
    })
}

/// One end of a pipe, until a signal ends it.
fn pipe(config: &Config, unknown: &[UnknownVariable]) -> ExitCode {
    let start = match Inherited::take() {
        Ok(sockets) => Start { sockets, watchdog: Watchdog::from_env(), listening: None },
        Err(error) => return end(told(Err(error.into()))),
    };
    match config.process.ground {
        Ground::Foreground => end(told(serve(config, unknown, start, None))),
        Ground::Handover => match split() {
            Ok(Split::Keeper(keeper)) => {
                drop(start);
                keeper.keep().unwrap_or_else(|error| {
                    end(Err(Error::System { what: "cannot watch the process that serves", error }))
                })
            }
            Ok(Split::Worker(listening)) => {
                let start = Start { listening: Some(listening), ..start };
                end(told(serve(config, unknown, start, None)))
            }
            Err(error) => end(Err(Error::System { what: "cannot start a process", error })),
        },
        // Before the key is read: the parent never has it.
        Ground::Background => match detach() {
            Ok(Detached::Parent(code)) => code,
            Ok(Detached::Child(announcement)) => {
                end(serve(config, unknown, start, Some(announcement)))
            }
            Err(error) => end(Err(Error::System { what: "cannot detach", error })),
        },
    }
}

/// Reads the key, binds, drops privileges, tells that it is ready, serves.
fn serve(
    config: &Config,
    unknown: &[UnknownVariable],
    start: Start,
    announcement: Option<Announcement>,
) -> Result<(), Error> {
    let run_as = config.process.run_as.as_ref();
    let user = run_as.map(privileges::user_id).transpose().map_err(caused_by("-u"))?.flatten();
    let key = key_file::read(&config.tunnel.key, user.map_or(Owners::Own, Owners::OwnOr))
        .map_err(caused_by("-k"))?;
    let _log = logging::start(config.log)
        .map_err(|error| Error::System { what: "cannot start the log", error })?;
    for unknown in unknown {
        warn!(hint = UnknownVariable::HINT, "{unknown}");
    }
    let mut pid_file = None;
    daemon::run(config, key, start, || {
        pid_file = config.process.pid_file.as_deref().map(PidFile::write).transpose()?.flatten();
        if let Some(run_as) = run_as {
            privileges::drop_to(run_as).map_err(caused_by("-u"))?;
        }
        // In the background the parent tells systemd, which listens to it.
        if let Some(announcement) = announcement {
            return announcement
                .ready()
                .map_err(|error| Error::System { what: "cannot detach", error });
        }
        daemon::tell_ready();
        Ok(())
    })
}

/// Names the variable that has given the value of an option, where one has.
fn caused_by<E: Into<Error>>(option: &str) -> impl Fn(E) -> Error {
    move |error| match variable_of(option) {
        Some(variable) => Error::Variable { variable, error: Box::new(error.into()) },
        None => error.into(),
    }
}

fn keygen(path: &Path) -> Result<(), Error> {
    let id = key_file::generate(path)?;
    print(&format_args!("{id}\n"))
}

fn keyid(path: &Path, user: Option<&str>) -> Result<(), Error> {
    let user = user.map(privileges::user_of_name).transpose()?;
    let key = key_file::read(path, user.map_or(Owners::Anybody, Owners::User))?;
    print(&format_args!("{}\n", key.id()))
}

fn hand_over(unit: &str, adopt: Option<i32>) -> Result<(), Error> {
    match adopt {
        Some(worker) => handover::adopt(Pid::from_raw(worker))?,
        None => handover::hand_over(unit)?,
    }
    Ok(())
}

fn set_up(what: SetupCommand) -> Result<(), Error> {
    let report = setup::run(&Task::try_from(what)?)?;
    print(&report.text)?;
    report.unproved.map_or(Ok(()), |error| Err(error.into()))
}

fn completions(shell: Shell, name: Name) -> Result<(), Error> {
    let mut command = match name {
        Name::Spiped => Args::command(),
        Name::Spipe => SpipeArgs::command(),
    };
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// What clap has to say: help and version are no failures; of an error its
/// first line is enough.
fn usage(error: &clap::Error) -> Result<(), Error> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return print(&error.render());
    }
    if error.kind() == ErrorKind::InvalidUtf8
        && let Some(wrong) = std::env::args_os().find(|argument| argument.to_str().is_none())
    {
        let reason = format!("'{}' is not valid UTF-8", wrong.to_string_lossy());
        return Err(Error::Usage { reason, meant: None });
    }
    let text = error.render().to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let line = lines.collect::<Vec<_>>().join(" ");
    let suggestions =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let meant = suggestions.iter().find_map(|kind| {
        let meant = error.get(*kind)?;
        if let ContextValue::Strings(several) = meant {
            // The likeliest stands last.
            return several.last().cloned();
        }
        Some(meant.to_string())
    });
    Err(Error::Usage {
        reason: line.trim_start_matches("error: ").to_owned(),
        meant: meant.map(|meant| format!("did you mean '{meant}'? '--help' lists the options")),
    })
}

fn print(text: &dyn fmt::Display) -> Result<(), Error> {
    Stdout
        .write_all(text.to_string().as_bytes())
        .map_err(|error| Error::System { what: "cannot write to standard output", error })
}

/// Has systemd know why a unit of its does not start: where it tries again,
/// its status shows that and not the log.
fn told(result: Result<(), Error>) -> Result<(), Error> {
    result.inspect_err(|error| daemon::tell_last_status(&printable(&error.to_string())))
}

/// Whether standard error takes two lines, at once or soon: who reads it may have
/// stopped, and must not keep us from ending.
fn stderr_has_room() -> bool {
    let stderr = io::stderr();
    let mut stderr = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    !matches!(poll(&mut stderr, PollTimeout::from(1000_u16)), Ok(0))
}

fn end(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let name = if is_named_spipe() { "spipe" } else { "spiped" };
            if stderr_has_room() {
                // Where standard error is gone too, the exit code still tells.
                let (line, hint) =
                    (printable(&error.to_string()), printable(&as_given(error.hint())));
                let _unwritten = writeln!(io::stderr(), "{name}: {line}\nhint: {hint}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// One line for a terminal: what an error, or its hint, quotes may hold what would start
/// a line of its own, or command the terminal.
fn printable(text: &str) -> String {
    let escape = |character: char| match character {
        '\'' | '"' | '\\' => character.to_string(),
        _ => character.escape_debug().to_string(),
    };
    text.chars().map(escape).collect()
}
