//! The command line of `spiped check`.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Parser, ValueEnum};

use super::address::Address;
use super::environment::with_variable;
use super::error::ConfigError;
use super::tunnel::{Choice, Keepalive, Timeout, TunnelConfig, bind, target};
use super::value::with_words;
use crate::protocol::{Cipher, Kex};

const AFTER_HELP: &str = "\
An ADDRESS is host.name:port, 1.2.3.4:port, [::1]:port or /unix/socket.
-t, -k, -o, -b, --cipher and --kex can be given in the environment.

Example: does the receiver on 10.0.0.5 answer, and its Redis behind it?
  spiped check -t 10.0.0.5:6379 -k redis.key
Does nothing there serve a client without the key?
  spiped check -t 10.0.0.5:6379 -k redis.key --refuses-plaintext redis
What would an auditor find on this host?
  spiped check --all

The manual: man spiped-check";

/// Check whether a pipe works, and what is open on this host
#[derive(Debug, Parser)]
#[command(
    name = "check",
    bin_name = "spiped check",
    max_term_width = 80,
    after_help = AFTER_HELP,
    mut_args(with_variable_of_sender),
    override_usage = "spiped check -t ADDRESS -k FILE [OPTIONS]\n       \
        spiped check --all [--accept FINDING] [--key-age DAYS] [--json]"
)]
pub(crate) struct CheckArgs {
    /// The receiver
    #[arg(short, long, value_name = "ADDRESS", value_parser = target)]
    target: Option<Address>,

    /// The key file; with several, the first
    #[arg(short, long = "key", value_name = "FILE", action = ArgAction::Append,
          value_delimiter = ':')]
    keys: Vec<PathBuf>,

    /// Time limit of connect and handshake
    #[arg(short = 'o', long, value_name = "SECONDS", default_value_t)]
    timeout: Timeout,

    /// Connect from this address
    #[arg(short, long, value_name = "ADDRESS", value_parser = bind)]
    bind: Option<SocketAddr>,

    /// aes-256-gcm, chacha20-poly1305
    #[arg(long, value_name = "CIPHER", default_value_t, hide_possible_values = true,
          value_parser = with_words::<Choice<Cipher>>(&["auto", "aes-256-gcm", "chacha20-poly1305"]))]
    cipher: Choice<Cipher>,

    /// x25519mlkem768 (hybrid), x25519
    #[arg(long, value_name = "EXCHANGE", default_value_t, hide_possible_values = true,
          value_parser = with_words::<Choice<Kex>>(&["auto", "x25519mlkem768", "x25519"]))]
    kex: Choice<Kex>,

    /// Prove it of redis, postgres, mysql, smtp, http
    #[arg(long, value_name = "NAME", hide_possible_values = true)]
    refuses_plaintext: Option<Plaintext>,

    /// Go over all pipes of this host, for an auditor
    #[arg(long, conflicts_with_all = [
        "target", "keys", "bind", "cipher", "kex", "refuses_plaintext", "plugin"
    ])]
    all: bool,

    /// Find keys that are older
    #[arg(long, value_name = "DAYS", default_value_t = 365, conflicts_with = "target")]
    key_age: u64,

    /// Count no finding of this name; several with commas
    #[arg(long, value_name = "FINDING", requires = "all", action = ArgAction::Append,
          value_delimiter = ',')]
    accept: Vec<String>,

    /// Print JSON, also of what fails
    #[arg(long)]
    json: bool,

    /// Print one line for Nagios, and exit with its codes
    #[arg(long, conflicts_with = "json")]
    plugin: bool,
}

/// Gives the options that a sender has, too, their variables.
fn with_variable_of_sender(arg: Arg) -> Arg {
    match arg.get_long() {
        Some("target" | "key" | "timeout" | "bind" | "cipher" | "kex") => with_variable(arg),
        _ => arg,
    }
}

/// What is checked.
pub(crate) enum CheckOf {
    /// One receiver.
    Receiver(Box<CheckConfig>),
    /// All pipes of this host.
    All(AllConfig),
}

/// How all pipes of this host are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AllConfig {
    /// For each pipe that is tried, unless it is the default: then a sender has its own.
    pub(crate) timeout: Option<Timeout>,
    /// How many days old a key may be.
    pub(crate) key_age_days: u64,
    /// The names of findings that do not count.
    pub(crate) accept: Vec<String>,
    pub(crate) is_json: bool,
}

/// What is checked, and how the result is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckConfig {
    /// The way to the receiver, with a key.
    pub(crate) tunnel: TunnelConfig,
    /// What plaintext must get nowhere.
    pub(crate) refuses_plaintext: Option<Plaintext>,
    pub(crate) form: CheckForm,
}

/// A protocol whose clients speak plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plaintext {
    Redis,
    Postgres,
    Mysql,
    Smtp,
    Http,
}

impl fmt::Display for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Smtp => "smtp",
            Self::Http => "http",
        })
    }
}

/// How the result is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckForm {
    /// Lines for people.
    Text,
    Json,
    /// One line for Nagios.
    Plugin,
}

impl TryFrom<CheckArgs> for CheckOf {
    type Error = ConfigError;

    fn try_from(args: CheckArgs) -> Result<Self, ConfigError> {
        if args.all {
            let CheckArgs { timeout, key_age, accept, json, .. } = args;
            let (key_age_days, is_json) = (key_age, json);
            let timeout = (timeout != Timeout::default()).then_some(timeout);
            return Ok(Self::All(AllConfig { timeout, key_age_days, accept, is_json }));
        }
        CheckConfig::try_from(args).map(|config| Self::Receiver(Box::new(config)))
    }
}

impl TryFrom<CheckArgs> for CheckConfig {
    type Error = ConfigError;

    fn try_from(args: CheckArgs) -> Result<Self, ConfigError> {
        let target = args.target.clone().ok_or(ConfigError::Missing("-t".into()))?;
        let CheckArgs { keys, timeout, bind, cipher, kex, refuses_plaintext, .. } = args;
        match (keys.is_empty(), refuses_plaintext) {
            (true, Some(_)) => return Err(ConfigError::PlaintextWithoutKey),
            (true, None) => return Err(ConfigError::Missing("-k".into())),
            (false, _) => {}
        }
        let form = match (args.json, args.plugin) {
            (true, _) => CheckForm::Json,
            (false, true) => CheckForm::Plugin,
            (false, false) => CheckForm::Text,
        };
        let keepalive = Keepalive::Off;
        let tunnel = TunnelConfig {
            keys,
            timeout,
            bind,
            keepalive,
            cipher,
            kex,
            ..TunnelConfig::to(target)
        };
        Ok(Self { tunnel: tunnel.unless_bound_to_target()?, refuses_plaintext, form })
    }
}
