//! The header of the PROXY protocol, version 2 (haproxy's proxy-protocol.txt), which tells
//! the target whose connection it is.
//!
//! ```text
//! signature(12) ‖ version and command(1) ‖ family(1) ‖ length of the rest(2)
//! source ‖ destination ‖ source port(2) ‖ destination port(2)
//! zero or more of type(1) ‖ length(2) ‖ value
//! ```
//!
//! No crate fits: one does not know all types, one brings five others along.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::context::Context;
use super::log::ConnectionStats;
use super::observer::Conn;
use crate::daemon::net::peer::Peer;
use crate::protocol::{Client, KeyId, Suite};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2; the connection is the receiver's own.
const LOCAL: u8 = 0x20;
/// Version 2; the connection is made for a client.
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
/// Encrypted, by a client that has proved who it is, on this connection: what TLS does by
/// a certificate, which is then verified.
const PROVED: [u8; 5] = [0x01 | 0x02 | 0x04, 0, 0, 0, 0];
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const SSL_GROUP: u8 = 0x26;
/// Of spiped alone, out of the range for applications.
const KEY_ID: u8 = 0xe5;

/// From where to where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    from: SocketAddr,
    to: SocketAddr,
}

/// What is known of a session.
#[derive(Clone, Copy)]
struct Details<'a> {
    conn: Conn,
    key: &'a str,
    key_id: KeyId,
    suite: Suite,
}

/// The header of a connection that `peer` has opened to the address `local`, if the operator
/// wants one.
pub(super) fn proxy_header(
    context: &Context,
    (peer, local): (&Peer, Option<SocketAddr>),
    stats: &ConnectionStats,
) -> Option<Vec<u8>> {
    let options = &context.config.connections;
    let is_wanted = options.proxy_protocol || options.proxy_protocol_address;
    // A target that is only asked whether it answers is told nothing.
    if !is_wanted || stats.is_nobody() {
        return None;
    }
    let details = options.proxy_protocol.then(|| Details::of(stats));
    Some(encode(Route::of(stats.client.as_deref(), peer, local), details))
}

impl Route {
    /// The client is where the sender says, or else at the sender's host. There is no route
    /// where nobody is behind the connection, or where nothing but unix sockets is known.
    fn of(client: Option<&Client>, peer: &Peer, local: Option<SocketAddr>) -> Option<Self> {
        let from = match (client, peer) {
            (Some(Client::Ip(client)), _) => *client,
            // A client on a unix socket is on the sender's host, and has no port.
            (Some(Client::Unix), Peer::Inet(sender)) => SocketAddr::new(sender.ip(), 0),
            (None, Peer::Inet(sender)) => *sender,
            (Some(Client::Unix | Client::Nobody) | None, _) => return None,
        };
        let nowhere = match from.ip().to_canonical() {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        Some(Self { from, to: local.unwrap_or(SocketAddr::new(nowhere, 0)) })
    }

    /// The family, and both addresses with their ports. Both are of one family: an IPv4
    /// address beside an IPv6 address is written inside IPv6.
    fn encode(self) -> (u8, Vec<u8>) {
        let Self { from, to } = self;
        let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        match (from.ip().to_canonical(), to.ip().to_canonical()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                (TCP_OVER_IPV4, [&from.octets()[..], &to.octets(), &ports].concat())
            }
            (from, to) => {
                let [from, to] = [from, to].map(|ip| in_ipv6(ip).octets());
                (TCP_OVER_IPV6, [&from[..], &to, &ports].concat())
            }
        }
    }
}

fn in_ipv6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

impl<'a> Details<'a> {
    #[expect(clippy::expect_used, reason = "a connection to the target has a session")]
    fn of(stats: &'a ConnectionStats) -> Self {
        let agreed = stats.session.expect("both ends have agreed");
        let (suite, conn) = (agreed.suite, agreed.conn());
        let key = stats.key.as_ref().expect("a session has a key");
        Self { conn, key: key.name.as_str(), key_id: key.id(), suite }
    }

    /// Ids are texts, so that every log has them in the same form.
    fn encode(self) -> Vec<u8> {
        let ssl = [
            PROVED.to_vec(),
            tlv(SSL_VERSION, b"spiped-2"),
            tlv(SSL_CN, self.key.as_bytes()),
            tlv(SSL_CIPHER, self.suite.cipher.to_string().as_bytes()),
            tlv(SSL_GROUP, self.suite.kex.to_string().as_bytes()),
        ];
        let all = [
            tlv(UNIQUE_ID, self.conn.to_string().as_bytes()),
            tlv(SSL, &ssl.concat()),
            tlv(KEY_ID, self.key_id.to_string().as_bytes()),
        ];
        all.concat()
    }
}

/// The header. Without a route it says nothing: haproxy takes nothing else for no address.
fn encode(route: Option<Route>, details: Option<Details<'_>>) -> Vec<u8> {
    let Some(route) = route else {
        return [&SIGNATURE[..], &[LOCAL, UNSPECIFIED, 0, 0]].concat();
    };
    let (family, addresses) = route.encode();
    let rest = [addresses, details.map(Details::encode).unwrap_or_default()].concat();
    [&SIGNATURE[..], &[PROXY, family], &length(&rest), &rest].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &length(value), value].concat()
}

