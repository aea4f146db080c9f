//! The command line as it was typed; the doc comments are the `--help`.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// An encrypted, authenticated pipe between two sockets.
///
/// With -e, plaintext connections to the source are sent encrypted to the
/// target; with -d, encrypted connections to the source are sent as plaintext
/// to the target. Both ends share a key file.
#[derive(Debug, Parser)]
#[command(
    name = "spiped",
    version,
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "spiped -e|-d -s ADDRESS -t ADDRESS -k FILE [OPTIONS]\n       spiped keygen PATH\n       spiped keyid PATH"
)]
pub struct Args {
    /// What to do other than being an end of a pipe.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Be the sender: take plaintext on the source, send it encrypted to the target
    #[arg(short = 'e', long, conflicts_with = "decrypt")]
    pub encrypt: bool,

    /// Be the receiver: take encrypted connections on the source, send plaintext to the target
    #[arg(short = 'd', long)]
    pub decrypt: bool,

    /// Where to listen: host.name:port, [1.2.3.4]:port, [::1]:port or /unix/socket
    #[arg(short, long, value_name = "ADDRESS")]
    pub source: Option<String>,

    /// Where to connect to, written alike
    #[arg(short, long, value_name = "ADDRESS")]
    pub target: Option<String>,

    /// The key file both ends share; - reads the key from standard input
    #[arg(short, long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Stay in the foreground; as yet this is always so
    #[arg(short = 'F', long)]
    pub foreground: bool,

    /// Connections at once; 0: as many as the file descriptors allow [default: 0]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub connections: Option<String>,

    /// Seconds a handshake, and a connect, may take [default: 5]
    #[arg(short = 'o', long, value_name = "SECONDS")]
    pub timeout: Option<String>,

    /// auto, aes-256-gcm or chacha20-poly1305; with -d: the only one accepted [default: auto]
    #[arg(long, value_name = "CIPHER")]
    pub cipher: Option<String>,

    /// Pad what is sent, so that records are multiples of this many bytes [default: no padding]
    #[arg(long, value_name = "BYTES")]
    pub pad: Option<String>,

    /// Threads that share the connections [default: one for each core]
    #[arg(long, value_name = "NUMBER")]
    pub threads: Option<String>,

    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
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
    /// Print the id of a key, which tells nothing about the key itself
    Keyid {
        /// The key file; - reads the key from standard input
        path: PathBuf,
    },
}
