//! `spiped config-check`: a start up to the point where it would bind its source, with the
//! effective configuration as its result.

use std::borrow::Cow;
use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use super::output::print;
use super::usage::usage;
use super::{access, caused_by, end, printable, say, warn_of, warn_of_settings, whose_keys};
use crate::config::environment_file::Skipped;
use crate::config::{
    Address, Args, CommandLine, Config, ConfigError, Dns, KeyName, StatusOf, ValueError, effective,
    unit_name,
};
use crate::daemon::names::{Unresolved, look_up};
use crate::daemon::net::loops::would_lead_back;
use crate::keys::address;
use crate::keys::entry::{self, KeyEntry};
use crate::keys::folder;
use crate::process::privileges;
use crate::protocol::KeyId;
use crate::report::{AnyError, SystemError, WARNING, exit};
use crate::setup;
use crate::unit::check::read_keys;
use crate::unit::configuration::{self, PipeUnit, changed_since_start, is_reload};
use crate::unit::files::UnitFiles;

/// What has a configuration, where a word names none.
const NAMES: &str = "write spiped-receive@NAME, spiped-send@NAME, or NAME for those in use";

/// Whether this is the command. Behind it stand the options of a start, which have variables,
/// so its words are read apart from those of the program.
pub(super) fn is_typed() -> bool {
    let mut words = env::args_os().skip(1);
    words.next().is_some_and(|word| word == "config-check")
        && words.next().is_none_or(|word| word != "-h" && word != "--help")
}

/// Runs the command.
pub(super) fn run() -> ExitCode {
    let mut words = env::args_os().skip(2);
    match (words.next(), words.next()) {
        (Some(name), None) if !is_option(&name) => match units(&name) {
            Ok(units) => check_units(&units),
            Err(error) => end(Err(error)),
        },
        (Some(name), Some(_)) if !is_option(&name) => end(Err(not_alone(&name))),
        _ => end(check_start()),
    }
}

fn is_option(word: &OsString) -> bool {
    word.as_encoded_bytes().first() == Some(&b'-')
}

fn not_alone(name: &OsString) -> AnyError {
    let reason = format!("'{}' is a name, and more stands behind it", name.to_string_lossy());
    let hint = "name one unit, or type the options of a start";
    let error = ValueError::new(reason, hint);
    ConfigError::Value { by: "config-check".into(), error }.into()
}

/// The units of a name.
fn units(name: &OsString) -> Result<Vec<PipeUnit>, AnyError> {
    let refused = |error| ConfigError::Value { by: "config-check".into(), error };
    let text = name.to_string_lossy();
    match text.parse::<StatusOf>().map_err(refused)? {
        StatusOf::Pipe(pipe) => Ok(setup::units_in_use(&pipe)?),
        of @ (StatusOf::Unit(_) | StatusOf::Socket(_)) => {
            let unit = of.units().first().and_then(|unit| PipeUnit::named(unit));
            unit.map(|unit| vec![unit]).ok_or_else(|| {
                let reason = format!("'{text}' is no unit of a pipe with a name");
                let hint = of_file(&text).map_or(NAMES.into(), |pipe| {
                    Cow::from(format!("for this file: spiped config-check {pipe}"))
                });
                refused(ValueError::new(reason, hint)).into()
            })
        }
    }
}

/// The pipe whose configuration a path is.
fn of_file(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/etc/spiped/")?.strip_suffix(".conf")?;
    matches!(name.parse(), Ok(StatusOf::Pipe(_))).then_some(name)
}

/// Checks all of the units. The first that fails has the exit code.
fn check_units(units: &[PipeUnit]) -> ExitCode {
    let mut code = 0;
    for unit in units {
        let of_unit = check_unit(unit).unwrap_or_else(|error| {
            say(&error.to_string(), error.hint());
            error.exit_code()
        });
        code = if code == 0 { of_unit } else { code };
    }
    code.into()
}

/// Checks a unit: its files, and what a process with its words and variables finds. Returns
/// the exit code.
fn check_unit(unit: &PipeUnit) -> Result<u8, AnyError> {
    let path = unit.configuration();
    let file = unit.read()?;
    for skipped in &file.skipped {
        say(&format!("{WARNING}{}: {skipped}", path.display()), Skipped::HINT);
    }
    setup::check_source_of(unit, &file)?;
    let ran = unit.check(&file, &unit.keys()).status();
    let status = ran.map_err(SystemError::of("cannot start a process"))?;
    Ok(status.code().and_then(|code| code.try_into().ok()).unwrap_or(exit::OS))
}

