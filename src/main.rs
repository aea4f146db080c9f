//! Parse, run, print what went wrong with a hint, exit with its code.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

use spiped::config::{Args, Command, Config};
use spiped::error::Error;
use spiped::{daemon, key_file};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return end(usage(&error)),
    };
    end(match args.command {
        Some(Command::Keygen { path }) => keygen(&path),
        Some(Command::Keyid { path }) => keyid(&path),
        None => pipe(args),
    })
}

/// One end of a pipe, until a signal ends it.
fn pipe(args: Args) -> Result<(), Error> {
    let config = Config::try_from(args)?;
    let key = key_file::read(&config.key)?;
    log_to_stderr();
    daemon::run(&config, key)
}

fn keygen(path: &Path) -> Result<(), Error> {
    let id = key_file::generate(path)?;
    print(&format_args!("{id}\n"))
}

fn keyid(path: &Path) -> Result<(), Error> {
    let key = key_file::read(path)?;
    print(&format_args!("{}\n", key.id()))
}

/// What clap has to say: help and version are no failures; of an error its
/// first line is enough.
fn usage(error: &clap::Error) -> Result<(), Error> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return print(&error.render());
    }
    let text = error.render().to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let line = lines.collect::<Vec<_>>().join(" ");
    Err(Error::Usage(line.trim_start_matches("error: ").to_owned()))
}

fn print(text: &dyn fmt::Display) -> Result<(), Error> {
    write!(io::stdout(), "{text}")
        .map_err(|error| Error::System { what: "cannot write to standard output", error })
}

fn end(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is gone too, the exit code still tells.
            let _unwritten = writeln!(io::stderr(), "spiped: {error}\nhint: {}", error.hint());
            ExitCode::from(error.exit_code())
        }
    }
}

/// The log goes to standard error; `SPIPED_LOG` sets its level.
fn log_to_stderr() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("SPIPED_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .init();
}
