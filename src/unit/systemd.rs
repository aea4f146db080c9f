//! Questions to systemd, which must answer in time.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// How many seconds systemd may take to answer.
const PATIENCE: &str = "5";

/// Whether systemd runs this host.
pub(crate) fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Asks systemctl. timeout(1) ends the question, also where this process has ended meanwhile.
///
/// # Errors
/// Why there is no answer, in a line.
pub(crate) fn ask(words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", PATIENCE, "systemctl"]).args(words);
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).process_group(0).output();
    let output = output.map_err(|error| format!("timeout(1) cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(match (said.lines().next(), output.status.code()) {
        // timeout(1) ends by the signal, as a shell tells it or not.
        (_, None | Some(137)) => format!("systemctl did not answer in {PATIENCE} seconds"),
        (Some(line), _) => line.to_owned(),
        (None, _) => format!("systemctl has ended by {}", output.status),
    })
}

/// The number of the running systemd's version, such as 252, as far as that can be told.
pub(super) fn version() -> Option<u32> {
    let told = is_running().then(|| ask(&["show", "-P", "Version"]))?.ok()?;
    let number = told.trim().split(|letter: char| !letter.is_ascii_digit()).next()?;
    number.parse().ok()
}