/// Checks a start with what is typed and the environment behind it, and prints its
/// configuration; a reload only tells what is wrong.
fn check_start() -> Result<(), AnyError> {
    let line = CommandLine::<Args>::of_command().and_then(CommandLine::config_and_values);
    let (config, unknown, values): (Config, _, _) = match line {
        Ok(read) => read,
        Err(error) => return usage(error),
    };
    for unknown in unknown {
        say(&format!("{WARNING}{unknown}"), unknown.hint());
    }
    let may_be_handed_over = unit_name().is_some() || env::var_os("LISTEN_FDS").is_some();
    if config.source.is_none() && !may_be_handed_over {
        return Err(ConfigError::Missing("-s".into()).into());
    }
    if let Some(unit) = unit_name().filter(|_| is_reload()) {
        check_reload(&config, &unit)?;
    }
    let keys = read_and_tell_keys(&config)?;
    let (_rights, _allowed) = access(&config.access)?;
    check_names(&config)?;
    check_loop(&config)?;
    if let Some(run_as) = &config.process.run_as {
        privileges::drop_to(run_as).map_err(caused_by("-u"))?;
    }
    if !is_reload() {
        let of = unit_name().map_or_else(String::new, |unit| format!("# {unit}\n"));
        let (given, others) = effective(&values);
        return print(&for_stdout(format!("{of}{given}{keys}{others}")));
    }
    let changed = changed_since_start();
    if !changed.is_empty() {
        let line =
            format!("{WARNING}not as at the start, and not reloaded: {}", changed.join(", "));
        let unit = unit_name().unwrap_or_default();
        say(&line, &format!("'systemctl restart {unit}' has it take effect"));
    }
    Ok(())
}

/// Checks what the next start of a unit that is reloaded has beside its variables.
fn check_reload(config: &Config, unit: &str) -> Result<(), AnyError> {
    if let Some(files) = UnitFiles::of(unit) {
        configuration::read(&files.conf)?;
    }
    match unit.strip_suffix(".service").and_then(PipeUnit::named) {
        Some(unit) => setup::check_source(&unit, config.source.as_ref()),
        None => Ok(()),
    }
}

/// Refuses a target that leads back to the source by an address of this host.
fn check_loop(config: &Config) -> Result<(), ConfigError> {
    let target = &config.tunnel.target;
    let source = config.source.as_ref().and_then(Address::inet);
    match source.zip(target.inet()) {
        Some((source, to)) if would_lead_back(to, source) => {
            Err(ConfigError::leads_back(target, &Address::Inet(source).to_string()))
        }
        _ => Ok(()),
    }
}

/// A text as it is, to be read again; for a terminal without what would control it.
fn for_stdout(text: String) -> String {
    if !io::stdout().is_terminal() {
        return text;
    }
    let shown = |letter: char| match letter {
        '\n' => letter.to_string(),
        control if control.is_control() => control.escape_default().to_string(),
        _ => letter.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Reads the keys as the start does, or in a unit as its check does. Returns a comment for
/// each.
fn read_and_tell_keys(config: &Config) -> Result<String, AnyError> {
    let paths = &config.tunnel.keys;
    let (_user, owners, folders) = whose_keys(config)?;
    let entries = if unit_name().is_some() {
        read_keys(paths, folders).map_err(caused_by("-k"))?
    } else {
        folder::read_all(paths, owners, folders).map_err(caused_by("-k"))?
    };
    let keys = entry::check(&entries).map_err(caused_by("-k"))?;
    let range = config.connections.bind_per_key;
    let settings = entries.iter().map(|entry| (&entry.name, entry.settings));
    let mut addresses = address::assign(range, settings).map_err(caused_by("-k"))?.into_iter();
    // Of these, the reload itself warns.
    if !is_reload() {
        warn_of(entries.iter().filter_map(KeyEntry::guessable));
        warn_of_settings(paths);
    }
    if keys.is_empty() {
        return Ok("# The keys are encrypted, and were not read.\n".to_owned());
    }
    let line = |((name, id), entry): (&(KeyName, KeyId), &KeyEntry)| {
        let path = entry.path.as_deref().unwrap_or(Path::new("-")).display().to_string();
        let address = addresses.next().flatten();
        let address = address.map_or_else(String::new, |address| format!(" {address}"));
        format!("# key {name} {id}{address} {}\n", printable(&path))
    };
    Ok(keys.iter().zip(&entries).map(line).collect::<Vec<_>>().concat())
}

/// Looks names up. Where the start would go on and try again, that is a warning.
fn check_names(config: &Config) -> Result<(), AnyError> {
    let looked_up = look_up(config).map_err(SystemError::of("cannot look names up"))?;
    let Unresolved { source, target } = looked_up;
    if let Some(error) = target {
        say(&format!("{WARNING}{error}"), error.hint());
    }
    let hint = match config.process.dns {
        Dns::Wait => "spiped retries until it resolves (-D)",
        Dns::AtStart if unit_name().is_some() => "the unit starts again until it resolves",
        Dns::AtStart => return source.map_or(Ok(()), |error| Err(error.into())),
    };
    if let Some(error) = source {
        say(&format!("{WARNING}{error}"), hint);
    }
    Ok(())
}
