//! The options that `spiped` and `spipe` have in common: the way out, and the
//! session.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "--help is no Markdown")]

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, ValueHint};

use super::address::{Address, AddressError};
use super::environment::as_given;
use super::error::ConfigError;
use super::headings::CONNECTIONS;
use super::value::{ValueError, flag, seconds, with_words};
use crate::protocol::{self, Accepted, Cipher, Kex};

/// The way out, and the session.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub(crate) struct TunnelConfig {
    /// Where to connect to
    #[arg(short, long, value_name = "ADDRESS", value_parser = target)]
    pub(crate) target: Address,

    /// Key file that both ends share, -d: or folder of them
    #[arg(short, long = "key", value_name = "FILE", action = ArgAction::Append,
          value_delimiter = ':', required = true, value_hint = ValueHint::AnyPath,
          value_parser = OsStringValueParser::new().try_map(key))]
    pub(crate) keys: Vec<PathBuf>,

    /// Time limit of connect and handshake
    #[arg(short = 'o', long, value_name = "SECONDS", default_value_t, help_heading = CONNECTIONS)]
    pub(crate) timeout: Timeout,

    /// Connect to the target from this address
    #[arg(short, long, value_name = "ADDRESS", value_parser = bind, help_heading = CONNECTIONS)]
    pub(crate) bind: Option<SocketAddr>,

    /// Do not probe whether idle peers are gone
    #[arg(short = 'j', long = "no-keepalive", action = ArgAction::SetTrue,
          value_parser = flag(Keepalive::On, Keepalive::Off), help_heading = CONNECTIONS)]
    pub(crate) keepalive: Keepalive,

    /// aes-256-gcm, chacha20-poly1305
    #[arg(long, value_name = "CIPHER", default_value_t, help_heading = CONNECTIONS,
          value_parser = with_words::<Choice<Cipher>>(&["auto", "aes-256-gcm", "chacha20-poly1305"]),
          hide_possible_values = true)]
    pub(crate) cipher: Choice<Cipher>,

    /// x25519mlkem768 (hybrid), x25519
    #[arg(long, value_name = "EXCHANGE", default_value_t, help_heading = CONNECTIONS,
          value_parser = with_words::<Choice<Kex>>(&["auto", "x25519mlkem768", "x25519"]),
          hide_possible_values = true)]
    pub(crate) kex: Choice<Kex>,

    /// Pad records to multiples of this
    #[arg(long = "pad", value_name = "BYTES", default_value_t, help_heading = CONNECTIONS)]
    pub(crate) padding: Padding,

    /// Poll after small reads: only for idle cores
    #[arg(long, action = ArgAction::SetTrue,
          value_parser = flag(BusyPoll::Off, BusyPoll::On), help_heading = CONNECTIONS)]
    pub(crate) busy_poll: BusyPoll,
}

impl TunnelConfig {
    /// The way to a target, with the default of every option. There is no key.
    #[must_use]
    pub(crate) fn to(target: Address) -> Self {
        Self {
            target,
            keys: Vec::new(),
            timeout: Timeout::default(),
            bind: None,
            keepalive: Keepalive::On,
            cipher: Choice::default(),
            kex: Choice::default(),
            padding: Padding::default(),
            busy_poll: BusyPoll::Off,
        }
    }

    /// The key exchange of a sender.
    pub(crate) fn kex_of_sender(&self) -> Kex {
        self.kex.0.unwrap_or(Kex::X25519MlKem768)
    }

    /// What a receiver accepts.
    pub(crate) const fn accepted(&self) -> Accepted {
        Accepted { kex: self.kex.0, cipher: self.cipher.0 }
    }

    /// Refuses a local address that is the target, for which no single option can be blamed.
    pub(super) fn unless_bound_to_target(self) -> Result<Self, ConfigError> {
        match self.bind.filter(|bind| self.target == Address::Inet(*bind)) {
            None => Ok(self),
            Some(bind) => {
                let reason = format!("{bind} is the target itself");
                let error = ValueError::new(reason, "leave out its port");
                Err(ConfigError::Value { by: as_given("-b").into(), error })
            }
        }
    }
}

/// `-o`: how long a handshake, and how long a connect, may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeout(Duration);

impl Timeout {
    /// The time.
    #[must_use]
    pub(crate) const fn get(self) -> Duration {
        self.0
    }
}

impl Default for Timeout {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs_f64())
    }
}

impl FromStr for Timeout {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let time = seconds(text).filter(|time| !time.is_zero()).map(Self);
        time.ok_or_else(|| ValueError::not(text, "a time in seconds, above 0 and at most 86400"))
    }
}

/// `-j`: whether the peers of idle connections are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keepalive {
    /// A peer that is gone is noticed in about a minute.
    On,
    /// A peer that is gone is not noticed.
    Off,
}

/// `--cipher` and `--kex`: the only one to use, or `None` (written auto): a sender takes
/// what suits it, a receiver accepts all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice<T>(pub Option<T>);

/// What can be chosen.
pub(crate) trait Choosable: Copy + fmt::Display + 'static {
    const ALL: &[Self];
    /// What a value of the option is.
    const WANTED: &str;
}

