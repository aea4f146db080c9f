//! The report to the operator: what runs, and the line for the other host.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::error::SetupError;
use super::plan::{Plan, Sight, Step, file};
use crate::config::setup::{Activation, End, Ends, GAP, Plaintext, Setup};
use crate::config::{Address, Role};
use crate::protocol::KeyId;

/// The report of `--dry-run`.
pub(super) fn what_would_be_done(plan: &Plan) -> String {
    let mut text = String::new();
    if plan.sight == Sight::Barred {
        text.push_str("only root sees whether some of this is done already\n");
    }
    for step in &plan.steps {
        text.push_str(&line_of(step));
    }
    if plan.steps.is_empty() {
        text.push_str("nothing to do: it is set up and runs\n");
    }
    text.push_str(
        "would then prove it; only the real run shows whether the units start, the port is \
         free, and the other end answers\n",
    );
    text
}

pub(super) fn line_of(step: &Step) -> String {
    match step {
        Step::Folder { path, mode } => format!("would make {}, mode {mode:04o}\n", path.display()),
        Step::Key { path, key, role } => {
            let from = match role {
                Role::Decrypt => "a new key".to_owned(),
                Role::Encrypt => format!("the given key {}", key.id()),
            };
            format!("would make {}, mode 0600: {from}\n", path.display())
        }
        Step::File { path, content } => {
            let indented = content.lines().map(|line| format!("    {line}\n"));
            format!("would make {}, mode 0644:\n{}", path.display(), indented.collect::<String>())
        }
        Step::ReadUnits => "would run systemctl daemon-reload\n".to_owned(),
        Step::Enable(unit) => format!("would run systemctl enable {unit}\n"),
        Step::Start(unit, _) => format!("would run systemctl start {unit}\n"),
    }
}

/// The line of a file or folder that stays.
pub(super) fn left(path: &Path, why: &str) -> String {
    format!("left {}: {why}", path.display())
}

/// The report of a real run, which does not depend on how much was done already.
pub(super) fn what_runs(
    setup: &Setup,
    ends: &[(End, KeyId)],
    proofs: &[Result<(), SetupError>],
) -> String {
    // The first one that has failed is the error of the command, which tells why.
    let told = proofs.iter().position(Result::is_err);
    let ends = ends.iter().zip(proofs).enumerate();
    let runs = |(at, ((end, key), proof)): (usize, (&(End, KeyId), &Result<_, _>))| {
        let runs = what_end_runs(end, *key);
        if told == Some(at) { runs } else { runs + &what_is_proved(proof) }
    };
    let mut text: String = ends.map(runs).collect();
    let next = match &setup.ends {
        Ends::Receive { .. } if !file(&setup.name, "key").exists() => format!(
            "Its clients have keys of their own; 'spiped setup client NAME --pipe {}' makes one.\n",
            setup.name
        ),
        Ends::Receive { source, .. } => {
            let (name, line) = (&setup.name, line_for_sender(setup, source));
            format!("Now, on the clients' host:\n  {line}\n{}", by_hand(&file(name, "key")))
        }
        Ends::Send { .. } => String::new(),
        Ends::Pair { .. } => next_of_pair(setup),
    };
    text.push_str(&next);
    text
}

/// How to bring the key where sudo asks for a password.
pub(super) fn by_hand(key: &Path) -> String {
    format!(
        "Where sudo asks for a password: run 'sudo base64 {}' on the host that ssh \
         names,\nthen the line without what stands before the |; it asks for what was printed.\n",
        key.display()
    )
}

fn what_end_runs(end: &End, key: KeyId) -> String {
    let End { role, name, source, target } = end;
    let runs = match role {
        Role::Decrypt => format!(
            "The receiver {name} runs: it takes encrypted connections on {source} and sends \
             plaintext to {target}."
        ),
        Role::Encrypt => format!(
            "The sender {name} runs: it takes plaintext on {source} and sends it encrypted to \
             {target}."
        ),
    };
    format!("{runs}\n  The id of its key is {key}.\n")
}

fn what_is_proved(proof: &Result<(), SetupError>) -> String {
    let proof = match proof {
        Ok(()) => "The pipe works: the handshake succeeded, and the server is reached.".into(),
        Err(SetupError::Unproved { fault, .. }) => format!("The proof has failed: {fault}"),
        Err(error) => format!("The proof has failed: {error}"),
    };
    format!("  {proof}\n")
}

fn line_for_sender(setup: &Setup, source: &Address) -> String {
    let Reach { host, address } = Reach::of(Some(source));
    let name = &setup.name;
    format!(
        "ssh {host} sudo cat /etc/spiped/{name}.key | sudo spiped setup send {name} \
         --source 127.0.0.1:8000 --target {address} --key -"
    )
}

