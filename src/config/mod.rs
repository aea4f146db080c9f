//! Words become values that cannot be wrong: each option's own, by clap, and all of
//! them together, here.
//!
//! An option is defined once, in the file of its group: name, help, type, default,
//! bounds. clap makes the command line, `--help` and the completions of that,
//! [`environment`] its variable, and the group is part of the [`Config`].

pub(crate) mod access;
pub(crate) mod address;
mod args;
mod check;
mod command;
pub(crate) mod connections;
mod effective;
mod environment;
pub(crate) mod environment_file;
mod error;
mod headings;
mod http;
pub(crate) mod key_name;
mod line;
pub(crate) mod log;
mod loopback_range;
pub(crate) mod process;
mod role;
pub(crate) mod setup;
mod status;
pub(crate) mod tunnel;
mod unit;
mod unknown_variable;
mod unread;
mod user;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use access::{AccessConfig, SocketMode};
pub(crate) use address::Address;
pub(crate) use args::{Args, SpipeArgs};
pub(crate) use check::{AllConfig, CheckArgs, CheckConfig, CheckForm, CheckOf, Plaintext};
pub(crate) use command::{Command, Program};
pub(crate) use connections::{CarriersUse, ConnectionsConfig, Prewarm, Refresh, TellClient};
pub(crate) use effective::effective;
pub(crate) use environment::{as_given, variable_of};
pub(crate) use error::ConfigError;
pub(crate) use http::StatusConfig;
pub(crate) use key_name::KeyName;
pub(crate) use line::CommandLine;
pub(crate) use log::{LogConfig, LogFormat, LogSink};
pub(crate) use loopback_range::LoopbackRange;
pub(crate) use process::{Dns, DrainTimeout, ProcessConfig, RunMode, Threads};
pub(crate) use role::Role;
pub(crate) use status::{StatusArgs, StatusOf};
pub(crate) use tunnel::{BusyPoll, Keepalive, TunnelConfig};
pub(crate) use unit::{UNIT, unit_name};
pub(crate) use unknown_variable::UnknownVariable;
pub(crate) use unread::Unread;
pub(crate) use user::RunAs;
pub(crate) use value::ValueError;

pub(crate) use tunnel::bind;

use std::net::SocketAddr;

/// All that one end of a pipe needs to know, but the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Sender or receiver.
    pub(crate) role: Role,
    /// Where to listen; without it, on sockets that are handed over.
    pub(crate) source: Option<Address>,
    /// How to connect to the other end, or to the server.
    pub(crate) tunnel: TunnelConfig,
    /// How many connections there are.
    pub(crate) connections: ConnectionsConfig,
    /// Who may connect to the source.
    pub(crate) access: AccessConfig,
    /// How the process runs.
    pub(crate) process: ProcessConfig,
    /// Where the status is served over HTTP.
    pub(crate) status: StatusConfig,
    /// What is logged, and where to.
    pub(crate) log: LogConfig,
}

impl ConfigError {
    /// The target is what this end listens on.
    pub(crate) fn leads_back(target: &Address, source: &str) -> Self {
        let reason = format!("{target} leads back to {source}, which this end listens on");
        let hint = "with -e name the receiver after -t, with -d the server";
        Self::Value { by: as_given("-t").into(), error: ValueError::new(reason, hint) }
    }
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        if args.of_spiped_1.fast {
            return Err(ConfigError::Fast);
        }
        let Args { source, connections, access, mut process, status, mut log, .. } = args;
        let tunnel = args.tunnel.unless_bound_to_target()?;
        // What else leads back is seen when the source is bound.
        if let Some(source) = source.as_ref().filter(|it| tunnel.target.leads_back_to(it)) {
            return Err(ConfigError::leads_back(&tunnel.target, &source.to_string()));
        }
        let is_loopback =
            matches!(&tunnel.target, Address::Inet(SocketAddr::V4(v4)) if v4.ip().is_loopback());
        if connections.bind_per_key.is_some() && !is_loopback {
            let reason = format!("{} is no IPv4 address of loopback", tunnel.target);
            let error = ValueError::new(
                reason,
                "keys have addresses for a target such as 127.0.0.1:6379 only",
            );
            return Err(ConfigError::Value { by: as_given("-t").into(), error });
        }
        let access = access.unless_of_no_socket(source.as_ref())?;
        let status = status.unless_exposed()?;
        let control = process.control.clone().map(Address::Unix);
        let mut others = vec![("-s", source.as_ref()), ("-t", Some(&tunnel.target))];
        unless_taken("--control", control.as_ref(), &others)?;
        others.push(("--control", control.as_ref()));
        unless_taken("--status", status.at.as_ref(), &others)?;
        if process.run_mode() == RunMode::Background {
            if process.handover {
                return Err(ConfigError::HandoverInBackground);
            }
            // There is no standard error to log to.
            log.sink = LogSink::Syslog;
            if process.pid_file.is_none() {
                let source = source.as_ref().ok_or(ConfigError::Missing("-s".into()))?;
                process.pid_file = Some(format!("{source}.pid").into());
            }
        }
        let role = if args.encrypt { Role::Encrypt } else { Role::Decrypt };
        Ok(Self { role, source, tunnel, connections, access, process, status, log })
    }
}

/// Refuses an address that another option has, too. Port 0 is a free one for each.
fn unless_taken(
    option: &str,
    address: Option<&Address>,
    others: &[(&str, Option<&Address>)],
) -> Result<(), ConfigError> {
    let Some(address) = address.filter(|address| address.port() != Some(0)) else { return Ok(()) };
    match others.iter().find(|(_, other)| *other == Some(address)) {
        None => Ok(()),
        Some((other, _)) => {
            let reason = format!("{} is {address}, too", as_given(other));
            let hint = match address {
                Address::Unix(_) => "name another path",
                Address::Inet(_) | Address::Host(..) => "name another port",
            };
            let error = ValueError::new(reason, hint);
            Err(ConfigError::Value { by: as_given(option).into(), error })
        }
    }
}

impl TryFrom<SpipeArgs> for TunnelConfig {
    type Error = ConfigError;

    fn try_from(args: SpipeArgs) -> Result<Self, ConfigError> {
        if args.of_spiped_1.fast {
            return Err(ConfigError::Fast);
        }
        args.tunnel.unless_bound_to_target()
    }
}
