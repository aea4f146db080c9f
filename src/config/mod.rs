//! Words become values that cannot be wrong: raw [`Args`], checked [`Config`].

mod address;
mod args;
mod environment;
mod limits;
mod role;
pub mod setup;
mod user;

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use thiserror::Error;
use tracing::level_filters::LevelFilter;

pub use address::{Address, AddressError};
pub use args::{Args, Command, Name, Outgoing, SpipeArgs};
pub use environment::{CommandLine, UnknownVariable, as_given, unit_name, variable_of};
pub use limits::{
    CipherChoice, DrainTimeout, LimitError, MaxConnections, Prewarm, Refresh, Threads, Timeout,
    parse_level, parse_padding,
};
pub use role::Role;
pub use user::{RunAs, RunAsError};

use crate::protocol::Padding;
use crate::report::{Report, exit};

/// All that one end of a pipe needs to know, but the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Sender or receiver.
    pub role: Role,
    /// Where to listen; without it, on sockets that are handed over.
    pub source: Option<Address>,
    /// How to connect to the other end, or to the server.
    pub tunnel: TunnelConfig,
    /// What to do about names that do not resolve at the start.
    pub dns: Dns,
    /// How often the target's name is resolved again.
    pub refresh: Refresh,
    /// How many connections there may be at once.
    pub connections: MaxConnections,
    /// How long open connections have to end by themselves after TERM.
    pub drain_timeout: DrainTimeout,
    /// How many one-thread runtimes share the connections.
    pub threads: Threads,
    /// How many sessions a sender keeps ready.
    pub prewarm: Prewarm,
    /// Where the process lives.
    pub process: ProcessConfig,
    /// What is logged, and where to.
    pub log: LogConfig,
}

/// What `spiped` and `spipe` have in common: the way out, and the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelConfig {
    /// Where to connect to.
    pub target: Address,
    /// The key file; `-` is standard input.
    pub key: PathBuf,
    /// The local address of outgoing connections.
    pub bind: Option<SocketAddr>,
    /// How long a handshake, and how long a connect, may take.
    pub timeout: Timeout,
    /// Whether idle peers are probed.
    pub keepalive: Keepalive,
    /// The suite to use, or the only one to accept.
    pub cipher: CipherChoice,
    /// To what multiple of bytes records are padded, if at all.
    pub padding: Option<Padding>,
    /// How the next bytes of a conversation are waited for.
    pub waiting: Waiting,
}

/// How the next bytes of a conversation are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Asleep at once.
    Asleep,
    /// `--polling`: awake for a moment, where that pays; then asleep.
    Awake,
}

/// Whether the peers of idle connections are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// They are: one that is gone is noticed in about a minute.
    On,
    /// `-j`: they are not.
    Off,
}

/// What to do about names that do not resolve at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dns {
    /// A source that does not resolve ends the start.
    AtStart,
    /// `-D`: it is tried again until it does.
    Wait,
}

/// Where the process lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessConfig {
    /// `-F`, or not.
    pub ground: Ground,
    /// Where its id is written.
    pub pid_file: Option<PathBuf>,
    /// Whom it becomes.
    pub run_as: Option<RunAs>,
    /// The path of the socket on which it takes new keys.
    pub control: Option<PathBuf>,
}

/// Foreground or background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// It stays where it was started.
    Foreground,
    /// So does the process that was started, but another one serves.
    Handover,
    /// It detaches itself once it is ready.
    Background,
}

/// What is logged, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Where to.
    pub sink: LogSink,
    /// How each line is written.
    pub format: LogFormat,
    /// From which level on; or nothing at all.
    pub level: LevelFilter,
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// Standard error; with systemd's level prefixes where that is the journal.
    Stderr,
    /// The system's log.
    Syslog,
}

/// How each line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the operator gave a value by: an option such as `-s`, or a variable
/// such as `SPIPED_SOURCE`.
pub type GivenBy = Cow<'static, str>;

