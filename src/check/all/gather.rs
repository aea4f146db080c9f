//! Asks, tries and looks: the facts of all pipes, at once.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};

use nix::unistd::geteuid;

use super::facts::{Exchange, Facts, Pipe, Place, Plaintext, Refusal, Seen, Source, Target, Told};
use super::files::UnitFiles;
use super::sockets::{Sockets, is_exposed, rights, unit_of};
use super::{keys, target};
use crate::check::plaintext::{Accepted, refuses};
use crate::config::tunnel::Timeout;
use crate::config::{self, Address, Role, TunnelConfig};
use crate::protocol::Kex;
use crate::setup;
use crate::setup::prove::of_this_host;
use crate::status::{self, Answer, Asked, OpenConnection, State, Status};
use crate::unit::configuration::FOLDER;
use crate::unit::configuration::PipeUnit;

/// A client of this protocol speaks first, so a receiver refuses it at once.
const CLIENT: config::Plaintext = config::Plaintext::Redis;

/// What is the same for all pipes.
struct Host {
    sockets: Result<Sockets, String>,
    /// Where pipes listen.
    sources: Vec<SocketAddr>,
    timeout: Timeout,
}

/// Makes the facts of all that was asked.
pub(super) fn gather(asked: Vec<Asked>, timeout: Timeout) -> Seen {
    let told = || asked.iter().filter_map(Asked::status);
    let sources = told().flat_map(|it| &it.listening).filter_map(|it| inet(it)).collect();
    let known: Vec<_> = told().map(|it| it.pid).collect();
    let asked_at: Vec<_> = asked.iter().map(|it| it.socket.clone()).collect();
    let sockets = Sockets::see().map_err(|error| error.to_string());
    let host = Host { sockets, sources, timeout };
    let mut not_seen = not_seen(&host);
    if !geteuid().is_root() {
        not_seen.push("pipes that other users run without a unit".to_owned());
    }
    let mut pipes: Vec<_> = thread::scope(|scope| {
        let look = |one: Asked| scope.spawn(|| pipe(one, &host));
        let threads: Vec<_> = asked.into_iter().map(look).collect();
        // No pipe may be missing in the report.
        let join =
            |it: ScopedJoinHandle<'_, Pipe>| it.join().unwrap_or_else(|it| resume_unwind(it));
        threads.into_iter().map(join).collect()
    });
    if let Ok(sockets) = &host.sockets {
        let others = sockets.other_spipeds(&known).into_iter();
        // One that hangs was asked.
        let others = others.filter(|(pid, _)| {
            let control = unit_of(*pid).map(|unit| format!("/run/{unit}/control"));
            control.is_none_or(|control| !asked_at.contains(&control))
        });
        pipes.extend(others.map(without_control));
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

/// A spiped that listens on this host, and is not asked.
fn without_control((pid, addresses): (i32, Vec<String>)) -> Pipe {
    let at = addresses.join(", ");
    let error =
        format!("process {pid}, a spiped, listens at {at}, and its control socket is not in /run");
    let hint = "run it as a unit, or with --control /run/spiped-receive@NAME/control, or with \
                spiped-send in it";
    let told = Told::Failed { error, hint: hint.to_owned() };
    Pipe { name: format!("process {pid}"), socket: None, told }
}

fn pipe(asked: Asked, host: &Host) -> Pipe {
    let told = match asked.answer {
        // What is not told must not look as if there were nothing to find.
        Answer::Told(status) => match &status.open {
            Some(open) => Told::Facts(Box::new(facts(&status, open, host))),
            None => Told::Failed {
                error: "it does not tell its open connections".to_owned(),
                hint: "restart it: it may be of another version".to_owned(),
            },
        },
        Answer::Failed { error, hint } => Told::Failed { error, hint },
    };
    Pipe { name: asked.name, socket: Some(asked.socket), told }
}

fn facts(status: &Status, open: &[OpenConnection], host: &Host) -> Facts {
    let files = status.unit.as_deref().and_then(UnitFiles::of);
    let drains = status.state == State::Draining;
    let proof = match status.role {
        Role::Encrypt if !drains => Some(keys::proof(status, files.as_ref())),
        Role::Encrypt | Role::Decrypt => None,
    };
    let place = match status.role {
        _ if drains => Place::NotLooked,
        Role::Encrypt => Place::Receiver,
        Role::Decrypt => {
            let sockets = host.sockets.as_ref().map_err(|error| &**error);
            target::place_of(&status.target.address, sockets, &host.sources)
        }
    };
    let source = |address: &String| Source {
        plaintext: plaintext(address, status, host.timeout),
        address: address.clone(),
    };
    let own = |sockets: &Sockets| sockets.of_process(status.pid, &host.sources);
    Facts {
        role: status.role,
        state: status.state,
        pid: status.pid,
        unit: status.unit.clone(),
        listening: status.listening.iter().map(source).collect(),
        target: Target {
            address: status.target.address.clone(),
            place,
            // Of a sender, the proof tells more.
            error: status.target.error.clone().filter(|_| status.role == Role::Decrypt),
        },
        kex: exchange(status, open),
        keys: keys::in_force(status, files.as_ref()),
        refused: if drains { None } else { refused(status) },
        proof,
        status_http: host.sockets.as_ref().map(own).unwrap_or_default(),
    }
}

/// Why the next start of a unit of a pipe with a name would be refused. Only root can tell.
fn refused(status: &Status) -> Option<Refusal> {
    let unit = PipeUnit::named(status.unit.as_deref()?.strip_suffix(".service")?)?;
    let failure = geteuid().is_root().then(|| setup::refusal(&unit)).flatten()?;
    Some(Refusal { error: failure.reason, hint: failure.hint })
}

/// What plaintext gets at a source.
fn plaintext(address: &str, status: &Status, timeout: Timeout) -> Plaintext {
    let Ok(address) = address.parse::<Address>() else {
        return Plaintext::Unproved { error: "its address is not understood".to_owned() };
    };
    match (status.role, &address) {
        _ if status.state == State::Draining => Plaintext::NotTried,
        (Role::Decrypt, _) => {
            let way = TunnelConfig { timeout, ..TunnelConfig::to(of_this_host(&address)) };
            match refuses(&way, None, CLIENT) {
                Ok(refused) => Plaintext::Refused { seconds: refused.took.as_secs_f64() },
                Err(error @ (Accepted::Served { .. } | Accepted::Foreign { .. })) => {
                    Plaintext::Served { error: error.to_string() }
                }
                Err(error @ (Accepted::Fault(_) | Accepted::Silent { .. })) => {
                    Plaintext::Unproved { error: error.to_string() }
                }
            }
        }
        (Role::Encrypt, Address::Unix(path)) => Plaintext::UnixSocket(rights(path)),
        (Role::Encrypt, Address::Inet(at)) if !is_exposed(*at) => Plaintext::Loopback,
        (Role::Encrypt, Address::Inet(_) | Address::Host(..)) => Plaintext::Exposed,
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

fn inet(address: &str) -> Option<SocketAddr> {
    match address.parse() {
        Ok(Address::Inet(address)) => Some(address),
        Ok(Address::Host(..) | Address::Unix(_)) | Err(_) => None,
    }
}
