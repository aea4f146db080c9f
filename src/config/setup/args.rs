//! The command line of `spiped setup` as it was typed.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::address::findable;
use super::name::PipeName;
use crate::config::address::Address;
use crate::config::key_name::KeyName;

/// Which end, or ends, are set up.
#[derive(Debug, Subcommand)]
pub(crate) enum SetupCommand {
    /// The server's side: make a key, take encrypted connections on the source
    /// and send plaintext to the target
    #[command(after_help = RECEIVE_EXAMPLE, override_usage = RECEIVE_USAGE)]
    Receive {
        #[command(flatten)]
        end: EndArgs,
        #[command(flatten)]
        how: HowArgs,
    },
    /// The clients' side: take plaintext on the source and send it encrypted
    /// to the target, with the key that the other host has made
    #[command(after_help = SEND_EXAMPLE, override_usage = SEND_USAGE)]
    Send {
        #[command(flatten)]
        end: EndArgs,

        /// The key; - reads it from standard input, and asks for it on a terminal
        #[arg(short, long, value_name = "FILE")]
        key: PathBuf,

        #[command(flatten)]
        how: HowArgs,
    },
    /// One of two servers that reach each other: NAME-in receives, NAME-out
    /// sends, each direction with a key of its own
    #[command(after_help = PAIR_EXAMPLE, override_usage = PAIR_USAGE)]
    Pair {
        #[command(flatten)]
        end: EndArgs,

        /// Where this host's own programs reach the other server; each host has
        /// its own
        #[arg(long, value_name = "ADDRESS", value_parser = findable)]
        local: Address,

        /// Where the other host listens: its --source
        #[arg(long, value_name = "ADDRESS", value_parser = findable)]
        peer: Address,

        /// The key of the other host's NAME-in; - reads it from standard input,
        /// and asks for it on a terminal
        #[arg(short, long, value_name = "FILE")]
        key: Option<PathBuf>,

        #[command(flatten)]
        how: HowArgs,
    },
    /// The server's side: make a key for one more client, and print the line for
    /// that client's host
    #[command(after_help = CLIENT_EXAMPLE, override_usage = CLIENT_USAGE)]
    Client(KeyArgs),
    /// The server's side: shut the client of one key out at once
    #[command(after_help = REVOKE_EXAMPLE, override_usage = REVOKE_USAGE)]
    Revoke(KeyArgs),
    /// Change a key while the pipe is in use, in three steps: --pipe, then --key
    /// on the client's host, then --pipe with --finish
    #[command(after_help = ROTATE_EXAMPLE, override_usage = ROTATE_USAGE)]
    Rotate(RotateArgs),
    /// Stop and remove what setup has made: the pipe NAME, or the pair NAME-in
    /// and NAME-out
    #[command(after_help = REMOVE_EXAMPLE, override_usage = REMOVE_USAGE)]
    Remove {
        /// The pipe's name
        name: PipeName,

        /// Remove the keys, too
        #[arg(long)]
        keys: bool,

        /// Remove the pipe NAME alone, and no pair of that name
        #[arg(long)]
        alone: bool,

        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// A key of a pipe.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The key's name: letters, digits, dots, - and _
    pub(crate) name: KeyName,

    /// The pipe whose receiver has the key
    #[arg(long, value_name = "PIPE")]
    pub(crate) pipe: PipeName,

    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A step of a rotation.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("side").args(["pipe", "key"])))]
pub(crate) struct RotateArgs {
    /// With --pipe the key's name; with --key the pipe's
    pub(crate) name: KeyName,

    /// The server's side: the pipe whose receiver has the key
    #[arg(long, value_name = "PIPE")]
    pub(crate) pipe: Option<PipeName>,

    /// With --pipe, once the client has the new key: take the old one away
    #[arg(long, conflicts_with = "key")]
    pub(crate) finish: bool,

    /// With --finish, where the old key was stolen: end its connections, too
    #[arg(long, requires = "finish")]
    pub(crate) revoke: bool,

    /// The client's side: the new key; - reads it from standard input, and asks
    /// for it on a terminal
    #[arg(short, long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What all ends are told.
#[derive(Debug, Args)]
pub(crate) struct EndArgs {
    /// The pipe's name: letters, digits, dots, - and _
    pub(crate) name: PipeName,

