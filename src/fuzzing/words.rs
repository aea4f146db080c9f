//! What an operator types: addresses, numbers and words, whole command lines.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

use crate::config::KeyName;
use crate::config::address::AddressError;
use crate::config::connections::{MaxConnections, Prewarm, Refresh};
use crate::config::log::{LogFormat, LogLevel};
use crate::config::process::{DrainTimeout, RunMode, Threads};
use crate::config::setup::{KeyNames, KeyWork, PipeName, Task};
use crate::config::tunnel::{Choice, Padding, Timeout, bind};
use crate::config::{Address, Args, Command, Config, RunAs};
use crate::protocol::{Cipher, Kex};
use crate::report::Report;

/// The longest time that an option takes.
const DAY: Duration = Duration::from_hours(24);

/// Any text where an address is wanted.
pub fn address(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match text.parse::<Address>() {
        Ok(address) => {
            stable(&address);
            assert_eq!(address.port().is_none(), text.starts_with('/'));
        }
        Err(error) => {
            explained(&error, error.hint());
            // Before the host there may be a password.
            if let AddressError::Scheme { address, .. } = error {
                assert!(address == "host.name:port" || address.parse::<Address>().is_ok());
                assert!(!address.contains('@') || address.starts_with('/'));
            }
        }
    }
    match bind(text) {
        Ok(bound) => {
            stable(&Address::Inet(bound));
            let is_bare = !text.contains(['[', ']']);
            assert!(is_bare || text.starts_with('[') && text.matches(['[', ']']).count() == 2);
        }
        Err(error) => explained(&error, error.hint()),
    }
}

/// Any text where a number, or one of some words, is wanted.
pub fn words(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    numbers(text);
    times(text);
    shown::<Choice<Cipher>>(text);
    shown::<Choice<Kex>>(text);
    shown::<LogFormat>(text);
    shown::<LogLevel>(text);
    if let Some(RunAs { user, group }) = read(text) {
        let group = group.map(|group| format!(":{group}"));
        assert_eq!(user.unwrap_or_default() + &group.unwrap_or_default(), text);
    }
    // Keys and pipes have names of one kind.
    let of_key = read::<KeyName>(text).map(PipeName::from);
    assert_eq!(of_key, read(text));
    if let Some(name) = shown::<PipeName>(text) {
        assert_eq!(name.to_string(), text);
        assert!(text.len() <= 64 && !text.starts_with(['-', '.']));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
    }
}

fn numbers(text: &str) {
    let number = text.parse::<u64>().ok();
    if let Some(MaxConnections(most)) = shown(text) {
        assert_eq!(Some(most.map_or(0, |most| most.get().into())), number);
    }
    if let Some(threads) = shown::<Threads>(text) {
        assert!(text == "auto" || u64::try_from(threads.get()).ok() == number);
        assert!((1..=1024).contains(&threads.get()));
    }
    if let Some(prewarm) = shown::<Prewarm>(text) {
        assert_eq!(u64::try_from(prewarm.get()).ok(), number);
        assert!(prewarm.get() <= 1000);
    }
    if let Some(Padding(Some(padding))) = shown(text) {
        assert!((2..=16_384).contains(&padding.get()));
    }
}

fn times(text: &str) {
    let timeout = shown::<Timeout>(text).map(Timeout::get);
    let drain = shown::<DrainTimeout>(text).map(DrainTimeout::get);
    assert!(drain.is_none_or(|time| time <= DAY));
    // But for nothing, which is no time to wait for a handshake, they are the same.
    assert_eq!(timeout, drain.filter(|time| !time.is_zero()));
    let refresh =
        drain.map(|time| if time.is_zero() { Refresh::Never } else { Refresh::Every(time) });
    assert_eq!(shown(text), refresh);
}

/// A command line, each word in a line of its own.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let words = ["spiped"].into_iter().chain(text.lines());
    let Ok(args) = Args::try_parse_from(words) else { return };
    match args.command {
        None => match Config::try_from(args) {
            Ok(config) => pipe(&config),
            Err(error) => explained(&error, error.hint()),
        },
        Some(Command::Setup { what }) => match Task::try_from(what) {
            Ok(Task::Make(setup)) => {
                for end in setup.ends() {
                    stable(&end.source);
                    stable(&end.target);
                    assert_ne!(end.source, end.target);
                    assert!(![end.source.port(), end.target.port()].contains(&Some(0)));
                }
            }
            Ok(Task::Keys(task)) => {
                if let KeyWork::Rotate(KeyNames { name, new })
                | KeyWork::Finish(KeyNames { name, new }, _) = task.work
                {
                    assert_eq!(read(&format!("{name}.new")), Some(new));
                }
            }
            Ok(Task::Remove(removal)) => assert!(!removal.name.to_string().is_empty()),
            Err(error) => explained(&error, error.hint()),
        },
        Some(_) => {}
    }
}

/// It can be served.
fn pipe(config: &Config) {
    let target = &config.tunnel.target;
    stable(target);
    config.source.iter().for_each(stable);
    assert_ne!(target.port(), Some(0));
    assert_ne!(config.source.as_ref(), Some(target));
    assert_ne!(config.tunnel.bind.map(Address::Inet).as_ref(), Some(target));
    assert!(!config.tunnel.timeout.get().is_zero());
    assert!(config.tunnel.timeout.get() <= DAY && config.process.drain_timeout.get() <= DAY);
    let process = &config.process;
    assert!(process.run_mode() != RunMode::Background || process.pid_file.is_some());
    assert!(process.control.as_ref().is_none_or(|path| path.is_absolute()));
}

/// What is read from `text`; if nothing is, the reason is told.
fn read<T: FromStr<Err: Display>>(text: &str) -> Option<T> {
    text.parse().map_err(|error| explained(&error, ".")).ok()
}

/// The same; and what is shown of it is read as the same.
fn shown<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value = read::<T>(text)?;
    assert_eq!(read(&value.to_string()).as_ref(), Some(&value));
    Some(value)
}

/// What is shown is read as the same.
fn stable(address: &Address) {
    assert_eq!(address.to_string().parse().as_ref(), Ok(address));
}

fn explained(error: &impl Display, hint: &str) {
    assert!(!error.to_string().is_empty() && !hint.is_empty());
}