impl Choosable for Cipher {
    const ALL: &[Self] = &Self::ALL;
    const WANTED: &str = "a cipher (auto, aes-256-gcm or chacha20-poly1305)";
}

impl Choosable for Kex {
    const ALL: &[Self] = &Self::ALL;
    const WANTED: &str = "a key exchange (auto, x25519mlkem768 or x25519)";
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: fmt::Display> fmt::Display for Choice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(chosen) => chosen.fmt(f),
            None => f.write_str("auto"),
        }
    }
}

impl<T: Choosable> FromStr for Choice<T> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "auto" {
            return Ok(Self(None));
        }
        let chosen = T::ALL.iter().find(|one| one.to_string() == text);
        chosen.map(|one| Self(Some(*one))).ok_or_else(|| ValueError::not(text, T::WANTED))
    }
}

/// `--pad`: to what multiple of bytes records are padded; `None` for none at all
/// (written no).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Padding(pub Option<protocol::Padding>);

impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(padding) => padding.get().fmt(f),
            None => f.write_str("no"),
        }
    }
}

impl FromStr for Padding {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "no" {
            return Ok(Self(None));
        }
        let padding = text.parse().ok().and_then(|bytes| protocol::Padding::new(bytes).ok());
        let wanted = "a number of bytes to pad to, from 2 to 16384 (no: no padding)";
        padding.map(|padding| Self(Some(padding))).ok_or_else(|| ValueError::not(text, wanted))
    }
}

/// `--busy-poll`: how the next bytes of a conversation are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BusyPoll {
    /// The thread sleeps at once.
    Off,
    /// The thread stays awake for a moment, where that pays, and sleeps then.
    On,
}

/// Reads a path of `-k`.
fn key(path: OsString) -> Result<PathBuf, ValueError> {
    if path.is_empty() {
        let hint = "a path stands before and after each colon, such as /etc/a.key:/etc/b.key";
        return Err(ValueError::new("the path of a key is empty".to_owned(), hint));
    }
    Ok(path.into())
}

/// Reads the address of `-t`.
pub(super) fn target(text: &str) -> Result<Address, ValueError> {
    let address: Address = text.parse()?;
    if address.port() == Some(0) {
        let reason = "port 0 cannot be connected to".to_owned();
        return Err(ValueError::new(reason, "name the port the server listens on"));
    }
    Ok(address)
}

/// Reads the address of `-b`: `[1.2.3.4]:0`, or the IP address alone.
///
/// # Errors
/// When it is no IP address.
pub(crate) fn bind(text: &str) -> Result<SocketAddr, ValueError> {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match (inside.unwrap_or(text).parse::<IpAddr>(), text.parse()) {
        (Ok(ip), _) => Ok(SocketAddr::new(ip, 0)),
        (Err(_), Ok(Address::Inet(address))) => Ok(address),
        // Which does not show what may be a password.
        (Err(_), Err(error @ AddressError::Scheme { .. })) => Err(error.into()),
        (Err(_), _) => {
            let hint = "write [1.2.3.4]:0, 1.2.3.4 or [::1]:0";
            Err(ValueError::new(format!("'{text}' is no IP address"), hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_may_have_fractions_but_not_be_nothing_or_for_ever() {
        let timeout = |text: &str| text.parse::<Timeout>().map(Timeout::get);
        assert_eq!(timeout("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(timeout("5"), Ok(Timeout::default().get()));
        for wrong in ["0", "-1", "nan", "inf", "1e99", "86401", "5s", ""] {
            assert!(timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ciphers_exchanges_and_paddings_outside_their_bounds_are_refused() {
        assert_eq!("auto".parse(), Ok(Choice::<Cipher>(None)));
        assert_eq!("aes-256-gcm".parse(), Ok(Choice(Some(Cipher::Aes256Gcm))));
        assert!("AES".parse::<Choice<Cipher>>().is_err());
        assert_eq!("auto".parse(), Ok(Choice::<Kex>(None)));
        assert_eq!("x25519mlkem768".parse(), Ok(Choice(Some(Kex::X25519MlKem768))));
        assert!("X25519".parse::<Choice<Kex>>().is_err());
        assert_eq!("no".parse(), Ok(Padding::default()));
        let padding = |text: &str| text.parse::<Padding>().map(|padding| padding.0);
        assert_eq!(padding("512"), Ok(protocol::Padding::new(512).ok()));
        assert!(padding("1").is_err() && padding("16385").is_err());
    }

    #[test]
    fn an_address_to_connect_from_stands_in_one_pair_of_brackets_or_none() {
        let from = |text: &str| bind(text).map(|address| address.to_string());
        for right in ["1.2.3.4", "[1.2.3.4]", "[1.2.3.4]:0", "1.2.3.4:0"] {
            assert_eq!(from(right).as_deref(), Ok("1.2.3.4:0"));
        }
        assert_eq!(from("::1").as_deref(), Ok("[::1]:0"));
        for wrong in ["[1.2.3.4", "1.2.3.4]", "[[1.2.3.4]]", "[::1", "[]", "", "name:0"] {
            assert!(from(wrong).is_err(), "{wrong}");
        }
    }
}
