//! A configuration and its keys are checked as a start would, before anything is changed.

use std::io::{self, Write};
use std::process::{Child, Command, Output, Stdio};

use super::error::SetupError;
use super::plan::{Plan, Step, file};
use super::unit::Failure;
use super::units::socket_unit_of;
use crate::config::environment_file::EnvironmentFile;
use crate::config::setup::End;
use crate::config::{Address, ConfigError, as_given};
use crate::daemon::accept::InheritedError;
use crate::keys::new_key::NewKey;
use crate::report::{AnyError, Report, is_of_system};
use crate::unit::check::UnitCheckError;
use crate::unit::configuration::PipeUnit;

/// Where more is said.
const MORE: &str = "'spiped config-check' says more";

/// Checks what each end will have once the plan is done.
///
/// # Errors
/// When a start of one of them would be refused.
pub(super) fn check(plan: &Plan) -> Result<(), SetupError> {
    plan.ends.iter().try_for_each(|(end, _)| check_end(end, &plan.steps))
}

fn check_end(end: &End, steps: &[Step]) -> Result<(), SetupError> {
    let unit = PipeUnit::new(end.role, &end.name);
    let (conf, key) = (unit.configuration(), file(&end.name, "key"));
    let (mut content, mut new_key) = (None, None);
    for step in steps {
        match step {
            Step::File { path, content: new } if *path == conf => content = Some(new.clone()),
            Step::Key { path, key: new, .. } if *path == key => new_key = Some(new),
            Step::Folder { .. }
            | Step::Key { .. }
            | Step::File { .. }
            | Step::ReadUnits
            | Step::Enable(_)
            | Step::Start(..) => {}
        }
    }
    let variables = match content {
        Some(content) => EnvironmentFile::read(&content),
        None => unit.read().map_err(|error| {
            let failure = unread(&error);
            SetupError::Refused { path: conf.clone(), failure }
        })?,
    };
    let keys = if new_key.is_some() { vec!["-".into()] } else { unit.keys() };
    let command = unit.check(&variables, &keys);
    match run(command, new_key).map_err(SetupError::System)? {
        None => Ok(()),
        Some(failure) => Err(SetupError::Refused { path: conf, failure }),
    }
}

/// Why the next start of a unit would refuse its configuration or its keys; none where it would
/// not.
///
/// # Errors
/// When the system lacks what the check needs.
pub(crate) fn refusal(unit: &PipeUnit) -> io::Result<Option<Failure>> {
    match unit.read() {
        Ok(variables) => match check_source_of(unit, &variables) {
            Ok(()) => run(unit.check(&variables, &unit.keys()), None),
            Err(error) => {
                let (reason, hint) = (error.to_string(), as_given(error.hint()).into_owned());
                Ok(Some(Failure { reason, hint, code: Some(error.exit_code()) }))
            }
        },
        Err(UnitCheckError::Configuration { error, .. }) if is_of_system(&error) => Err(error),
        Err(error) => Ok(Some(unread(&error))),
    }
}

/// Checks the source in the variables of a unit, as [`check_source`] does. What is no address is
/// left to the check of the variables.
///
/// # Errors
/// When the start would be refused.
pub(crate) fn check_source_of(
    unit: &PipeUnit,
    variables: &EnvironmentFile,
) -> Result<(), AnyError> {
    let source = variables.value("SPIPED_SOURCE").filter(|source| !source.is_empty());
    match source.map(str::parse::<Address>).transpose() {
        Ok(source) => check_source(unit, source.as_ref()),
        Err(_) => Ok(()),
    }
}

/// Checks that a unit has a source, or a socket unit that listens in its place, and not both with
/// different addresses. What cannot be seen is left to the start.
///
/// # Errors
/// When the start would be refused.
pub(crate) fn check_source(unit: &PipeUnit, source: Option<&Address>) -> Result<(), AnyError> {
    let Some(socket) = socket_unit_of(unit) else { return Ok(()) };
    match source {
        None if !socket.is_in_use() => Err(ConfigError::Missing("-s".into()).into()),
        Some(given) if socket.is_in_use() && !socket.listen.contains(given) => {
            let all: Vec<_> = socket.listen.iter().map(ToString::to_string).collect();
            let (given, inherited) = (given.clone(), all.join(", "));
            Err(InheritedError::Mismatch { given, inherited }.into())
        }
        None | Some(_) => Ok(()),
    }
}

/// Why the variables of a unit are refused.
fn unread(error: &UnitCheckError) -> Failure {
    let (reason, hint) = (error.to_string(), error.hint().to_owned());
    Failure { reason, hint, code: Some(error.exit_code()) }
}

/// Runs a check, to which a new key may be handed. Returns why it failed, if it did. Of a name
/// that does not resolve, the proof of a pipe tells, and of a weak key the report.
fn run(mut command: Command, key: Option<&NewKey>) -> io::Result<Option<Failure>> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.spawn().and_then(|child| ended(child, key))?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().and_then(|code| code.try_into().ok());
    let failure = Failure::told(&said, code, MORE);
    Ok(failure.or_else(|| {
        let reason = format!("'spiped config-check' has ended by {}", output.status);
        Some(Failure { reason, hint: MORE.into(), code })
    }))
}

/// Hands a new key to the process, and waits for the end of it.
fn ended(mut child: Child, key: Option<&NewKey>) -> io::Result<Output> {
    if let (Some(mut input), Some(key)) = (child.stdin.take(), key) {
        // A process that has refused the configuration reads no key.
        let _unread = input.write_all(key.content());
    }
    child.wait_with_output()
}
