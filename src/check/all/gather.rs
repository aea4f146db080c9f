//! Asks, tries and looks: the facts of all pipes, at once. Of what a process tells of itself,
//! only that counts which the kernel tells, too: which process it is, where it listens, and
//! which unit has the folder of its control socket.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use super::believed::{Process, without_control};
use super::facts::{
    Exchange, Facts, IdleSocket, Lack, Pipe, Place, Plaintext, Refusal, Seen, Source, Target, Told,
    Waits,
};
use super::sockets::{Sockets, is_exposed, rights};
use super::{keys, target};
use crate::check::plaintext::{Accepted, refuses};
use crate::config::tunnel::Timeout;
use crate::config::{self, Address, Role, TunnelConfig};
use crate::daemon::proof::FaultKind;
use crate::process::at_once::ask_at_once;
use crate::protocol::Kex;
use crate::report::exit;
use crate::setup::prove::of_this_host;
use crate::setup::{self, SeenUnit, has_drop_ins};
use crate::status::{self, Asked, OpenConnection, State, Status};
use crate::unit::configuration::{FOLDER, PipeUnit};
use crate::unit::files::UnitFiles;

/// A client of this protocol speaks first, so a receiver refuses it at once.
const CLIENT: config::Plaintext = config::Plaintext::Redis;

/// What is the same for all pipes.
pub(super) struct Host {
    sockets: Result<Sockets, String>,
    /// Where pipes listen.
    sources: Vec<SocketAddr>,
    timeout: Option<Timeout>,
    systemd: Systemd,
}

/// Whether systemd answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Systemd {
    Silent,
    /// Or it does not run this host.
    Answers,
}

/// Makes the facts of all that was asked, and of the socket units whose services were never
/// started.
pub(super) fn gather(
    asked: &[Asked],
    units: &[SeenUnit],
    systemd: Systemd,
    timeout: Option<Timeout>,
) -> Seen {
    let sockets = Sockets::see().map_err(|error| error.to_string());
    let known: Vec<_> = asked.iter().filter_map(|it| it.pid).collect();
    let processes = || asked.iter().filter_map(|it| Process::of(it, sockets.as_ref().ok()).ok());
    let sources = processes().flat_map(|it| it.sources()).collect();
    let host = Host { sockets, sources, timeout, systemd };
    let mut not_seen = not_seen(&host);
    if !geteuid().is_root() {
        not_seen.push("pipes that other users run without a unit".to_owned());
    }
    let mut pipes = ask_at_once(asked, |one| pipe(one, &host));
    let idle = units.iter().filter(|unit| unit.is_socket() && unit.is_active());
    let idle: Vec<_> = idle.filter(|unit| !is_asked(asked, unit)).collect();
    pipes.extend(ask_at_once(&idle, |unit| idle_socket(unit, &host)).into_iter().flatten());
    if let Ok(sockets) = &host.sockets {
        pipes.extend(sockets.other_spipeds(&known).into_iter().map(without_control));
    }
    if pipes.iter().any(Pipe::has_key_without_file) && !geteuid().is_root() {
        not_seen.push(format!("the key files in {FOLDER}"));
    }
    Seen { pipes, not_seen }
}

fn not_seen(host: &Host) -> Vec<String> {
    match &host.sockets {
        Ok(sockets) if sockets.are_all_held() || geteuid().is_root() => vec![],
        Ok(_) => vec!["which programs have the sockets of other users".to_owned()],
        Err(error) => vec![format!("the sockets of this host: {error}")],
    }
}

impl Pipe {
    fn has_key_without_file(&self) -> bool {
        let keys = self.facts().map_or(&[][..], |facts| &facts.keys);
        keys.iter().any(|key| key.file.is_none())
    }
}

/// Whether a process of the service of a socket unit was asked.
fn is_asked(asked: &[Asked], unit: &SeenUnit) -> bool {
    let folder = format!("/run/{}/", unit.service);
    asked.iter().any(|it| it.socket.starts_with(&folder))
}

