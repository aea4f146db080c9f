//! The command line as it was typed; the doc comments are the `--help`.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::path::PathBuf;

use clap::builder::{FalseyValueParser, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::setup::SetupCommand;

/// Headings of `--help`, in the order of their first options; the common options
/// stand above them.
const PROCESS: &str = "Process";
const CONNECTIONS: &str = "Connections";
const LOG: &str = "Log";
const FOR_SPIPED_1: &str = "Of spiped 1.6";

const AFTER_HELP: &str = "\
An ADDRESS is host.name:port, 1.2.3.4:port, [::1]:port or /unix/socket.
Each option can be given in the environment: --log-format as SPIPED_LOG_FORMAT.

Example: Redis runs on 10.0.0.5, its clients on another host. On 10.0.0.5:
  spiped keygen redis.key
  spiped -F -d -s 10.0.0.5:6379 -t 127.0.0.1:6379 -k redis.key
On the clients' host, with a copy of redis.key, for clients of 127.0.0.1:8000:
  spiped -F -e -s 127.0.0.1:8000 -t 10.0.0.5:6379 -k redis.key
The same by systemd, also after a reboot: spiped setup receive --help

The manual: man spiped; recipes for Redis: man spiped-redis";

const SPIPE_AFTER_HELP: &str = "\
An ADDRESS is host.name:port, 1.2.3.4:port, [::1]:port or /unix/socket.
Each option can be given in the environment: --key as SPIPED_KEY.

Example, ssh through a receiver on the host, before its port 22:
  ssh -o ProxyCommand='spipe -t %h:2222 -k ~/.ssh/spiped.key' host

The manual: man spipe";

/// An encrypted, authenticated pipe between two sockets: one end beside the client,
/// one beside the server, and a key file that both share
#[derive(Debug, Parser)]
#[command(
    name = "spiped",
    version,
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    max_term_width = 80,
    after_help = AFTER_HELP,
    mut_args(|arg| arg.hide_env(true)),
    override_usage = "spiped setup receive|send|pair NAME -s ADDRESS -t ADDRESS [OPTIONS]\n       \
        spiped setup remove NAME [OPTIONS]\n       \
        spiped -e|-d -s ADDRESS -t ADDRESS -k FILE [OPTIONS]\n       \
        spiped keygen PATH\n       \
        spiped keyid PATH\n       \
        spiped rekey SOCKET KEY\n       \
        spiped unit-check CONF KEY\n       \
        spiped handover UNIT\n       \
        spiped completions SHELL [NAME]"
)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Args {
    /// What to do other than being an end of a pipe.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Be the sender: take plaintext, send it encrypted
    #[arg(short = 'e', long, env = "SPIPED_ENCRYPT", value_parser = FalseyValueParser::new())]
    pub encrypt: bool,

    /// Be the receiver: take encrypted, send plaintext
    #[arg(short = 'd', long, env = "SPIPED_DECRYPT", value_parser = FalseyValueParser::new())]
    pub decrypt: bool,

    /// Where to listen [default: systemd's sockets]
    #[arg(short, long, value_name = "ADDRESS", env = "SPIPED_SOURCE")]
    pub source: Option<String>,

    /// Stay in the foreground; log to stderr
    #[arg(short = 'F', long, env = "SPIPED_FOREGROUND", value_parser = FalseyValueParser::new(), help_heading = PROCESS)]
    pub foreground: bool,

    /// Become this user once the source is bound
    #[arg(short, long, value_name = "USER", env = "SPIPED_USER", help_heading = PROCESS)]
    pub user: Option<String>,

    /// File of the process id [default: SOURCE.pid]
    #[arg(short, long, value_name = "FILE", env = "SPIPED_PIDFILE", help_heading = PROCESS)]
    pub pidfile: Option<PathBuf>,

    /// Wait until the source's name resolves
    #[arg(short = 'D', long, env = "SPIPED_WAIT_FOR_DNS", value_parser = FalseyValueParser::new(), help_heading = PROCESS)]
    pub wait_for_dns: bool,

    /// Wait for connections at TERM [default: 10]
    #[arg(long, value_name = "SECONDS", env = "SPIPED_DRAIN_TIMEOUT", help_heading = PROCESS)]
    pub drain_timeout: Option<String>,

    /// With -F, for a unit: restart in use
    #[arg(long, env = "SPIPED_HANDOVER", value_parser = FalseyValueParser::new(), help_heading = PROCESS)]
    pub handover: bool,

    /// Unix socket for new keys by 'spiped rekey'
    #[arg(long, value_name = "PATH", env = "SPIPED_CONTROL", help_heading = PROCESS)]
    pub control: Option<String>,

    /// Threads to use [default: one for each core]
    #[arg(long, value_name = "NUMBER", env = "SPIPED_THREADS", help_heading = PROCESS)]
    pub threads: Option<String>,

    /// Connections at once; 0: what fits [default: 0]
    #[arg(short = 'n', long, value_name = "NUMBER", env = "SPIPED_CONNECTIONS", help_heading = CONNECTIONS)]
    pub connections: Option<String>,

    /// Look up the target again after [default: 60]
    #[arg(short = 'r', long, value_name = "SECONDS", env = "SPIPED_RESOLVE", help_heading = CONNECTIONS)]
    pub resolve: Option<String>,

    /// Never look up the target again
    #[arg(short = 'R', long, env = "SPIPED_NO_RESOLVE", value_parser = FalseyValueParser::new(), help_heading = CONNECTIONS)]
    pub no_resolve: bool,

    /// With -e: sessions kept ready [default: 0]
    #[arg(long, value_name = "NUMBER", env = "SPIPED_PREWARM", help_heading = CONNECTIONS)]
    pub prewarm: Option<String>,

    /// Log warnings and errors only
    #[arg(short = 'q', long, env = "SPIPED_QUIET", value_parser = FalseyValueParser::new(), help_heading = LOG)]
    pub quiet: bool,

    /// Log more: probes, too
    #[arg(long, env = "SPIPED_VERBOSE", value_parser = FalseyValueParser::new(), help_heading = LOG)]
    pub verbose: bool,

    /// off, error, warn, info or debug [default: info]
    #[arg(long, value_name = "LEVEL", env = "SPIPED_LOG", help_heading = LOG)]
    pub log: Option<String>,

    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "SPIPED_LOG_FORMAT", help_heading = LOG)]
    pub log_format: Option<String>,

    /// Log to syslog; always so in the background
    #[arg(long, env = "SPIPED_SYSLOG", value_parser = FalseyValueParser::new(), help_heading = LOG)]
    pub syslog: bool,

    // Last, since -g and -f are the last of its options.
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the text of --help")]
    pub outgoing: Outgoing,
}

