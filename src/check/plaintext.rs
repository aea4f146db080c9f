//! Plaintext gets nowhere: a client without a key speaks first, or waits for the server to,
//! and is refused. This proves something of a receiver, and so only where one is known to
//! be: a proxy closes without a byte, too, and serves another client.
//!
//! ```text
//! closed without a byte   refused: what a receiver does
//! an answer               served, where it is of the protocol; else another program's
//! neither                 proves nothing: a server that hangs does the same
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::config::{Address, Plaintext, TunnelConfig};
use crate::daemon::proof::{Answer, Fault, send_plaintext};
use crate::protocol::LooksLike;
use crate::report::{Report, exit};

/// The exit code where plaintext is served, which none of `sysexits.h` means.
pub(crate) const SERVED: u8 = 1;
/// How much of an answer is shown.
const SHOWN: usize = 60;

/// The proof that a client of a protocol gets nowhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) protocol: Plaintext,
    /// Where, of a name.
    pub(crate) address: Option<SocketAddr>,
    /// Until the connection was closed.
    pub(crate) took: Duration,
}

/// Why there is no such proof.
#[derive(Debug, Error)]
pub(crate) enum Accepted {
    /// Nothing can be reached.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A server of the protocol answers.
    #[error("plaintext {protocol} is served there, to anybody: {said:?}")]
    Served { protocol: Plaintext, said: String },
    /// Something else answers, and no receiver does.
    #[error("something answers plaintext {protocol} that is no receiver, looks like {looks_like}")]
    Foreign { protocol: Plaintext, looks_like: LooksLike },
    /// Neither an answer nor an end.
    #[error("plaintext {protocol} was neither answered nor refused in {waited:?}")]
    Silent { protocol: Plaintext, waited: Duration },
}

impl Report for Accepted {
    fn hint(&self) -> &str {
        match self {
            Self::Fault(fault) => fault.hint(),
            Self::Served { .. } => {
                "the server itself, a sender ('spiped -e'), or a proxy to one of them listens there: bind it to loopback, and 'spiped -d' in its place"
            }
            Self::Foreign { .. } => "-t must name a receiver ('spiped -d')",
            Self::Silent { protocol: Plaintext::Mysql | Plaintext::Smtp, .. } => {
                "a receiver closes after its own -o: set -o here to no less than that"
            }
            Self::Silent { .. } => "a receiver closes at once, so this is none, or it hangs",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Fault(fault) => fault.exit_code(),
            Self::Served { .. } => SERVED,
            Self::Foreign { .. } => exit::PROTOCOL,
            Self::Silent { .. } => exit::UNAVAILABLE,
        }
    }
}

/// Proves that a plaintext client gets nowhere, at the address of a name that is known to
/// lead to a receiver.
///
/// # Errors
/// When it gets an answer, or when that cannot be told.
pub(crate) fn refuses(
    config: &TunnelConfig,
    address: Option<SocketAddr>,
    protocol: Plaintext,
) -> Result<Refused, Accepted> {
    // A receiver closes the connection of a silent peer after its own timeout.
    let limit = config.timeout.get().saturating_mul(2);
    let hello = hello(protocol, &config.target);
    let target = address.map_or_else(|| config.target.clone(), Address::Inet);
    let way = TunnelConfig { target, ..config.clone() };
    let Answer { bytes, is_closed, took } = send_plaintext(&way, &hello, limit)?;
    match &bytes[..] {
        [] if is_closed => Ok(Refused { protocol, address, took }),
        [] => Err(Accepted::Silent { protocol, waited: limit }),
        said if is_of(protocol, said) => {
            Err(Accepted::Served { protocol, said: shown(protocol, said) })
        }
        said => Err(Accepted::Foreign { protocol, looks_like: LooksLike::of(said) }),
    }
}

