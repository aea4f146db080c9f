//! Numbers that cannot be out of bounds.

use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use tracing::level_filters::LevelFilter;

use super::LogFormat;
use crate::protocol::{Padding, Suite};

/// `-n`: how many connections there may be at once; `None` for as many as the
/// file descriptors allow (written 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxConnections(pub Option<NonZeroU32>);

/// `-o`: how long a handshake, and how long a connect, may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(Duration);

/// `--drain-timeout`: how long open connections have to end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainTimeout(Duration);

/// `-r`, `-R`: how often the target's name is resolved again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// After this time.
    Every(Duration),
    /// Once it has been resolved, that is for ever.
    Never,
}

/// `--threads`: how many one-thread runtimes share the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads(NonZeroUsize);

/// `--prewarm`: how many sessions the sender keeps ready for connections to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prewarm(usize);

/// `--cipher`: the one suite to use, or `None` for what suits the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CipherChoice(pub Option<Suite>);

/// A number or word that an option does not take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{given}' is not {wanted}")]
pub struct LimitError {
    given: String,
    wanted: &'static str,
}

impl LimitError {
    fn new(given: &str, wanted: &'static str) -> Self {
        Self { given: given.into(), wanted }
    }
}

impl FromStr for MaxConnections {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        text.parse().map(|number| Self(NonZeroU32::new(number))).map_err(|_| {
            LimitError::new(text, "a number of connections (0: no limit but the file descriptors)")
        })
    }
}

impl Timeout {
    const DEFAULT: Duration = Duration::from_secs(5);
    /// The time.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Default for Timeout {
    fn default() -> Self {
        Self(Self::DEFAULT)
    }
}

impl FromStr for Timeout {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        seconds(text)
            .filter(|time| !time.is_zero())
            .map(Self)
            .ok_or_else(|| LimitError::new(text, "a time in seconds, above 0 and at most 86400"))
    }
}

impl DrainTimeout {
    const DEFAULT: Duration = Duration::from_secs(10);

    /// The time.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Default for DrainTimeout {
    fn default() -> Self {
        Self(Self::DEFAULT)
    }
}

impl FromStr for DrainTimeout {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let time = seconds(text).map(Self);
        time.ok_or_else(|| LimitError::new(text, "a time in seconds, at most 86400"))
    }
}

impl Default for Refresh {
    fn default() -> Self {
        Self::Every(Duration::from_mins(1))
    }
}

impl FromStr for Refresh {
    type Err = LimitError;

    /// 0 is as -R.
    fn from_str(text: &str) -> Result<Self, LimitError> {
        match seconds(text) {
            Some(Duration::ZERO) => Ok(Self::Never),
            Some(time) => Ok(Self::Every(time)),
            None => Err(LimitError::new(text, "a time in seconds, at most 86400 (0: never)")),
        }
    }
}

/// A time in seconds, with fractions, of at most a day.
fn seconds(text: &str) -> Option<Duration> {
    const MAX: Duration = Duration::from_hours(24);
    let time = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
    (time <= MAX).then_some(time)
}

impl Threads {
    const MAX: usize = 1024;

    /// The number.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0.get()
    }
}

impl Default for Threads {
    /// One for each core this process may use. Measured on two: with half as many,
    /// requests of 50 Redis clients cost a tenth less CPU, since each thread is woken
    /// for itself; but there are a twentieth fewer of them in a second, four bulk
    /// flows are a fifth to a third slower, and a thousand clients cost no less.
    fn default() -> Self {
        Self(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }
}

impl FromStr for Threads {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        text.parse::<NonZeroUsize>()
            .ok()
            .filter(|number| number.get() <= Self::MAX)
            .map(Self)
            .ok_or_else(|| LimitError::new(text, "a number of threads from 1 to 1024"))
    }
}

impl Prewarm {
    const MAX: usize = 1000;

    /// The number; 0 without the option.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }
}

impl FromStr for Prewarm {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        text.parse()
            .ok()
            .filter(|number| *number <= Self::MAX)
            .map(Self)
            .ok_or_else(|| LimitError::new(text, "a number of sessions from 0 to 1000"))
    }
}

impl FromStr for CipherChoice {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        if text == "auto" {
            return Ok(Self(None));
        }
        Suite::ALL
            .into_iter()
            .find(|suite| suite.to_string() == text)
            .map(|suite| Self(Some(suite)))
            .ok_or_else(|| {
                LimitError::new(text, "a cipher (auto, aes-256-gcm or chacha20-poly1305)")
            })
    }
}

impl FromStr for LogFormat {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LimitError::new(text, "a format of the log (text or json)")),
        }
    }
}

/// `--log`. Other programs have other words for the same level; `err` is not among
/// them, since who writes it wants to see failed connections, which are warnings.
///
/// # Errors
/// When it is no level: what is not understood must not hide anything.
pub fn parse_level(text: &str) -> Result<LevelFilter, LimitError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" | "none" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "info" | "notice" => Ok(LevelFilter::INFO),
        // There are no lines below.
        "debug" | "verbose" | "all" => Ok(LevelFilter::DEBUG),
        _ => Err(LimitError::new(text, "a level of the log (off, error, warn, info or debug)")),
    }
}

/// `--pad`.
///
/// # Errors
/// When it is no number or out of bounds.
pub fn parse_padding(text: &str) -> Result<Padding, LimitError> {
    text.parse()
        .ok()
        .and_then(|bytes| Padding::new(bytes).ok())
        .ok_or_else(|| LimitError::new(text, "a number of bytes to pad to, from 2 to 16384"))
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
    fn numbers_and_words_outside_their_bounds_are_refused() {
        assert_eq!("0".parse(), Ok(MaxConnections(None)));
        assert_eq!("7".parse(), Ok(MaxConnections(NonZeroU32::new(7))));
        assert!("-1".parse::<MaxConnections>().is_err());
        assert!("0".parse::<Threads>().is_err());
        assert!("1025".parse::<Threads>().is_err());
        assert_eq!("1000".parse().map(Prewarm::get), Ok(1000));
        assert!("1001".parse::<Prewarm>().is_err());
        assert_eq!("auto".parse(), Ok(CipherChoice(None)));
        assert_eq!("aes-256-gcm".parse(), Ok(CipherChoice(Some(Suite::Aes256Gcm))));
        assert!("AES".parse::<CipherChoice>().is_err());
        assert_eq!(parse_level("off"), Ok(LevelFilter::OFF));
        assert_eq!(parse_level(" Warning\r"), Ok(LevelFilter::WARN));
        assert!(["spiped=debug", "err", "trace", "4"].map(parse_level).iter().all(Result::is_err));
        assert!(parse_padding("1").is_err() && parse_padding("16385").is_err());
        assert_eq!(parse_padding("512").map(Padding::get), Ok(512));
    }
}
