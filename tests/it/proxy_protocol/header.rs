//! Reads a header of the PROXY protocol, version 2.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

pub const LOCAL: u8 = 0;
pub const PROXY: u8 = 1;

#[derive(Debug)]
pub struct Header {
    pub command: u8,
    pub family: u8,
    /// How many bytes follow the first 16.
    pub length: usize,
    pub from: Option<SocketAddr>,
    pub to: Option<SocketAddr>,
    pub types: BTreeMap<u8, Vec<u8>>,
}

impl Header {
    /// Reads the header and not a byte more.
    pub fn read(mut from: impl Read) -> Self {
        let mut fixed = [0; 16];
        from.read_exact(&mut fixed).unwrap();
        assert_eq!(fixed[..12], *b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(fixed[12] >> 4, 2, "the version");
        let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
        from.read_exact(&mut rest).unwrap();
        let (addresses, types) = rest.split_at(match fixed[13] {
            0 => 0,
            0x11 => 12,
            0x21 => 36,
            family => panic!("family {family}"),
        });
        let (from, to) = pair(addresses).unzip();
        let (command, family) = (fixed[12] & 15, fixed[13]);
        Self { command, family, length: rest.len(), from, to, types: read_types(types) }
    }

    pub fn text(&self, kind: u8) -> &str {
        std::str::from_utf8(&self.types[&kind]).unwrap()
    }

    /// A text inside type 0x20.
    pub fn of_ssl(&self, kind: u8) -> String {
        String::from_utf8(read_types(&self.types[&0x20][5..])[&kind].clone()).unwrap()
    }
}

fn pair(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let size = bytes.len().checked_sub(4)? / 2;
    let address = |at: usize| {
        let ip = &bytes[size * at..][..size];
        let port = &bytes[2 * size + 2 * at..];
        let port = u16::from_be_bytes([port[0], port[1]]);
        match <[u8; 4]>::try_from(ip) {
            Ok(ip) => SocketAddr::from((Ipv4Addr::from(ip), port)),
            Err(_) => SocketAddr::from((Ipv6Addr::from(<[u8; 16]>::try_from(ip).unwrap()), port)),
        }
    };
    Some((address(0), address(1)))
}

fn read_types(mut bytes: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut types = BTreeMap::new();
    while !bytes.is_empty() {
        let (value, rest) = bytes[3..].split_at(u16::from_be_bytes([bytes[1], bytes[2]]).into());
        assert!(types.insert(bytes[0], value.to_vec()).is_none(), "twice: {}", bytes[0]);
        bytes = rest;
    }
    types
}
