//! What `spiped` does other than being an end of a pipe.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use super::check::CheckArgs;
use super::key_name::KeyName;
use super::loopback_range::LoopbackRange;
use super::process::control;
use super::setup::SetupCommand;
use super::status::StatusArgs;
use super::value::ValueError;

/// What `spiped` does other than being an end of a pipe.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Have systemd run an end of a pipe, now and at every boot
    #[command(arg_required_else_help = false)]
    Setup {
        #[command(subcommand)]
        what: SetupCommand,
    },
    // Its doc comment is that of its options.
    Check(CheckArgs),
    /// Check and print the configuration of a start or of a unit
    ConfigCheck {
        /// The options of a start; or a unit such as spiped-send@redis, or redis for those in use
        #[arg(value_name = "OPTION|UNIT", allow_hyphen_values = true, trailing_var_arg = true)]
        words: Vec<OsString>,
    },
    /// Make a key file of 32 random bytes, and print the key's id
    ///
    /// Its owner alone can read it.
    Keygen {
        /// The file to make; one that exists is never overwritten
        #[arg(value_parser = OsStringValueParser::new().try_map(new_file))]
        path: PathBuf,
    },
    /// Print the id of a key, which tells nothing of the key itself
    Keyid {
        /// The key file, or a folder of keys; - reads the key from standard input
        path: PathBuf,
        /// Refuse a file that belongs to neither this user nor root; without it, anybody may own the file
        #[arg(short = 'u', long)]
        user: Option<String>,
        /// Also print the address that each key has with this option of a receiver
        #[arg(long, value_name = "RANGE")]
        bind_per_key: Option<LoopbackRange>,
    },
    /// Replace all keys of a running spiped, and print what changes
    Rekey {
        /// The path that was given to that spiped by --control
        #[arg(value_parser = control, value_hint = ValueHint::FilePath)]
        socket: PathBuf,
        /// Key files, for a receiver also folders of keys; - reads a key from standard input
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<PathBuf>,
        /// Leave out what does not exist, unless nothing does
        #[arg(long)]
        if_exists: bool,
    },
    /// Shut a key out of a running receiver at once
    Revoke {
        /// The path that was given to that spiped by --control
        #[arg(value_parser = control, value_hint = ValueHint::FilePath)]
        socket: PathBuf,
        /// The name of the key: its file's, without .key
        #[arg(value_name = "NAME")]
        key: KeyName,
    },
    /// Show who is connected, what is sent, and what has failed
    Status(StatusArgs),
    /// Check the files of a unit, and print only what is wrong
    UnitCheck {
        /// The configuration file
        #[arg(value_name = "CONF")]
        configuration: PathBuf,
        /// Key files and folders of keys, which belong to root; of these one must exist, or a path with .cred behind its name
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<PathBuf>,
    },
    /// For ExecStop= of a unit: at a restart, keep the old process
    ///
    /// Open connections stay with it.
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
        name: Program,
    },
}

/// Reads the path of a file to be made.
fn new_file(path: OsString) -> Result<PathBuf, ValueError> {
    if path == "-" {
        let reason = "a key is written to a file only, and '-' is none".to_owned();
        return Err(ValueError::new(reason, "name a new file, such as redis.key"));
    }
    Ok(path.into())
}

/// The names of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// One end of a pipe.
    #[value(help = None)]
    Spiped,
    /// Standard input and output through a pipe.
    #[value(help = None)]
    Spipe,
}