/// What a client says first; nothing where the server speaks first.
fn hello(protocol: Plaintext, to: &Address) -> Vec<u8> {
    match protocol {
        Plaintext::Redis => b"*1\r\n$4\r\nPING\r\n".to_vec(),
        // SSLRequest, to which every server answers.
        Plaintext::Postgres => vec![0, 0, 0, 8, 4, 210, 22, 47],
        Plaintext::Http => {
            let host = match to {
                Address::Inet(address) => address.to_string(),
                Address::Host(name, port) => format!("{name}:{port}"),
                Address::Unix(_) => "localhost".to_owned(),
            };
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
        }
        Plaintext::Mysql | Plaintext::Smtp => vec![],
    }
}

/// Whether a server of the protocol begins its answer so.
fn is_of(protocol: Plaintext, answer: &[u8]) -> bool {
    match protocol {
        // +PONG, or an error: -NOAUTH, -ERR, -DENIED, -LOADING, …
        Plaintext::Redis => matches!(answer, [b'+' | b'-', b'A'..=b'Z', ..]),
        // TLS, none, or an error of a server that does not know the question.
        Plaintext::Postgres => {
            matches!(answer, [b'S' | b'N'] | [b'E', b'A'..=b'Z', ..] | [b'E', 0, 0, _, _, b'S', ..])
        }
        // A length of three bytes, number 0, and version 10 or an error.
        Plaintext::Mysql => matches!(answer, [_, _, _, 0, 10 | 0xff, ..]),
        Plaintext::Smtp => {
            matches!(answer, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..])
        }
        Plaintext::Http => answer.starts_with(b"HTTP/"),
    }
}

/// The first line of an answer, for a text.
fn shown(protocol: Plaintext, answer: &[u8]) -> String {
    let text = match protocol {
        // The version stands behind the head.
        Plaintext::Mysql => answer.get(5..).unwrap_or_default(),
        Plaintext::Redis | Plaintext::Postgres | Plaintext::Smtp | Plaintext::Http => answer,
    };
    let is_end = |byte: &u8| matches!(byte, 0 | b'\r' | b'\n');
    let line = text.split(is_end).next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_protocol_are_told_from_those_of_others() {
        use Plaintext::{Http, Mysql, Postgres, Redis, Smtp};
        let answers: [(&[u8], Option<Plaintext>); 16] = [
            (b"+PONG\r\n", Some(Redis)),
            (b"-NOAUTH Authentication required.\r\n", Some(Redis)),
            (b"-DENIED Redis is running in protected mode", Some(Redis)),
            (b"-ERR max number of clients reached\r\n", Some(Redis)),
            (b"S", Some(Postgres)),
            (b"N", Some(Postgres)),
            (b"EFATAL", Some(Postgres)),
            (b"E\0\0\0\x45SFATAL\0", Some(Postgres)),
            (b"HTTP/1.1 400 Bad Request\r\n", Some(Http)),
            (b"\x5b\0\0\0\x0a11.8.3-MariaDB", Some(Mysql)),
            // The host is blocked.
            (b"\x45\0\0\0\xff\x69\x04Host", Some(Mysql)),
            (b"220 mail.example ESMTP\r\n", Some(Smtp)),
            (b"554-no", Some(Smtp)),
            (b"SSH-2.0-OpenSSH_9.2\r\n", None),
            (b"\x15\x03\x01\0\x02\x02\x0a", None),
            (b"+", None),
        ];
        for (answer, of) in answers {
            for protocol in [Redis, Postgres, Mysql, Smtp, Http] {
                assert_eq!(is_of(protocol, answer), of == Some(protocol), "{protocol} {answer:?}");
            }
        }
    }

    #[test]
    fn the_first_line_of_an_answer_is_shown() {
        let mysql = b"\x5b\0\0\0\x0a11.8.3-MariaDB\0abc";
        assert_eq!(shown(Plaintext::Mysql, mysql), "11.8.3-MariaDB");
        assert_eq!(shown(Plaintext::Http, b"HTTP/1.0 200 OK\r\nA: b"), "HTTP/1.0 200 OK");
        assert_eq!(shown(Plaintext::Mysql, b"\x01"), "");
        assert_eq!(shown(Plaintext::Redis, &[b'+'; 99]).len(), SHOWN);
    }
}
