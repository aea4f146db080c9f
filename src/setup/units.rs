//! The units of all pipes, as systemd sees them, by one question.

use crate::config::{Address, StatusOf};
use crate::unit::configuration::PipeUnit;
use crate::unit::systemd::{ask, is_running};

/// What is asked of a unit.
const PROPERTIES: &str = "Id,ActiveState,SubState,UnitFileState,Job,Listen";

/// A unit of a pipe that systemd has loaded: one that runs, has failed, or is enabled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SeenUnit {
    /// The name of its service, without `.service`.
    pub(crate) service: String,
    /// Its own name.
    pub(crate) name: String,
    active: String,
    sub: String,
    is_enabled: bool,
    /// A job waits, such as a start until the network is up.
    has_job: bool,
    /// Of a socket unit, where it listens.
    pub(crate) listen: Vec<Address>,
}

/// What a unit that does not serve does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// It should run, and does not.
    Down(&'static str),
    /// It starts or stops, and serves if its control socket answers.
    Changing(&'static str),
}

impl SeenUnit {
    /// What it does, where it may not serve.
    pub(crate) fn idle(&self) -> Option<Idle> {
        match (&*self.active, &*self.sub) {
            ("failed", _) => Some(Idle::Down("failed")),
            ("activating", "auto-restart" | "auto-restart-queued") => {
                Some(Idle::Down("failed, and starts again and again"))
            }
            ("inactive", _) if self.has_job => Some(Idle::Changing("still starting")),
            ("inactive", _) if self.is_enabled => Some(Idle::Down("enabled, and does not run")),
            ("activating", _) => Some(Idle::Changing("still starting")),
            ("deactivating", _) => Some(Idle::Changing("still stopping")),
            _ => None,
        }
    }

    /// Whether its service is one that this socket unit starts.
    pub(crate) fn is_socket(&self) -> bool {
        self.name.ends_with(".socket")
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// Whether it is enabled, or runs.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is_enabled || !matches!(&*self.active, "inactive" | "failed")
    }

    /// What stands in one answer; none of a unit that is not ours, such as of
    /// spiped-sendmail.service.
    fn read(answer: &str) -> Option<Self> {
        let values = |name: &'static str| {
            answer.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('='))
        };
        let value = |name| values(name).next().unwrap_or_default().to_owned();
        let name = value("Id");
        let (service, _kind) = name.rsplit_once('.')?;
        let is_ours = matches!(service.parse(), Ok(StatusOf::Unit(unit)) if unit == service);
        let address = |line: &str| line.split(" (").next()?.parse().ok();
        is_ours.then(|| Self {
            service: service.to_owned(),
            active: value("ActiveState"),
            sub: value("SubState"),
            is_enabled: matches!(&*value("UnitFileState"), "enabled" | "enabled-runtime"),
            has_job: !matches!(&*value("Job"), "" | "0"),
            listen: values("Listen").filter_map(address).collect(),
            name: name.clone(),
        })
    }
}

/// All units of pipes; `None` where systemd does not run this host.
///
/// # Errors
/// Why they could not be seen.
pub(crate) fn seen_units() -> Result<Option<Vec<SeenUnit>>, String> {
    if !is_running() {
        return Ok(None);
    }
    let kinds = ["service", "socket"];
    let of = |kind| [format!("spiped-receive*.{kind}"), format!("spiped-send*.{kind}")];
    let patterns = kinds.map(of).concat();
    let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
    let told = ask(&[&["show", "--all", "-p", PROPERTIES], &*patterns].concat())?;
    Ok(Some(told.split("\n\n").filter_map(SeenUnit::read).collect()))
}

/// The socket unit of a pipe; `None` where it cannot be seen.
pub(crate) fn socket_unit_of(unit: &PipeUnit) -> Option<SeenUnit> {
    if !is_running() {
        return None;
    }
    let name = format!("{}.socket", unit.name());
    let seen = SeenUnit::read(&ask(&["show", "-p", PROPERTIES, &name]).ok()?)?;
    (seen.name == name).then_some(seen)
}

/// Whether the service of a pipe has drop-ins, as far as that can be told.
pub(crate) fn has_drop_ins(unit: &PipeUnit) -> bool {
    let name = format!("{}.service", unit.name());
    let told = is_running().then(|| ask(&["show", "-P", "DropInPaths", &name]));
    told.is_some_and(|told| told.is_ok_and(|paths| !paths.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_apart_by_name_and_state() {
        let read = |id: &str, active: &str, sub: &str, file: &str| {
            SeenUnit::read(&format!(
                "Listen=[::]:8700 (Stream)\nId={id}\nActiveState={active}\nSubState={sub}\n\
                 UnitFileState={file}\n"
            ))
        };
        let idle =
            |active, sub, file| read("spiped-send@a.b.service", active, sub, file).unwrap().idle();
        let waits = "Id=spiped-send.service\nActiveState=inactive\nSubState=dead\nJob=7\n";
        let waits = SeenUnit::read(waits).unwrap();
        assert_eq!(waits.idle(), Some(Idle::Changing("still starting")));
        let again = Some(Idle::Down("failed, and starts again and again"));
        for (active, sub, file, wanted) in [
            ("active", "running", "enabled", None),
            ("inactive", "dead", "disabled", None),
            ("inactive", "dead", "enabled-runtime", Some(Idle::Down("enabled, and does not run"))),
            ("failed", "failed", "disabled", Some(Idle::Down("failed"))),
            ("activating", "auto-restart", "", again),
            ("activating", "auto-restart-queued", "", again),
            ("activating", "start-pre", "", Some(Idle::Changing("still starting"))),
            ("deactivating", "stop-sigterm", "", Some(Idle::Changing("still stopping"))),
        ] {
            assert_eq!(idle(active, sub, file), wanted, "{active} {sub} {file}");
        }
        for foreign in ["spiped-sendmail.service", "spiped-send@.service", "spiped-sender"] {
            assert_eq!(read(foreign, "failed", "failed", ""), None);
        }
        let socket = read("spiped-send.socket", "active", "listening", "").unwrap();
        assert_eq!(
            (&*socket.service, socket.listen[0].to_string()),
            ("spiped-send", "[::]:8700".into())
        );
    }
}
