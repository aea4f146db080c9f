//! Extensions: what OPEN and OPENED can carry beside their kind (rules X1 to X3).
//!
//! ```text
//! zero or more of   type(1) ‖ length(1) ‖ value(length)     at most 255 bytes in all
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The most bytes of all extensions of a record.
pub(super) const EXTENSIONS_MAX: usize = 255;
/// The most bytes of the client's extension: type, length, family, IPv6 address and port.
pub(super) const CLIENT_MAX: usize = 2 + 1 + 16 + 2;
/// Types from here on must be understood by who gets them.
const MUST_BE_UNDERSTOOD: u8 = 128;
/// The type of the client's address.
const CLIENT: u8 = 1;
/// The type that says that there is no client.
const NOBODY: u8 = 2;

/// The extensions of an OPEN or OPENED.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Types 1 and 2, in OPEN: the initiator's client. Whoever holds the key can claim any.
    pub client: Option<Client>,
}

/// Where an initiator's client is. Type 1: `family(1) ‖ address ‖ port(2, big endian)`; the
/// family is 4, 6, or 0 with nothing behind it. Type 2, without a value: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It came from this address. IPv4 inside IPv6 is written as IPv4.
    Ip(SocketAddr),
    /// It came over a unix socket.
    Unix,
    /// There is none: the initiator only tries whether its peer and the target answer.
    Nobody,
}

/// Why extensions cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExtensionsError {
    /// They are none: a wrong length, a type twice, or types that do not ascend.
    Violation,
    /// One of a later version that must be understood.
    NotUnderstood,
}

impl Extensions {
    /// Reads all of `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ExtensionsError> {
        if bytes.len() > EXTENSIONS_MAX {
            return Err(ExtensionsError::Violation);
        }
        let mut extensions = Self::default();
        let mut is_understood = true;
        let mut last = None;
        let mut rest = bytes;
        while let [kind, length, tail @ ..] = rest {
            let (value, tail) =
                tail.split_at_checked((*length).into()).ok_or(ExtensionsError::Violation)?;
            if last >= Some(*kind) {
                return Err(ExtensionsError::Violation);
            }
            match *kind {
                CLIENT => {
                    let client = Client::parse(value).ok_or(ExtensionsError::Violation)?;
                    extensions.client = Some(client);
                }
                NOBODY if !value.is_empty() => return Err(ExtensionsError::Violation),
                // Behind an address, it counts more.
                NOBODY => extensions.client = Some(Client::Nobody),
                MUST_BE_UNDERSTOOD.. => is_understood = false,
                _ => {}
            }
            (last, rest) = (Some(*kind), tail);
        }
        match rest {
            [] if is_understood => Ok(extensions),
            [] => Err(ExtensionsError::NotUnderstood),
            _ => Err(ExtensionsError::Violation),
        }
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn length(self) -> usize {
        self.encode().len()
    }

    /// The bytes on the wire.
    pub(super) fn encode(self) -> Vec<u8> {
        self.client.map(Client::encode).unwrap_or_default()
    }
}

impl Client {
    fn parse(value: &[u8]) -> Option<Self> {
        let address =
            |ip: IpAddr, port: &[u8; 2]| Self::Ip(SocketAddr::new(ip, u16::from_be_bytes(*port)));
        let (family, rest) = value.split_first()?;
        match family {
            0 if rest.is_empty() => Some(Self::Unix),
            4 if rest.len() == 6 => {
                let (ip, port) = rest.split_first_chunk::<4>()?;
                Some(address(Ipv4Addr::from(*ip).into(), port.first_chunk()?))
            }
            6 if rest.len() == 18 => {
                let (ip, port) = rest.split_first_chunk::<16>()?;
                Some(address(Ipv6Addr::from(*ip).into(), port.first_chunk()?))
            }
            _ => None,
        }
    }

    fn encode(self) -> Vec<u8> {
        match self {
            Self::Nobody => vec![NOBODY, 0],
            Self::Unix => vec![CLIENT, 1, 0],
            Self::Ip(address) => {
                let port = address.port().to_be_bytes();
                match address.ip().to_canonical() {
                    IpAddr::V4(ip) => [&[CLIENT, 7, 4][..], &ip.octets(), &port].concat(),
                    IpAddr::V6(ip) => [&[CLIENT, 19, 6][..], &ip.octets(), &port].concat(),
                }
            }
        }
    }
}