/// Standard input and output through an encrypted, authenticated pipe to a receiver
/// ('spiped -d') and the server behind it
#[derive(Debug, Parser)]
#[command(
    name = "spipe",
    version,
    disable_version_flag = true,
    max_term_width = 80,
    after_help = SPIPE_AFTER_HELP,
    mut_args(|arg| arg.hide_env(true)),
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
    /// Where to connect to
    #[arg(short, long, value_name = "ADDRESS", env = "SPIPED_TARGET")]
    pub target: Option<String>,

    /// The key file that both ends share; - is standard input
    #[arg(short, long, value_name = "FILE", env = "SPIPED_KEY")]
    pub key: Option<PathBuf>,

    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Limit of a connect, or handshake [default: 5]
    #[arg(short = 'o', long, value_name = "SECONDS", env = "SPIPED_TIMEOUT", help_heading = CONNECTIONS)]
    pub timeout: Option<String>,

    /// Connect to the target from this address
    #[arg(short, long, value_name = "ADDRESS", env = "SPIPED_BIND", help_heading = CONNECTIONS)]
    pub bind: Option<String>,

    /// Do not probe whether idle peers are gone
    #[arg(short = 'j', long, env = "SPIPED_NO_KEEPALIVE", value_parser = FalseyValueParser::new(), help_heading = CONNECTIONS)]
    pub no_keepalive: bool,

    /// aes-256-gcm, chacha20-poly1305 [default: auto]
    #[arg(long, value_name = "CIPHER", env = "SPIPED_CIPHER", help_heading = CONNECTIONS)]
    pub cipher: Option<String>,

    /// Pad records to multiples of this [default: no]
    #[arg(long, value_name = "BYTES", env = "SPIPED_PAD", help_heading = CONNECTIONS)]
    pub pad: Option<String>,

    /// Poll after small reads: only for idle cores
    #[arg(long, env = "SPIPED_POLLING", value_parser = FalseyValueParser::new(), help_heading = CONNECTIONS)]
    pub polling: bool,

    /// Accepted: forward secrecy is always required
    #[arg(short = 'g', long, help_heading = FOR_SPIPED_1)]
    pub require_pfs: bool,

    /// Refused: forward secrecy is always required
    #[arg(short = 'f', long, help_heading = FOR_SPIPED_1)]
    pub fast: bool,
}

/// What to do other than being an end of a pipe.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Have systemd run an end of a pipe, now and at every boot
    #[command(arg_required_else_help = false)]
    Setup {
        #[command(subcommand)]
        #[expect(missing_docs, reason = "clap would take it for the text of --help")]
        what: SetupCommand,
    },
    /// Make a key file that its owner alone can read, and print the key's id
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
    /// Refuse a unit's start whose configuration or key is not there or not fit; prints nothing else
    UnitCheck {
        /// The configuration file
        #[arg(value_name = "CONF")]
        configuration: PathBuf,
        /// The key file of root's; it may be missing where there is one with .cred behind its name
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
    /// For ExecStop= of a unit: where it restarts, leave its connections to their process
    Handover {
        /// The unit, as %n names it
        unit: String,
        /// Take this process into the scope that the command runs in
        #[arg(long, value_name = "PID", hide = true)]
        adopt: Option<i32>,
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