/// A socket unit that only waits. A connection would start its service, so none is made.
fn idle_socket(unit: &SeenUnit, host: &Host) -> Option<Pipe> {
    let service = format!("{}.service", unit.service);
    let role = UnitFiles::of(&service)?.role;
    let source = |address: &Address| Source {
        plaintext: match role {
            Role::Encrypt => of_sender(address),
            Role::Decrypt => Plaintext::NotTried,
        },
        address: address.to_string(),
    };
    let told = match start(Some(&service), host) {
        Ok((refused, not_judged)) => Told::Idle(IdleSocket {
            role,
            state: Waits::Idle,
            unit: unit.name.clone(),
            listening: unit.listen.iter().map(source).collect(),
            refused,
            not_judged,
        }),
        Err(lack) => failed(&lack),
    };
    let name = unit.service.split_once('@').map_or(&*unit.service, |(_, name)| name);
    Some(Pipe { name: name.to_owned(), socket: None, told })
}

fn failed(lack: &Lack) -> Told {
    Told::Failed { error: lack.to_string(), hint: Lack::HINT.to_owned() }
}

fn pipe(asked: &Asked, host: &Host) -> Pipe {
    let told = match Process::of(asked, host.sockets.as_ref().ok()) {
        // What is not told must not look as if there were nothing to find.
        Ok(process) => match &process.status.open {
            Some(open) => facts(&process, open, host)
                .map_or_else(|lack| failed(&lack), |facts| Told::Facts(Box::new(facts))),
            None => Told::Failed {
                error: "it does not tell its open connections".to_owned(),
                hint: "restart it: it may be of another version".to_owned(),
            },
        },
        Err((error, hint)) => Told::Failed { error, hint },
    };
    Pipe { name: asked.name.clone(), socket: Some(asked.socket.clone()), told }
}

fn facts(process: &Process<'_>, open: &[OpenConnection], host: &Host) -> Result<Facts, Lack> {
    let Process { status, pid, .. } = process;
    let drains = status.state == State::Draining;
    let files = process.files();
    let (refused, not_judged) = if drains { (None, None) } else { start(process.unit(), host)? };
    let proof = match status.role {
        Role::Encrypt if !drains => Some(keys::proof(files, host.timeout)?),
        Role::Encrypt | Role::Decrypt => None,
    };
    let limit = host.timeout.unwrap_or_default().get();
    let place = match status.role {
        _ if drains => Place::NotLooked,
        Role::Encrypt => Place::Receiver,
        Role::Decrypt => {
            let sockets = host.sockets.as_ref().ok();
            target::place_of(&status.target.address, sockets, &host.sources, limit)?
        }
    };
    let own = |sockets: &Sockets| sockets.of_process(*pid, &host.sources);
    Ok(Facts {
        role: status.role,
        state: status.state,
        pid: *pid,
        unit: process.unit().map(str::to_owned),
        listening: listening(process, host)?,
        target: Target {
            address: status.target.address.clone(),
            place,
            // Of a sender, the proof tells more.
            error: status.target.error.clone().filter(|_| status.role == Role::Decrypt),
        },
        kex: exchange(status, open),
        keys: keys::in_force(status, files),
        refused,
        not_judged,
        proof,
        status_http: host.sockets.as_ref().map(own).unwrap_or_default(),
    })
}

