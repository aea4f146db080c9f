//! What a foreign protocol looks like, so that the log can say which program has connected
//! by mistake. Only for operators: no decision depends on it.

use std::fmt;

/// The protocol that a peer's bytes look like, where they are not spiped's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LooksLike {
    /// A Redis command or reply in plaintext.
    Redis,
    /// A TLS hello or alert.
    Tls,
    /// An HTTP request or response.
    Http,
    /// An SSH banner.
    Ssh,
    /// The greeting of a server that speaks first (MySQL, SMTP, FTP, …).
    ServerGreeting,
    /// The proxy protocol, by which a load balancer tells who its client is.
    ProxyProtocol,
    /// The first message of spiped 1.x: 32 bytes, after which it waits.
    Spiped1,
    /// Nothing known.
    Unknown,
}

impl LooksLike {
    /// Guesses from the first bytes of a peer.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        const HTTP: [&[u8]; 11] = [
            b"GET ",
            b"HEAD ",
            b"POST ",
            b"PUT ",
            b"DELETE ",
            b"OPTIONS ",
            b"CONNECT ",
            b"PRI * ",
            b"HTTP/",
            // A page of a server that takes a bad request for one of HTTP 0.9.
            b"<!DOCTYPE",
            b"<html",
        ];
        const REDIS: [&[u8]; 9] =
            [b"PING", b"ping", b"AUTH", b"INFO", b"HELLO", b"SYNC", b"PSYNC", b"+PONG", b"-ERR"];
        const PROXY: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
        let starts = |known: &[&[u8]]| known.iter().any(|start| bytes.starts_with(start));
        match bytes {
            // RESP: a type, then a count or a text, up to CR LF.
            [b'*' | b'$', b'0'..=b'9', ..] | [b'-' | b'+', b'A'..=b'Z', ..] => Self::Redis,
            _ if starts(&REDIS) => Self::Redis,
            _ if starts(&HTTP) => Self::Http,
            _ if starts(&[b"SSH-"]) => Self::Ssh,
            _ if starts(&PROXY) => Self::ProxyProtocol,
            // A TLS record: alert or handshake, version 3.x.
            [0x15 | 0x16, 0x03, 0x00..=0x04, ..] => Self::Tls,
            // The greetings of SMTP and FTP, and of MySQL (length, sequence 0, protocol 10).
            [b'2', b'2', b'0', b' ' | b'-', ..] | [_, 0, 0, 0, 10, ..] => Self::ServerGreeting,
            _ if bytes.len() == 32 => Self::Spiped1,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for LooksLike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "plaintext redis",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::ServerGreeting => "a server's greeting",
            Self::ProxyProtocol => "the proxy protocol",
            Self::Spiped1 => "spiped 1.x",
            Self::Unknown => "nothing known",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_operators_connect_by_mistake_is_named() {
        let cases: [(&[u8], LooksLike); 16] = [
            (b"*1\r\n$4\r\nPING\r\n", LooksLike::Redis),
            (b"PING\r\n", LooksLike::Redis),
            (b"-ERR unknown command", LooksLike::Redis),
            (b"-NOAUTH Authentication required.", LooksLike::Redis),
            (b"GET / HTTP/1.1\r\n", LooksLike::Http),
            (b"HTTP/1.1 400 Bad Request\r\n", LooksLike::Http),
            (b"<!DOCTYPE HTML>", LooksLike::Http),
            (b"SSH-2.0-OpenSSH_9.2", LooksLike::Ssh),
            (b"\x16\x03\x01\x02\x00\x01", LooksLike::Tls),
            (b"220 mail.example ESMTP", LooksLike::ServerGreeting),
            (b"\x5b\x00\x00\x00\x0a5.5.5", LooksLike::ServerGreeting),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 6379\r\n", LooksLike::ProxyProtocol),
            // Version 2, and 32 bytes long.
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x01\xc0\0\x02\x02\xc3\x50\x18\xeb\x04\0\x01\0",
                LooksLike::ProxyProtocol,
            ),
            (&[0xc5; 32], LooksLike::Spiped1),
            (&[0xc5; 33], LooksLike::Unknown),
            (b"", LooksLike::Unknown),
        ];
        for (bytes, expected) in cases {
            assert_eq!(LooksLike::of(bytes), expected, "{bytes:?}");
        }
    }

    /// Each by what stands in no other's.
    #[test]
    fn what_they_are_is_told_apart() {
        let all = [
            (LooksLike::Redis, "redis"),
            (LooksLike::Tls, "tls"),
            (LooksLike::Http, "http"),
            (LooksLike::Ssh, "ssh"),
            (LooksLike::ServerGreeting, "greeting"),
            (LooksLike::ProxyProtocol, "proxy"),
            (LooksLike::Spiped1, "spiped 1"),
            (LooksLike::Unknown, "nothing"),
        ];
        for (looks_like, part) in all {
            let told = |(other, _): &&(LooksLike, &str)| other.to_string().contains(part);
            let those: Vec<_> = all.iter().filter(told).collect();
            assert_eq!(those, [&(looks_like, part)]);
        }
    }
}
