//! The command lines of `spiped` and `spipe`; the doc comments are the `--help`.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use clap::builder::Resettable;
use clap::{ArgAction, ArgGroup, Args as ClapArgs, Parser};

use super::access::AccessConfig;
use super::address::Address;
use super::command::Command;
use super::connections::ConnectionsConfig;
use super::environment::with_variable;
use super::headings::{CONNECTIONS, FOR_SPIPED_1, LOG, PROCESS};
use super::http::StatusConfig;
use super::log::LogConfig;
use super::process::ProcessConfig;
use super::tunnel::TunnelConfig;

const AFTER_HELP: &str = "\
An ADDRESS is host.name:port, 1.2.3.4:port, [::1]:port or /unix/socket.
Each option can be given in the environment: --log-format as SPIPED_LOG_FORMAT.

Example: Redis runs on 10.0.0.5, its clients on another host. On 10.0.0.5:
  spiped keygen redis.key
  spiped -F -d -s 10.0.0.5:6379 -t 127.0.0.1:6379 -k redis.key
On the clients' host, with a copy of redis.key, for clients of 127.0.0.1:8000:
  spiped -F -e -s 127.0.0.1:8000 -t 10.0.0.5:6379 -k redis.key
To have systemd run both ends, also after a reboot: spiped setup receive --help

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
    mut_args(with_variable),
    group(ArgGroup::new("role").required(true)),
    override_usage = "spiped setup receive|send|pair NAME -s ADDRESS -t ADDRESS [OPTIONS]\n       \
        spiped setup client|revoke|rotate NAME --pipe PIPE [OPTIONS]\n       \
        spiped setup remove NAME [OPTIONS]\n       \
        spiped -e|-d -s ADDRESS -t ADDRESS -k FILE [OPTIONS]\n       \
        spiped check -t ADDRESS -k FILE|--all [OPTIONS]\n       \
        spiped config-check OPTIONS|UNIT\n       \
        spiped keygen PATH\n       \
        spiped keyid PATH\n       \
        spiped rekey SOCKET KEY...\n       \
        spiped revoke SOCKET NAME\n       \
        spiped status [NAME|PATH]...\n       \
        spiped unit-check CONF KEY...\n       \
        spiped handover UNIT\n       \
        spiped completions SHELL [NAME]"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Be the sender: take plaintext, send it encrypted
    #[arg(short = 'e', long, group = "role")]
    pub(crate) encrypt: bool,

    /// Be the receiver: take encrypted, send plaintext
    #[arg(short = 'd', long, group = "role")]
    pub(crate) decrypt: bool,

    /// Where to listen, else on systemd's sockets
    #[arg(short, long, value_name = "ADDRESS")]
    pub(crate) source: Option<Address>,

    #[command(flatten, next_help_heading = PROCESS)]
    pub(crate) process: ProcessConfig,

    #[command(flatten, next_help_heading = PROCESS)]
    pub(crate) status: StatusConfig,

    #[command(flatten, next_help_heading = CONNECTIONS)]
    pub(crate) connections: ConnectionsConfig,

    #[command(flatten, next_help_heading = CONNECTIONS)]
    pub(crate) access: AccessConfig,

    #[command(flatten, next_help_heading = LOG)]
    pub(crate) log: LogConfig,

    // The common options, and those that have headings of their own.
    #[command(flatten, next_help_heading = Resettable::Reset)]
    pub(crate) tunnel: TunnelConfig,

    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    // Last, since -g and -f are the last of all options.
    #[command(flatten, next_help_heading = FOR_SPIPED_1)]
    pub(crate) of_spiped_1: Spiped1Options,
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
    mut_args(with_variable),
    override_usage = "spipe -t ADDRESS -k FILE [OPTIONS]"
)]
pub(crate) struct SpipeArgs {
    #[command(flatten)]
    pub(crate) tunnel: TunnelConfig,

    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,

    #[command(flatten, next_help_heading = FOR_SPIPED_1)]
    pub(crate) of_spiped_1: Spiped1Options,
}

/// Options of spiped 1.6 about the forward secrecy that every handshake has.
#[derive(Debug, ClapArgs)]
pub(crate) struct Spiped1Options {
    /// Accepted: forward secrecy is always required
    #[arg(short = 'g', long)]
    pub(crate) require_pfs: bool,

    /// Refused: forward secrecy is always required
    #[arg(short = 'f', long)]
    pub(crate) fast: bool,
}