/// Why the next start of a unit of a pipe with a name would be refused, and why that cannot be
/// told. Only root can tell.
fn start(unit: Option<&str>, host: &Host) -> Result<(Option<Refusal>, Option<String>), Lack> {
    let name = unit.and_then(|unit| unit.strip_suffix(".service"));
    let Some(unit) = name.and_then(PipeUnit::named).filter(|_| geteuid().is_root()) else {
        return Ok((None, None));
    };
    if host.systemd == Systemd::Silent {
        return Ok((None, Some("not judged, as systemd does not answer".to_owned())));
    }
    let failure = setup::refusal(&unit).map_err(|error| Lack::of(&error))?;
    Ok(match failure {
        None => (None, None),
        Some(failure) if failure.code == Some(exit::OS) => return Err(Lack::of(&failure.reason)),
        Some(failure) if has_drop_ins(&unit) => {
            let why = format!("not judged, as its unit has drop-ins: {}", failure.reason);
            (None, Some(why))
        }
        Some(failure) => (Some(Refusal { error: failure.reason, hint: failure.hint }), None),
    })
}

/// Tries all sources of a process at once, within one limit for all of them.
fn listening(process: &Process<'_>, host: &Host) -> Result<Vec<Source>, Lack> {
    let timeout = host.timeout.unwrap_or_default();
    let end = Instant::now() + timeout.get().saturating_mul(2);
    let source = |address: &String| {
        let plaintext = plaintext(address, process, timeout, end)?;
        Ok(Source { plaintext, address: address.clone() })
    };
    ask_at_once(&process.status.listening, source).into_iter().collect()
}

/// What plaintext gets at a source.
fn plaintext(
    address: &str,
    process: &Process<'_>,
    timeout: Timeout,
    end: Instant,
) -> Result<Plaintext, Lack> {
    let unproved = |error: &str| Ok(Plaintext::Unproved { error: error.to_owned() });
    let Ok(address) = address.parse::<Address>() else {
        return unproved("its address is not understood");
    };
    match (process.status.role, &address) {
        _ if process.status.state == State::Draining => Ok(Plaintext::NotTried),
        // Nothing is sent to where it only says that it listens.
        (Role::Decrypt, _) if !process.listens_at(&address) => {
            unproved("it says that it listens there, and does not")
        }
        (Role::Decrypt, _) if end.saturating_duration_since(Instant::now()) == Duration::ZERO => {
            unproved("it was not tried: its other addresses have taken all the time")
        }
        (Role::Decrypt, _) => {
            let way = TunnelConfig { timeout, ..TunnelConfig::to(of_this_host(&address)) };
            match refuses(&way, None, CLIENT) {
                Ok(refused) => Ok(Plaintext::Refused { seconds: refused.took.as_secs_f64() }),
                Err(error @ (Accepted::Served { .. } | Accepted::Foreign { .. })) => {
                    Ok(Plaintext::Served { error: error.to_string() })
                }
                Err(Accepted::Fault(fault)) if fault.kind == FaultKind::System => {
                    Err(Lack::of(&fault))
                }
                Err(error @ (Accepted::Fault(_) | Accepted::Silent { .. })) => {
                    unproved(&error.to_string())
                }
            }
        }
        (Role::Encrypt, _) => Ok(of_sender(&address)),
    }
}

/// Who can bring plaintext to a sender.
fn of_sender(address: &Address) -> Plaintext {
    match address {
        Address::Unix(path) => Plaintext::UnixSocket(rights(path)),
        Address::Inet(at) if !is_exposed(*at) => Plaintext::Loopback,
        Address::Inet(_) | Address::Host(..) => Plaintext::Exposed,
    }
}

fn exchange(status: &Status, open: &[OpenConnection]) -> Exchange {
    let classical = Kex::X25519.to_string();
    // A sender tells the one that it uses.
    let accepted = match &*status.kex {
        "auto" => vec![Kex::X25519MlKem768.to_string(), classical.clone()],
        only => vec![only.to_owned()],
    };
    let is_classical = |key: &&status::Key| key.kex.as_ref() == Some(&classical);
    Exchange {
        setting: status.kex.clone(),
        accepted,
        connections: open.len(),
        classical: open.iter().filter(|it| it.kex == classical).count(),
        classical_keys: status.keys.iter().filter(is_classical).map(|it| it.name.clone()).collect(),
    }
}
