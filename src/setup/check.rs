//! A configuration and its keys are checked as a start would, before anything is changed.

use std::io::{self, Write};
use std::process::{Child, Output, Stdio};

use super::error::SetupError;
use super::plan::{Plan, Step, file, read};
use super::unit::Failure;
use crate::config::environment_file::EnvironmentFile;
use crate::config::setup::End;
use crate::keys::new_key::NewKey;
use crate::unit::configuration::PipeUnit;

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
    let content = content.map_or_else(|| read(&conf), Ok)?;
    let keys = if new_key.is_some() { vec!["-".into()] } else { unit.keys() };
    let mut command = unit.check(&EnvironmentFile::read(&content), &keys);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.spawn().and_then(|child| ended(child, new_key));
    let output = output.map_err(SetupError::System)?;
    // Of a name that does not resolve, the proof tells, and of a weak key the report.
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().and_then(|code| code.try_into().ok());
    let failure = Failure::told(&said, code, "'spiped config-check' says more");
    Err(failure.map_or_else(
        || SetupError::Command {
            command: "spiped config-check".into(),
            said: output.status.to_string(),
        },
        |failure| SetupError::Refused { path: conf, failure },
    ))
}

/// Hands a new key to the process, and waits for the end of it.
fn ended(mut child: Child, key: Option<&NewKey>) -> io::Result<Output> {
    if let (Some(mut input), Some(key)) = (child.stdin.take(), key) {
        // A process that has refused the configuration reads no key.
        let _unread = input.write_all(key.content());
    }
    child.wait_with_output()
}
