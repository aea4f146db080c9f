//! Where a socket is: `host.name:port`, `[1.2.3.4]:port`, `[::1]:port`,
//! `1.2.3.4:port` or `/absolute/unix/socket`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// The longest path a unix socket can have: `sun_path` less its final NUL.
const UNIX_PATH_MAX: usize = 107;
/// The longest host name (RFC 1035, written without the final dot).
const HOST_MAX: usize = 253;

/// An address that can be bound or connected to, or resolved first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// An IP address and port.
    Inet(SocketAddr),
    /// A host name, to be resolved, and a port.
    Host(String, u16),
    /// The path of a unix stream socket.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum AddressError {
    /// An empty text.
    #[error("the address is empty")]
    Empty,
    /// There is no colon with a port behind it.
    #[error("'{0}' has no port")]
    NoPort(String),
    /// The port is no number of 16 bits.
    #[error("'{0}' is not a port")]
    Port(String),
    /// There is nothing, or a star, before the port.
    #[error("'{0}' has no host before the port")]
    NoHost(String),
    /// The host is neither an IP address nor a name that a resolver could know.
    #[error("'{0}' is neither an address nor a host name")]
    Host(String),
    /// The address has a scheme before it, as a URL has. What stands before the host of
    /// a URL may be a password, so it is not shown.
    #[error("an address has no '{scheme}' before it: write {address}")]
    Scheme {
        /// The scheme, with its colon and slashes.
        scheme: String,
        /// The address without the scheme.
        address: String,
    },
    /// The brackets have something else than an IP address in them.
    #[error("'{0}' stands in brackets and is no IP address")]
    Bracketed(String),
    /// An IPv6 address has no brackets, so that nobody knows where the port begins.
    #[error("'{0}' is an IPv6 address without brackets")]
    Brackets(String),
    /// The path is longer than that of a unix socket can be.
    #[error("the path '{0}' is longer than the {UNIX_PATH_MAX} bytes a unix socket can have")]
    PathTooLong(String),
    /// The path is not absolute.
    #[error("the path '{0}' is not absolute")]
    RelativePath(String),
}

impl AddressError {
    /// What to write instead.
    #[must_use]
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::NoHost(_) => "for all addresses write [0.0.0.0]:PORT or [::]:PORT",
            Self::Bracketed(_) => "a host name stands without brackets: host.name:port",
            Self::Brackets(_) => "put the address in brackets: [2001:db8::1]:8000",
            Self::RelativePath(_) | Self::PathTooLong(_) => "write /run/name.socket",
            Self::Port(_) => "a port is a number from 0 to 65535",
            Self::Empty | Self::NoPort(_) | Self::Host(_) | Self::Scheme { .. } => {
                "write host.name:port, [1.2.3.4]:port, [::1]:port or /path/of/unix/socket"
            }
        }
    }
}

impl Address {
    /// Whether a connection to this address comes back to a listener at `source`, as far as
    /// the addresses alone tell.
    pub(crate) fn leads_back_to(&self, source: &Self) -> bool {
        match (source, self) {
            (Self::Inet(source), Self::Inet(target)) if source.ip().is_unspecified() => {
                let ip = target.ip().to_canonical();
                // A listener on all of IPv6 listens on all of IPv4, too.
                let is_heard = source.is_ipv6() || ip.is_ipv4();
                source.port() == target.port() && ip.is_loopback() && is_heard
            }
            _ => source == self,
        }
    }

    /// The address of TCP, unless it has a name.
    #[must_use]
    pub(crate) const fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::Host(..) | Self::Unix(_) => None,
        }
    }

    /// The port; a unix socket has none.
    #[must_use]
    pub(crate) const fn port(&self) -> Option<u16> {
        match self {
            Self::Inet(address) => Some(address.port()),
            Self::Host(_, port) => Some(*port),
            Self::Unix(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.starts_with('/') {
            return unix(text);
        }
        if let Some(error) = scheme(text) {
            return Err(error);
        }
        if text.contains('/') {
            return Err(AddressError::RelativePath(text.into()));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(AddressError::Brackets(text.into()));
        }
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.into()))?;
        if host.starts_with('[') && !host.ends_with(']') {
            return Err(AddressError::NoPort(text.into()));
        }
        if host.is_empty() || host == "*" {
            return Err(AddressError::NoHost(text.into()));
        }
        // `u16::from_str` would take "+1".
        let port = Some(port)
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| AddressError::Port(port.into()))?;
        match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(bracketed) => inside_brackets(bracketed, port),
            None => without_brackets(host, port),
        }
    }
}

/// What stands before an address that has a scheme, such as `redis://` or `tcp:`.
fn scheme(text: &str) -> Option<AddressError> {
    const WORDS: [&str; 6] = ["tcp:", "tcp4:", "tcp6:", "unix:", "tls:", "ssl:"];
    let (scheme, rest) = if let Some((scheme, rest)) = text.split_once("://") {
        (format!("{scheme}://"), rest)
    } else {
        let word = WORDS.into_iter().find(|word| text.starts_with(word))?;
        // A host may have that name.
        let rest = text.strip_prefix(word).filter(|rest| rest.contains([':', '/']))?;
        (word.to_owned(), rest)
    };
    let address = if rest.starts_with('/') {
        rest
    } else {
        let authority = rest.split(['/', '?', '#']).next()?;
        authority.rsplit('@').next()?
    };
    // A text may have any number of schemes, so this does not parse another one.
    let has_scheme = WORDS.into_iter().any(|word| address.starts_with(word));
    let is_address = !has_scheme && address.parse::<Address>().is_ok();
    let address = if is_address { address } else { "host.name:port" }.to_owned();
    Some(AddressError::Scheme { scheme, address })
}