/// What is wrong with a command line, or with the environment behind it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Neither -e nor -d.
    #[error("neither -e nor -d is given")]
    NoRole,
    /// Two options that exclude each other.
    #[error("{0} and {1} exclude each other")]
    Conflict(GivenBy, GivenBy),
    /// `--handover` without `-F`.
    #[error("--handover is given without -F: a process in the background hands nothing over")]
    HandoverInBackground,
    /// `-f`.
    #[error("-f is refused: every handshake has forward secrecy, there is no faster one without")]
    Fast,
    /// A variable that no option has.
    #[error("{0}")]
    Unknown(UnknownVariable),
    /// An option without which nothing can be done is not there.
    #[error("{0} is not given")]
    Missing(&'static str),
    /// A value that is not to be had.
    #[error("{by}: {error}")]
    Value {
        /// The option, or the variable.
        by: GivenBy,
        /// What is wrong with the value.
        error: ValueError,
    },
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// No address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Out of bounds.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Port 0 as a target.
    #[error("port 0 cannot be connected to")]
    TargetPort,
    /// The target is where we listen.
    #[error("{0} leads back to {1}, which this end listens on")]
    Loop(Address, String),
    /// The target is where we connect from.
    #[error("{0} is the target itself")]
    BoundToTarget(SocketAddr),
    /// -b with something else than an IP address.
    #[error("'{0}' is no IP address")]
    Bind(String),
    /// --control with something else than a path.
    #[error("'{0}' is not the path of a unix socket")]
    Control(String),
    /// -u with something else than a user or group.
    #[error(transparent)]
    RunAs(#[from] RunAsError),
    /// A variable for an option without a value, with something else than yes or no.
    #[error("'{0}' is neither yes nor no")]
    Flag(String),
    /// Bytes that are no text.
    #[error("'{0}' is not valid UTF-8")]
    NotText(String),
}

impl Report for ConfigError {
    fn hint(&self) -> &str {
        Self::hint(self)
    }

    fn exit_code(&self) -> u8 {
        exit::USAGE
    }
}

impl ConfigError {
    fn value(option: &'static str, error: impl Into<ValueError>) -> Self {
        Self::Value { by: option.into(), error: error.into() }
    }

    /// The target is what this end listens on.
    pub(crate) fn leads_back(target: &Address, source: String) -> Self {
        let error = ValueError::Loop(target.clone(), source);
        Self::Value { by: variable_of("-t").unwrap_or("-t").into(), error }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoRole => "-e on the side of the clients, -d on the side of the server",
            Self::Missing("-k") => {
                "make a key with 'spiped keygen PATH' and copy it to the other end; an empty SPIPED_KEY gives none"
            }
            Self::Missing("-s") => {
                "-s ADDRESS says where to listen, or SPIPED_SOURCE, which gives none if it is empty"
            }
            Self::Missing("-t") => {
                "-t ADDRESS says where to connect to, or SPIPED_TARGET, which gives none if it is empty"
            }
            Self::HandoverInBackground => "add -F",
            Self::Fast => "leave it out; a connection costs one round trip and 0.2 ms of CPU",
            Self::Value { error, .. } => error.hint(),
            Self::Unknown(_) => UnknownVariable::HINT,
            Self::Missing(_) | Self::Conflict(..) => "'--help' lists the options",
        }
    }
}

impl ValueError {
    const fn hint(&self) -> &'static str {
        match self {
            Self::Address(error) => error.hint(),
            Self::TargetPort => "name the port the server listens on",
            Self::Loop(..) => "with -e name the receiver after -t, with -d the server",
            Self::BoundToTarget(_) => "leave out its port",
            Self::Bind(_) => "write [1.2.3.4]:0, 1.2.3.4 or [::1]:0",
            Self::Control(_) => "write /run/spiped/name.control",
            Self::RunAs(_) => "name a user, or a group behind a colon",
            Self::Flag(_) => "1, yes, true or on; 0, no, false, off or nothing at all",
            Self::NotText(_) => "only paths may have such bytes",
            Self::Limit(_) => "'--help' lists the options",
        }
    }
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let role = match (args.encrypt, args.decrypt) {
            (true, true) => return Err(ConfigError::Conflict("-e".into(), "-d".into())),
            (true, false) => Role::Encrypt,
            (false, true) => Role::Decrypt,
            (false, false) => return Err(ConfigError::NoRole),
        };
        let source = args.source.as_deref().map(|text| address("-s", Some(text))).transpose()?;
        let tunnel = TunnelConfig::try_from(&args.outgoing)?;
        // What else leads back is seen when the source is bound.
        if source.as_ref() == Some(&tunnel.target) {
            return Err(ConfigError::leads_back(&tunnel.target, tunnel.target.to_string()));
        }
        Ok(Self {
            role,
            tunnel,
            dns: if args.wait_for_dns { Dns::Wait } else { Dns::AtStart },
            refresh: refresh(&args)?,
            connections: limit("-n", args.connections.as_deref(), str::parse)?.unwrap_or_default(),
            drain_timeout: limit("--drain-timeout", args.drain_timeout.as_deref(), str::parse)?
                .unwrap_or_default(),
            threads: limit("--threads", args.threads.as_deref(), str::parse)?.unwrap_or_default(),
            prewarm: prewarm(role, &args)?,
            process: process(&args, source.as_ref())?,
            log: log(&args)?,
            source,
        })
    }
}

impl TryFrom<&Outgoing> for TunnelConfig {
    type Error = ConfigError;

