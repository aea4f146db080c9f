//! The command line as it was typed; the doc comments are the `--help`.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::path::PathBuf;

use clap::builder::{FalseyValueParser, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::setup::SetupCommand;

/// An encrypted, authenticated pipe between two sockets.
///
/// With -e, plaintext connections to the source are sent encrypted to the
/// target; with -d, encrypted connections to the source are sent as plaintext
/// to the target. Both ends share a key file. Each option can also be given in
/// the environment, as SPIPED_ and its long name: SPIPED_SOURCE, …
#[derive(Debug, Parser)]
#[command(
    name = "spiped",
    version,
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "spiped -e|-d -s ADDRESS -t ADDRESS -k FILE [OPTIONS]\n       spiped keygen PATH\n       spiped keyid PATH\n       spiped rekey SOCKET KEY\n       spiped handover UNIT\n       spiped setup receive|send|pair NAME -s ADDRESS -t ADDRESS [OPTIONS]\n       spiped completions SHELL [NAME]"
)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Args {
    /// What to do other than being an end of a pipe.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Be the sender: take plaintext on the source, send it encrypted to the target
    #[arg(short = 'e', long, env = "SPIPED_ENCRYPT", value_parser = FalseyValueParser::new())]
    pub encrypt: bool,

    /// Be the receiver: take encrypted connections on the source, send plaintext to the target
    #[arg(short = 'd', long, env = "SPIPED_DECRYPT", value_parser = FalseyValueParser::new())]
    pub decrypt: bool,

    /// Where to listen: host.name:port, [1.2.3.4]:port, [::1]:port or /unix/socket [default: the sockets that systemd hands over]
    #[arg(short, long, value_name = "ADDRESS", env = "SPIPED_SOURCE")]
    pub source: Option<String>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the text of --help")]
    pub outgoing: Outgoing,

    /// Wait for the name of the source: try it every second until it resolves
    #[arg(short = 'D', long, env = "SPIPED_WAIT_FOR_DNS", value_parser = FalseyValueParser::new())]
    pub wait_for_dns: bool,

    /// Stay in the foreground
    #[arg(short = 'F', long, env = "SPIPED_FOREGROUND", value_parser = FalseyValueParser::new())]
    pub foreground: bool,

    /// With -F: serve in a second process, which a restart of the systemd unit leaves to its open connections
    #[arg(long, env = "SPIPED_HANDOVER", value_parser = FalseyValueParser::new())]
    pub handover: bool,

    /// Connections at once; 0: as many as the file descriptors allow [default: 0]
    #[arg(short = 'n', long, value_name = "NUMBER", env = "SPIPED_CONNECTIONS")]
    pub connections: Option<String>,

    /// Where to write the process id [default: SOURCE.pid; none with -F]
    #[arg(short, long, value_name = "FILE", env = "SPIPED_PIDFILE")]
    pub pidfile: Option<PathBuf>,

    /// Seconds after which the target's name is resolved again [default: 60]
    #[arg(short = 'r', long, value_name = "SECONDS", env = "SPIPED_RESOLVE")]
    pub resolve: Option<String>,

    /// Never resolve the target's name again
    #[arg(short = 'R', long, env = "SPIPED_NO_RESOLVE", value_parser = FalseyValueParser::new())]
    pub no_resolve: bool,

    /// Run as this user, once the source is bound and the key is read
    #[arg(short, long, value_name = "USER|:GROUP|USER:GROUP", env = "SPIPED_USER")]
    pub user: Option<String>,

    /// Seconds that open connections have to end by themselves after TERM [default: 10]
    #[arg(long, value_name = "SECONDS", env = "SPIPED_DRAIN_TIMEOUT")]
    pub drain_timeout: Option<String>,

    /// Take new keys by 'spiped rekey' on this unix socket
    #[arg(long, value_name = "PATH", env = "SPIPED_CONTROL")]
    pub control: Option<String>,

    /// Threads that share the connections [default: one for each core]
    #[arg(long, value_name = "NUMBER", env = "SPIPED_THREADS")]
    pub threads: Option<String>,

    /// With -e: keep so many sessions ready, so that a new connection waits for no handshake [default: 0]
    #[arg(long, value_name = "NUMBER", env = "SPIPED_PREWARM")]
    pub prewarm: Option<String>,

    /// Log to syslog; always so in the background
    #[arg(long, env = "SPIPED_SYSLOG", value_parser = FalseyValueParser::new())]
    pub syslog: bool,

    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "SPIPED_LOG_FORMAT")]
    pub log_format: Option<String>,

    /// From which level on to log: off, error, warn, info or debug [default: info]
    #[arg(long, value_name = "LEVEL", env = "SPIPED_LOG")]
    pub log: Option<String>,

    /// Log warnings and errors only
    #[arg(short = 'q', long, env = "SPIPED_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,

    /// Log more: also probes, and what happens within a connection
    #[arg(long, env = "SPIPED_VERBOSE", value_parser = FalseyValueParser::new())]
    pub verbose: bool,
}