/// Such as `192.0.2.7:50000`, `[2001:db8::7]:50000`, `unix` or `nobody`.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => {
                SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f)
            }
            Self::Unix => f.write_str("unix"),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Extensions, ExtensionsError> {
        Extensions::parse(bytes)
    }

    #[test]
    fn x1_extensions_are_whole_ascending_and_at_most_255_bytes() {
        assert_eq!(parse(&[]), Ok(Extensions::default()));
        assert_eq!(parse(&[3, 0, 4, 1, 9]), Ok(Extensions::default()));
        let wrong: [&[u8]; 8] = [
            &[2],            // a type alone
            &[2, 1],         // a value that is cut
            &[2, 0, 3],      // a second type alone
            &[2, 0, 2, 0],   // a type twice
            &[3, 0, 2, 0],   // descending
            &[0, 0, 0, 0],   // the least type twice
            &[2, 0, 200, 3], // cut, though it must be understood
            &[200, 0, 2, 0], // descending, though it must be understood
        ];
        for bytes in wrong {
            assert_eq!(parse(bytes), Err(ExtensionsError::Violation), "{bytes:?}");
        }
        let longest = [&[3, 253][..], &[7; 253]].concat();
        assert_eq!(parse(&longest), Ok(Extensions::default()));
        let longer = [&[3, 252][..], &[7; 252], &[4, 0]].concat();
        assert_eq!(parse(&longer), Err(ExtensionsError::Violation));
    }

    #[test]
    fn x2_unknown_types_are_passed_over_but_those_that_must_be_understood() {
        for kind in 0..=255 {
            let expected = match kind {
                1 | 2 => Err(ExtensionsError::Violation),
                0..=127 => Ok(Extensions::default()),
                128.. => Err(ExtensionsError::NotUnderstood),
            };
            assert_eq!(parse(&[kind, 2, 0xff, 0xff]), expected, "{kind}");
        }
    }

    #[test]
    fn x3_the_client_has_an_address_a_port_and_a_family() {
        let clients: [(&str, &[u8]); 3] = [
            ("192.0.2.7:50000", &[1, 7, 4, 192, 0, 2, 7, 0xc3, 0x50]),
            (
                "[2001:db8::7]:80",
                &[1, 19, 6, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 80],
            ),
            ("unix", &[1, 1, 0]),
        ];
        for (text, bytes) in clients {
            let read = parse(bytes).unwrap();
            assert_eq!(read.client.unwrap().to_string(), text);
            assert_eq!(read.encode(), bytes, "{text}");
        }
        for wrong in
            [&[][..], &[0, 0], &[4], &[4, 1, 2, 3, 4, 5], &[4; 8], &[6; 18], &[6; 20], &[5]]
        {
            let bytes = [&[1, u8::try_from(wrong.len()).unwrap()][..], wrong].concat();
            assert_eq!(parse(&bytes), Err(ExtensionsError::Violation), "{wrong:?}");
        }
    }

    #[test]
    fn x3_no_client_takes_more_than_an_ipv6_address() {
        for address in ["192.0.2.7:50000", "[2001:db8::7]:80", "[::ffff:192.0.2.7]:1"] {
            let client = Some(Client::Ip(address.parse().unwrap()));
            assert!(Extensions { client }.length() <= CLIENT_MAX, "{address}");
        }
        assert!(Extensions { client: Some(Client::Unix) }.length() <= CLIENT_MAX);
    }

    #[test]
    fn x3_nobody_is_said_without_a_value_and_counts_more_than_an_address() {
        let nobody = Extensions { client: Some(Client::Nobody) };
        assert_eq!((parse(&[2, 0]), nobody.encode()), (Ok(nobody), vec![2, 0]));
        assert_eq!(parse(&[1, 1, 0, 2, 0]), Ok(nobody));
        assert_eq!(parse(&[2, 1, 0]), Err(ExtensionsError::Violation));
        assert_eq!(nobody.client.unwrap().to_string(), "nobody");
    }

    #[test]
    fn x3_ipv4_inside_ipv6_is_written_as_ipv4() {
        let client = Some(Client::Ip("[::ffff:192.0.2.7]:1".parse().unwrap()));
        assert_eq!(Extensions { client }.encode(), [1, 7, 4, 192, 0, 2, 7, 0, 1]);
        assert!(Extensions::default().encode().is_empty());
    }
}