    /// Where to listen: 1.2.3.4:port, [::1]:port, host.name:port, /unix/socket
    #[arg(short, long, value_name = "ADDRESS", value_parser = findable)]
    pub(crate) source: Address,

    /// Where to connect to, in one of these forms
    #[arg(short, long, value_name = "ADDRESS", value_parser = findable)]
    pub(crate) target: Address,
}

/// How an end is set up.
#[derive(Debug, Args)]
pub(crate) struct HowArgs {
    /// Have systemd listen, also while the service is down
    #[arg(long)]
    pub(crate) socket: bool,

    /// Allow plaintext beyond loopback
    #[arg(long)]
    pub(crate) expose_plaintext: bool,

    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

const RECEIVE_USAGE: &str = "spiped setup receive NAME -s ADDRESS -t ADDRESS [OPTIONS]";
const SEND_USAGE: &str = "spiped setup send NAME -s ADDRESS -t ADDRESS -k FILE [OPTIONS]";
const CLIENT_USAGE: &str = "spiped setup client NAME --pipe PIPE [OPTIONS]";
const REVOKE_USAGE: &str = "spiped setup revoke NAME --pipe PIPE [OPTIONS]";
const ROTATE_USAGE: &str = "spiped setup rotate NAME --pipe PIPE [--finish [--revoke]] [OPTIONS]\n       \
     spiped setup rotate PIPE -k FILE [OPTIONS]";
const REMOVE_USAGE: &str = "spiped setup remove NAME [OPTIONS]";
const PAIR_USAGE: &str = "spiped setup pair NAME -s ADDRESS -t ADDRESS \
     --local ADDRESS\n                         --peer ADDRESS [-k FILE] [OPTIONS]";

const RECEIVE_EXAMPLE: &str = "\
The command prints the one line to run on the host of the clients.

Example, on the Redis server 10.0.0.5:
  sudo spiped setup receive redis --source 10.0.0.5:6379 --target 127.0.0.1:6379

The manual: man spiped, SETUP; recipes for Redis: man spiped-redis";

const SEND_EXAMPLE: &str = "\
Example, on a client of the Redis server 10.0.0.5:
  ssh 10.0.0.5 sudo cat /etc/spiped/redis.key |
    sudo spiped setup send redis --key - \\
    --source 127.0.0.1:8000 --target 10.0.0.5:6379

The manual: man spiped, SETUP; recipes for Redis: man spiped-redis";

const PAIR_EXAMPLE: &str = "\
Without --key only NAME-in is set up. Each run prints the line to run on the
other host; that line brings this host's key along.

Example, on the first of the hosts 10.0.0.5 and 10.0.0.6:
  sudo spiped setup pair redis --source 10.0.0.5:6380 --target 127.0.0.1:6379 \\
    --local 127.0.0.1:8000 --peer 10.0.0.6:6380

The manual: man spiped, SETUP; recipes for Redis: man spiped-redis";

const CLIENT_EXAMPLE: &str = "\
Each client has a key of its own, which can be revoked alone.

Example, on the server of the pipe redis:
  sudo spiped setup client alice --pipe redis

The manual: man spiped, SETUP; recipes for Redis: man spiped-redis";

const REVOKE_EXAMPLE: &str = "\
The client's connections end at once; those of the other clients go on.

Example, on the server of the pipe redis:
  sudo spiped setup revoke alice --pipe redis

The manual: man spiped, SETUP; recipes for Redis: man spiped-redis";

const ROTATE_EXAMPLE: &str = "\
No step ends or refuses a connection, unless --revoke is given, and each prints
the next one. A step that failed is run again. The key that a pipe was made with
has the pipe's name.

Example, on the server of the pipe redis:
  sudo spiped setup rotate alice --pipe redis

The manual: man spiped, SETUP; recipes for Redis: man spiped-redis";

const REMOVE_EXAMPLE: &str = "\
Keys stay, unless --keys is given, and so does what setup has not made.

Example:
  sudo spiped setup remove redis --dry-run

The manual: man spiped, SETUP";
