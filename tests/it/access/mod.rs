//! Who may use a sender (`--allow-uid`, `--allow-gid`) and connect to a unix source
//! (`--socket-mode`, `--socket-owner`, `--socket-group`): real clients of several users.

mod source;
mod users;
mod worth;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use crate::support::{Daemon, Folder, SPIPED, Server};

/// Connects to an address or path, says a line, and prints the answer.
const CLIENT: &str = "\
    $SIG{PIPE} = 'IGNORE'; $| = 1;
    my ($host, $port) = @ARGV;
    my $s = $port ? IO::Socket::IP->new(PeerHost => $host, PeerPort => $port)
                  : IO::Socket::UNIX->new(Peer => $host);
    print('cannot connect'), exit unless $s;
    print $s \"hello\\n\"; $s->flush;
    my $answer = <$s>;
    print defined $answer ? $answer : 'refused';";

const PERL: [&str; 3] = ["perl", "-MIO::Socket::IP", "-MIO::Socket::UNIX"];

/// A user without any group but these, of which the first is the main one.
struct User(u32, &'static [u32]);

/// Users that no account has.
const ALLOWED: User = User(65533, &[65533]);
const OTHER: User = User(65532, &[65532]);
const ROOT: User = User(0, &[0]);

impl User {
    /// A program that the user runs.
    fn runs(&self, program: &[&str]) -> Command {
        let Self(uid, gids) = self;
        let all: Vec<_> = gids.iter().map(u32::to_string).collect();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", &all[0]]);
        command.args(["--groups", &all.join(",")]).args(program).stdin(Stdio::null());
        command
    }

    /// The user's client: its number, and what it prints.
    fn connects(&self, to: &str) -> (u32, String) {
        let mut command = self.runs(&PERL);
        command.args(["-e", CLIENT]).args(
            to.rsplit_once(':')
                .map_or(vec![to], |(host, port)| vec![host.trim_matches(['[', ']']), port]),
        );
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        (id, said(&child.wait_with_output().unwrap()))
    }

    fn is_served(&self, to: &str) -> bool {
        match self.connects(to).1.as_str() {
            "hello" => true,
            "refused" => false,
            other => panic!("{other}"),
        }
    }
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

/// A folder that every user can enter.
fn open_folder() -> Folder {
    let folder = Folder::new();
    fs::set_permissions(folder.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// A receiver before an echo server, and a sender on `source` before the receiver.
struct Ends {
    server: Server,
    _receiver: Daemon,
    sender: Daemon,
}

impl Ends {
    fn on(folder: &Folder, source: &str, more: &[&str]) -> Self {
        Self::with(folder, source, more, |_| {})
    }

    fn with(folder: &Folder, source: &str, more: &[&str], set: impl Fn(&mut Command)) -> Self {
        let server = Server::echo();
        let key = folder.shared_key();
        let receiver = Daemon::receiver(&key, server.address, &[]);
        let to = receiver.address.to_string();
        let mut command = Command::new(SPIPED);
        command.args(["-F", "-e", "-s", source, "-t", &to, "-k", key.to_str().unwrap()]).args(more);
        set(&mut command);
        Self { server, _receiver: receiver, sender: Daemon::spawn(command) }
    }
}