    fn try_from(args: &Outgoing) -> Result<Self, ConfigError> {
        if args.fast {
            return Err(ConfigError::Fast);
        }
        let target = address("-t", args.target.as_deref())?;
        if target.port() == Some(0) {
            return Err(ConfigError::value("-t", ValueError::TargetPort));
        }
        let bind = args.bind.as_deref().map(bind).transpose()?;
        if let Some(bind) = bind.filter(|bind| target == Address::Inet(*bind)) {
            return Err(ConfigError::value("-b", ValueError::BoundToTarget(bind)));
        }
        Ok(Self {
            target,
            key: args.key.clone().ok_or(ConfigError::Missing("-k"))?,
            bind,
            timeout: limit("-o", args.timeout.as_deref(), str::parse)?.unwrap_or_default(),
            keepalive: if args.no_keepalive { Keepalive::Off } else { Keepalive::On },
            waiting: if args.polling { Waiting::Awake } else { Waiting::Asleep },
            cipher: limit("--cipher", args.cipher.as_deref(), str::parse)?.unwrap_or_default(),
            padding: limit("--pad", args.pad.as_deref(), parse_padding)?,
        })
    }
}

fn refresh(args: &Args) -> Result<Refresh, ConfigError> {
    match (args.no_resolve, &args.resolve) {
        (true, Some(_)) => Err(ConfigError::Conflict("-r".into(), "-R".into())),
        (true, None) => Ok(Refresh::Never),
        (false, seconds) => Ok(limit("-r", seconds.as_deref(), str::parse)?.unwrap_or_default()),
    }
}

fn prewarm(role: Role, args: &Args) -> Result<Prewarm, ConfigError> {
    match (role, limit("--prewarm", args.prewarm.as_deref(), str::parse)?) {
        (Role::Decrypt, Some(_)) => Err(ConfigError::Conflict("-d".into(), "--prewarm".into())),
        (_, sessions) => Ok(sessions.unwrap_or_default()),
    }
}

fn process(args: &Args, source: Option<&Address>) -> Result<ProcessConfig, ConfigError> {
    let ground = match (args.foreground, args.handover) {
        (true, true) => Ground::Handover,
        (true, false) => Ground::Foreground,
        (false, false) => Ground::Background,
        (false, true) => return Err(ConfigError::HandoverInBackground),
    };
    let pid_file = match (&args.pidfile, ground) {
        (Some(path), _) => Some(path.clone()),
        (None, Ground::Background) => {
            let source = source.ok_or(ConfigError::Missing("-s"))?;
            Some(format!("{source}.pid").into())
        }
        (None, Ground::Foreground | Ground::Handover) => None,
    };
    let run_as = args.user.as_deref().map(str::parse).transpose();
    let run_as = run_as.map_err(|error: RunAsError| ConfigError::value("-u", error))?;
    let control = args.control.as_deref().map(control).transpose()?;
    Ok(ProcessConfig { ground, pid_file, run_as, control })
}

fn control(text: &str) -> Result<PathBuf, ConfigError> {
    match text.parse() {
        Ok(Address::Unix(path)) => Ok(path),
        Err(error @ AddressError::PathTooLong(_)) => Err(ConfigError::value("--control", error)),
        _ => Err(ConfigError::value("--control", ValueError::Control(text.to_owned()))),
    }
}

fn log(args: &Args) -> Result<LogConfig, ConfigError> {
    let level = match (args.quiet, args.verbose) {
        (true, true) => {
            return Err(ConfigError::Conflict("--quiet".into(), "--verbose".into()));
        }
        (true, false) => LevelFilter::WARN,
        (false, true) => LevelFilter::DEBUG,
        (false, false) => LevelFilter::INFO,
    };
    let level = limit("--log", args.log.as_deref(), parse_level)?.unwrap_or(level);
    // In the background there is no standard error to log to.
    let sink = if args.syslog || !args.foreground { LogSink::Syslog } else { LogSink::Stderr };
    let format = limit("--log-format", args.log_format.as_deref(), str::parse)?;
    Ok(LogConfig { sink, format: format.unwrap_or(LogFormat::Text), level })
}

/// `[1.2.3.4]:0`, or just the address.
pub(crate) fn bind(text: &str) -> Result<SocketAddr, ConfigError> {
    let ip = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match (ip, text.parse()) {
        (Ok(ip), _) => Ok(SocketAddr::new(ip, 0)),
        (Err(_), Ok(Address::Inet(address))) => Ok(address),
        (Err(_), _) => Err(ConfigError::value("-b", ValueError::Bind(text.to_owned()))),
    }
}

fn address(option: &'static str, text: Option<&str>) -> Result<Address, ConfigError> {
    text.ok_or(ConfigError::Missing(option))?
        .parse()
        .map_err(|error: AddressError| ConfigError::value(option, error))
}

fn limit<T>(
    option: &'static str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T, LimitError>,
) -> Result<Option<T>, ConfigError> {
    text.map(|text| parse(text).map_err(|error| ConfigError::value(option, error))).transpose()
}