/// `spipe`: standard input and output through the pipe to a receiver.
///
/// Connects to a receiver ('spiped -d') and sends it standard input; what the
/// server behind it answers comes on standard output.
#[derive(Debug, Parser)]
#[command(
    name = "spipe",
    version,
    disable_version_flag = true,
    override_usage = "spipe -t ADDRESS -k FILE [OPTIONS]"
)]
pub struct SpipeArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the text of --help")]
    pub outgoing: Outgoing,
}

/// The options that `spiped` and `spipe` have in common.
#[derive(Debug, ClapArgs)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Outgoing {
    /// Where to connect to: host.name:port, [1.2.3.4]:port, [::1]:port or /unix/socket
    #[arg(short, long, value_name = "ADDRESS", env = "SPIPED_TARGET")]
    pub target: Option<String>,

    /// The key file both ends share; - reads the key from standard input
    #[arg(short, long, value_name = "FILE", env = "SPIPED_KEY")]
    pub key: Option<PathBuf>,

    /// The local address of connections to the target: [1.2.3.4]:0 or 1.2.3.4
    #[arg(short, long, value_name = "ADDRESS", env = "SPIPED_BIND")]
    pub bind: Option<String>,

    /// Seconds a handshake, and a connect, may take [default: 5]
    #[arg(short = 'o', long, value_name = "SECONDS", env = "SPIPED_TIMEOUT")]
    pub timeout: Option<String>,

    /// Do not probe whether the peers of idle connections are still there
    #[arg(short = 'j', long, env = "SPIPED_NO_KEEPALIVE", value_parser = FalseyValueParser::new())]
    pub no_keepalive: bool,

    /// auto, aes-256-gcm or chacha20-poly1305; with -d: the only one accepted [default: auto]
    #[arg(long, value_name = "CIPHER", env = "SPIPED_CIPHER")]
    pub cipher: Option<String>,

    /// Pad what is sent, so that records are multiples of this many bytes [default: no padding]
    #[arg(long, value_name = "BYTES", env = "SPIPED_PAD")]
    pub pad: Option<String>,

    /// Stay awake for a moment after a small read: only for hosts with idle cores
    #[arg(long, env = "SPIPED_POLLING", value_parser = FalseyValueParser::new())]
    pub polling: bool,

    /// Require forward secrecy: accepted, and always so
    #[arg(short = 'g', long)]
    pub require_pfs: bool,

    /// Refused: there is no handshake without forward secrecy
    #[arg(short = 'f', long)]
    pub fast: bool,

    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What to do other than being an end of a pipe.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new key file, readable by its owner alone, and print the key's id
    Keygen {
        /// The file to make; one that exists is never overwritten
        path: PathBuf,
    },
    /// Give a running spiped another key, and print its id
    Rekey {
        /// The socket after --control of that spiped
        socket: PathBuf,
        /// The key file; - reads the key from standard input
        key: PathBuf,
    },
    /// Print the id of a key, which tells nothing about the key itself
    Keyid {
        /// The key file; - reads the key from standard input
        path: PathBuf,
        /// Refuse a file that belongs to neither this user nor root [default: anybody may own it]
        #[arg(short = 'u', long)]
        user: Option<String>,
    },
    /// For ExecStop= of a unit: where it restarts, leave its open connections to their process
    Handover {
        /// The unit, as %n names it
        unit: String,
        /// Take this process into the scope that the command runs in
        #[arg(long, value_name = "PID", hide = true)]
        adopt: Option<i32>,
    },
    /// Have systemd run an end of a pipe, now and at every boot
    #[command(arg_required_else_help = false)]
    Setup {
        #[command(subcommand)]
        #[expect(missing_docs, reason = "clap would take it for the text of --help")]
        what: SetupCommand,
    },
    /// Print what a shell needs to complete the command line
    Completions {
        /// Whose completions
        #[arg(value_parser = PossibleValuesParser::new(["bash", "fish", "zsh"])
            .try_map(|name| name.parse::<Shell>()))]
        shell: Shell,
        /// The command to complete
        #[arg(default_value = "spiped")]
        name: Name,
    },
}

/// The names of the program.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Name {
    /// One end of a pipe.
    #[value(help = None)]
    Spiped,
    /// Standard input and output through a pipe.
    #[value(help = None)]
    Spipe,
}
