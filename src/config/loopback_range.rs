//! `--bind-per-key`: a range of loopback addresses, of which each key has one.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::key_name::KeyName;
use super::value::ValueError;

/// A part of 127.0.0.0/8 without 127.0.0.1, which all programs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopbackRange {
    base: Ipv4Addr,
    bits: u32,
}

impl LoopbackRange {
    /// The address of a key, which depends on the key's name and on nothing else:
    ///
    /// ```text
    /// first address of the range + 1 + SHA-256(name)[4], big endian, mod (size of the range - 2)
    /// ```
    ///
    /// A key that is to follow another one, such as alice.new, has the address of that one.
    pub(crate) fn address_of(self, name: &KeyName) -> Ipv4Addr {
        let digest = Sha256::digest(name.without_new().as_bytes());
        let [a, b, c, d, ..] = digest[..] else { unreachable!("a digest has 32 bytes") };
        let number = u32::from_be_bytes([a, b, c, d]) % (self.size() - 2);
        Ipv4Addr::from_bits(self.base.to_bits() + 1 + number)
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        let first = self.base.to_bits();
        (first..first + self.size()).contains(&address.to_bits())
    }

    fn size(self) -> u32 {
        1 << (32 - self.bits)
    }
}

impl FromStr for LoopbackRange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let not = |why: &str| {
            let reason = format!("'{text}' {why}");
            Err(ValueError::new(reason, "write a part of 127.0.0.0/8, such as 127.64.0.0/10"))
        };
        let parts = text.split_once('/');
        let Some((Ok(base), Ok(bits))) = parts.map(|(base, bits)| (base.parse(), bits.parse()))
        else {
            return not("is no range of addresses");
        };
        let range = Self { base, bits };
        if !(9..=30).contains(&bits) || !base.is_loopback() {
            return not("is not within 127.0.0.0/8, from /9 to /30");
        }
        if base.to_bits() % range.size() != 0 {
            return not("does not begin where a range of that size can");
        }
        if range.contains(Ipv4Addr::LOCALHOST) {
            return not("has 127.0.0.1 in it, which other programs connect from");
        }
        Ok(range)
    }
}

impl fmt::Display for LoopbackRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_address_inside_the_range() {
        let range: LoopbackRange = "127.64.0.0/10".parse().unwrap();
        let of = |name: &str| range.address_of(&name.parse().unwrap()).to_string();
        // Published: accounts of databases depend on it.
        assert_eq!((&*of("alice"), &*of("bob")), ("127.88.8.40", "127.118.59.229"));
        assert_eq!(of("alice.new"), of("alice"));
        let small: LoopbackRange = "127.9.9.4/30".parse().unwrap();
        for number in 0..100 {
            let address = small.address_of(&format!("k{number}").parse().unwrap());
            assert!([5, 6].contains(&address.octets()[3]) && small.contains(address));
        }
        assert!(!small.contains("127.9.9.8".parse().unwrap()));
    }

    #[test]
    fn what_is_no_range_of_its_own_is_refused() {
        assert_eq!("127.128.0.0/9".parse::<LoopbackRange>().unwrap().to_string(), "127.128.0.0/9");
        for wrong in [
            "",
            "127.64.0.0",
            "127.0.0.0/8",
            "127.0.0.0/9",
            "127.64.0.1/10",
            "10.0.0.0/10",
            "127.64.0.0/31",
            "::1/64",
            "127.64.0.0/-1",
            "127.64.0.0/10/10",
        ] {
            assert!(wrong.parse::<LoopbackRange>().is_err(), "{wrong}");
        }
    }
}