fn unix(path: &str) -> Result<Address, AddressError> {
    if path.len() > UNIX_PATH_MAX {
        return Err(AddressError::PathTooLong(path.into()));
    }
    Ok(Address::Unix(path.into()))
}

fn inside_brackets(host: &str, port: u16) -> Result<Address, AddressError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Address::Inet(SocketAddr::new(ip, port)));
    }
    // A zone, as in fe80::1%eth0: the resolver knows the interfaces.
    match host.split_once('%') {
        Some((ip, zone)) if ip.parse::<Ipv6Addr>().is_ok() && is_zone(zone) => {
            Ok(Address::Host(host.into(), port))
        }
        _ => Err(AddressError::Bracketed(host.into())),
    }
}

/// The name or number of an interface; nothing that a shell, or a file, would
/// take for something else.
fn is_zone(zone: &str) -> bool {
    !zone.is_empty()
        && zone.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte))
}

fn without_brackets(host: &str, port: u16) -> Result<Address, AddressError> {
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Address::Inet(SocketAddr::new(ip.into(), port)));
    }
    if host.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) {
        return Err(AddressError::Brackets(host.into()));
    }
    let is_name = host.len() <= HOST_MAX
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        // 1.2.3 and 300.1.1.1 are mistyped addresses, not names.
        && !host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_name {
        Ok(Address::Host(host.into(), port))
    } else {
        Err(AddressError::Host(host.into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(SocketAddr::V4(v4)) => write!(f, "[{}]:{}", v4.ip(), v4.port()),
            Self::Inet(v6 @ SocketAddr::V6(_)) => write!(f, "{v6}"),
            Self::Host(host, port) if host.contains('%') => write!(f, "[{host}]:{port}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_forms_are_read_and_written_back() {
        let cases = [
            ("[1.2.3.4]:6379", "[1.2.3.4]:6379"),
            ("1.2.3.4:6379", "[1.2.3.4]:6379"),
            ("[::1]:8000", "[::1]:8000"),
            ("[fe80::1%eth0]:8000", "[fe80::1%eth0]:8000"),
            ("redis.example.org:6379", "redis.example.org:6379"),
            ("localhost:0", "localhost:0"),
            ("/run/redis/redis.sock", "/run/redis/redis.sock"),
        ];
        for (text, shown) in cases {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        let long = format!("/{}", "x".repeat(UNIX_PATH_MAX));
        let cases = [
            ("", "the address is empty"),
            ("localhost", "'localhost' has no port"),
            ("[::1]", "'[::1]' has no port"),
            ("localhost:", "'' is not a port"),
            ("localhost:+1", "'+1' is not a port"),
            ("localhost:65536", "'65536' is not a port"),
            ("localhost:redis", "'redis' is not a port"),
            (":6379", "':6379' has no host before the port"),
            ("*:6379", "'*:6379' has no host before the port"),
            ("[]:1", "'' stands in brackets and is no IP address"),
            ("[localhost]:1", "'localhost' stands in brackets and is no IP address"),
            ("[fe80::1%a b]:1", "'fe80::1%a b' stands in brackets and is no IP address"),
            ("[fe80::1%';']:1", "'fe80::1%';'' stands in brackets and is no IP address"),
            ("300.1.1.1:1", "'300.1.1.1' is neither an address nor a host name"),
            ("a b:1", "'a b' is neither an address nor a host name"),
            ("::1", "'::1' is an IPv6 address without brackets"),
            ("2001:db8::1:8000", "'2001:db8::1:8000' is an IPv6 address without brackets"),
            ("2001:db8::1:16379", "'2001:db8::1' is an IPv6 address without brackets"),
            ("fe80::1%eth0:8000", "'fe80::1%eth0' is an IPv6 address without brackets"),
            ("tcp:db.example:1", "an address has no 'tcp:' before it: write db.example:1"),
            ("tcp://[::1]:1", "an address has no 'tcp://' before it: write [::1]:1"),
            ("unix:/run/x", "an address has no 'unix:' before it: write /run/x"),
            (
                "rediss://me:secret@db.example:6380/0",
                "an address has no 'rediss://' before it: write db.example:6380",
            ),
            ("redis://:se/cret@db", "an address has no 'redis://' before it: write host.name:port"),
            ("tcp:tcp:db:1", "an address has no 'tcp:' before it: write host.name:port"),
            ("a:b:1", "'a:b' is neither an address nor a host name"),
            ("redis.sock/x", "the path 'redis.sock/x' is not absolute"),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Address>().unwrap_err().to_string(), error);
        }
        let many = "tcp:".repeat(1 << 18) + "db.example:1";
        assert!(matches!(many.parse::<Address>(), Err(AddressError::Scheme { .. })));
        assert_eq!(long.parse::<Address>(), Err(AddressError::PathTooLong(long.clone())));
    }
}