#[expect(clippy::expect_used, reason = "the key's name is the only part without a fixed length")]
fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("a name is short").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::protocol::{Cipher, ConnectionId, HandshakeHash, KEY_SECRETS, Kex, SharedKey};

    #[expect(clippy::unnecessary_wraps, reason = "a route is optional")]
    fn inet(from: &str, to: &str) -> Option<Route> {
        Some(Route { from: from.parse().unwrap(), to: to.parse().unwrap() })
    }

    fn key_id() -> KeyId {
        SharedKey::from_key_file(&[1; 32], Box::new([0; KEY_SECRETS])).unwrap().id()
    }

    #[test]
    fn an_ipv4_client_takes_28_bytes() {
        let header = encode(inet("192.0.2.7:50000", "10.0.0.5:6379"), None);
        let expected = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54,
            0x0a, // signature
            0x21, 0x11, 0, 12, // version 2, PROXY; TCP over IPv4; 12 bytes follow
            192, 0, 2, 7, 10, 0, 0, 5, 0xc3, 0x50, 0x18, 0xeb,
        ];
        assert_eq!(header, expected);
    }

    #[test]
    fn an_ipv6_client_takes_52_bytes() {
        let header = encode(inet("[2001:db8::7]:80", "[::1]:6379"), None);
        let expected = [
            &SIGNATURE[..],
            &[0x21, 0x21, 0, 36],
            &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 80, 0x18, 0xeb],
        ];
        assert_eq!(header, expected.concat());
    }

    #[test]
    fn two_families_are_written_as_ipv6_and_ipv4_inside_ipv6_as_ipv4() {
        let mapped = |from, to| encode(inet(from, to), None).split_off(16);
        let inside = |last| [[0; 10].as_slice(), &[0xff, 0xff, 192, 0, 2, last]].concat();
        let six = [[0; 15].as_slice(), &[1]].concat();
        let expected = [&inside(7)[..], &six, &[0, 1, 0, 2]].concat();
        assert_eq!(mapped("192.0.2.7:1", "[::1]:2"), expected);
        let expected = [&six[..], &inside(8), &[0, 1, 0, 2]].concat();
        assert_eq!(mapped("[::1]:1", "192.0.2.8:2"), expected);
        let four = encode(inet("192.0.2.7:1", "192.0.2.8:2"), None);
        assert_eq!(encode(inet("[::ffff:192.0.2.7]:1", "[::ffff:192.0.2.8]:2"), None), four);
    }

    #[test]
    fn a_session_is_told_by_types_of_the_protocol_and_one_of_our_own() {
        let conn = Conn::of(ConnectionId::of(&HandshakeHash::new([0; 32])));
        let suite = Suite { kex: Kex::X25519MlKem768, cipher: Cipher::Aes256Gcm };
        let details = Details { conn, key: "alice", key_id: key_id(), suite };
        let header = encode(inet("192.0.2.7:1", "192.0.2.8:2"), Some(details));
        let (conn, key_id) = (conn.to_string(), key_id().to_string());
        let expected = [
            &SIGNATURE[..],
            &[0x21, 0x11, 0, 12 + 22 + 58 + 22],
            &[192, 0, 2, 7, 192, 0, 2, 8, 0, 1, 0, 2],
            &[0x05, 0, 19],
            conn.as_bytes(),
            &[0x20, 0, 55, 7, 0, 0, 0, 0],
            b"\x21\0\x08spiped-2\x22\0\x05alice\x23\0\x0baes-256-gcm\x26\0\x0ex25519mlkem768",
            &[0xe5, 0, 19],
            key_id.as_bytes(),
        ];
        assert_eq!(header, expected.concat());
        let other = Suite { kex: Kex::X25519, cipher: Cipher::ChaCha20Poly1305 };
        let longest = Details { key: &"x".repeat(64), suite: other, ..details };
        let longest = encode(inet("[::1]:1", "[::1]:2"), Some(longest));
        assert!(longest.ends_with(key_id.as_bytes()) && longest.len() < 256, "{}", longest.len());
    }

    #[test]
    fn without_a_route_the_connection_is_local_and_has_no_details() {
        let suite = Suite { kex: Kex::X25519, cipher: Cipher::Aes256Gcm };
        let conn = Conn::of(ConnectionId::of(&HandshakeHash::new([0; 32])));
        let details = Details { conn, key: "alice", key_id: key_id(), suite };
        let local = [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat();
        assert_eq!(encode(None, Some(details)), local);
        assert_eq!(encode(None, None), local);
    }

    #[test]
    fn a_client_is_where_its_sender_says_or_else_at_the_senders_host() {
        let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
        let sender = Peer::Inet(socket("192.0.2.1:40000"));
        let local = Some(socket("10.0.0.5:6379"));
        let client = Client::Ip(socket("198.51.100.3:1234"));
        let of = Route::of;
        let here = "10.0.0.5:6379";
        for (client, route) in [
            (None, inet("192.0.2.1:40000", here)),
            (Some(&client), inet("198.51.100.3:1234", here)),
            (Some(&Client::Unix), inet("192.0.2.1:0", here)),
            (Some(&Client::Nobody), None),
        ] {
            assert_eq!(of(client, &sender, local), route);
        }
        // A receiver on a unix socket has no address of its own.
        assert_eq!(of(None, &Peer::Unix, None), None);
        assert_eq!(of(Some(&Client::Unix), &Peer::Unix, None), None);
        let route = inet("198.51.100.3:1234", "0.0.0.0:0");
        assert_eq!(of(Some(&client), &Peer::Unix, None), route);
        let six = Client::Ip(socket("[2001:db8::7]:80"));
        assert_eq!(of(Some(&six), &Peer::Unix, None), inet("[2001:db8::7]:80", "[::]:0"));
    }
}