/// The next lines of a pair, of which the first was run here: it has set up this host's
/// receiver. The second line, for the other host, sets up both of its halves. The third
/// line, for this host, brings the other host's key.
fn next_of_pair(setup: &Setup) -> String {
    let Ends::Pair { source, target, local, peer, key } = &setup.ends else {
        return String::new();
    };
    let (here, there) = (Reach::of(Some(source)), Reach::of(Some(peer)));
    let (name, target, local) = (&setup.name, word(target), word(local));
    let by_hand = by_hand(&file(&name.half("in"), "key"));
    if key.is_some() {
        return format!(
            "Last, on {}: what was printed there for itself, unless {name}-out runs there already\n",
            there.host
        );
    }
    let line = |from: &Reach, what: &str| {
        let socket = if setup.activation == Activation::Socket { " --socket" } else { "" };
        let expose =
            if setup.plaintext == Plaintext::Anywhere { " --expose-plaintext" } else { "" };
        format!(
            "  ssh {} sudo cat /etc/spiped/{name}-in.key | \
             sudo spiped setup {what} --key -{socket}{expose}\n",
            from.host
        )
    };
    let pair = format!(
        "pair {name} --source {} --target {target} --local {GAP} --peer {}",
        there.address, here.address
    );
    let send = format!("send {name}-out --source {local} --target {}", there.address);
    format!(
        "Now, on {}, with its own --target, and for {GAP} where its programs are to reach the \
         server here:\n{}Then, here:\n{}{by_hand}",
        there.host,
        line(&here, &pair),
        line(&there, &send)
    )
}

/// How the other host reaches an address of this host, as words for a shell.
pub(super) struct Reach {
    pub(super) host: String,
    pub(super) address: String,
}

impl Reach {
    pub(super) fn of(address: Option<&Address>) -> Self {
        let Some(address) = address else {
            return Self { host: "HOST".into(), address: "HOST:PORT".into() };
        };
        let host = match address {
            Address::Inet(any) if any.ip().is_unspecified() => {
                let host = host_name();
                return Self { address: format!("{host}:{}", any.port()), host };
            }
            Address::Inet(address) => address.ip().to_string(),
            Address::Host(name, _) => name.clone(),
            Address::Unix(_) => return Self::of(None),
        };
        Self { host, address: word(address) }
    }
}

/// An address as a word for a shell, which has a meaning for brackets.
fn word(address: &Address) -> String {
    match address {
        Address::Inet(SocketAddr::V4(address)) => address.to_string(),
        Address::Inet(SocketAddr::V6(_)) => format!("'{address}'"),
        Address::Host(name, _) if name.contains('%') => format!("'{address}'"),
        Address::Host(..) | Address::Unix(_) => address.to_string(),
    }
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // The name becomes a part of a line for a shell.
    let is_plain = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    Some(name.trim()).filter(|name| !name.is_empty()).filter(is_plain).unwrap_or("HOST").into()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::config::setup::Task;
    use crate::config::{Args, Command};

    fn setup(line: &str) -> Setup {
        let words = format!("spiped setup {line}");
        let matches = Args::command().try_get_matches_from(words.split(' ')).unwrap();
        let Ok(Command::Setup { what }) = Command::from_arg_matches(&matches) else {
            panic!("{line}")
        };
        match what.try_into().unwrap() {
            Task::Make(setup) => setup,
            other @ (Task::Keys(_) | Task::Remove(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_is_told_as_the_other_host_can_use_it() {
        let all = format!("{}:1", host_name());
        let cases = [
            ("10.0.0.5:1", "10.0.0.5", "10.0.0.5:1"),
            ("[2001:db8::1]:1", "2001:db8::1", "'[2001:db8::1]:1'"),
            ("[fe80::1%eth0]:1", "fe80::1%eth0", "'[fe80::1%eth0]:1'"),
            ("db.example:1", "db.example", "db.example:1"),
            ("0.0.0.0:1", &host_name(), &all),
            ("[::]:1", &host_name(), &all),
            ("/run/x.socket", "HOST", "HOST:PORT"),
        ];
        for (text, host, address) in cases {
            let reach = Reach::of(Some(&text.parse().unwrap()));
            assert_eq!((reach.host.as_str(), reach.address.as_str()), (host, address));
        }
    }

    #[test]
    fn the_lines_of_a_pair_keep_its_flags_and_swap_its_hosts() {
        let line = "pair x -s [2001:db8::1]:1 -t /run/x --local 0.0.0.0:2 --peer [2001:db8::2]:3 \
                    --expose-plaintext --socket";
        assert_eq!(
            next_of_pair(&setup(line)),
            "Now, on 2001:db8::2, with its own --target, and for LOCAL where its programs are to \
             reach the server here:\n  \
             ssh 2001:db8::1 sudo cat /etc/spiped/x-in.key | sudo spiped setup pair x \
             --source '[2001:db8::2]:3' --target /run/x --local LOCAL \
             --peer '[2001:db8::1]:1' --key - --socket --expose-plaintext\n\
             Then, here:\n  \
             ssh 2001:db8::2 sudo cat /etc/spiped/x-in.key | sudo spiped setup send x-out \
             --source 0.0.0.0:2 --target '[2001:db8::2]:3' --key - --socket --expose-plaintext\n\
             Where sudo asks for a password: run 'sudo base64 /etc/spiped/x-in.key' on the host \
             that ssh names,\nthen the line without what stands before the |; it asks for what \
             was printed.\n"
        );
        assert_eq!(
            next_of_pair(&setup(&format!("{line} -k -"))),
            "Last, on 2001:db8::2: what was printed there for itself, unless x-out runs there already\n"
        );
    }
}
