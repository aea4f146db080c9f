//! The host that a request names. A page from elsewhere can have a browser ask an address that
//! the browser reaches, by a name of its own that leads there (DNS rebinding), and would read
//! the answer: so no such name is served. An address is no such name.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::{Request, Version};
use nix::unistd::gethostname;

/// Where a request has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// An address of loopback, which a browser of this host reaches.
    Loopback,
    /// An address that the operator has exposed, which browsers of other hosts reach.
    Exposed,
    /// A unix socket, which no browser reaches.
    Unix,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostError {
    /// HTTP/1.1 wants one, which is a host and perhaps a port.
    NotOne,
    /// It is a name for which nothing is served here.
    Another,
}

/// Checks the host that a request names.
pub(super) fn check<B>(request: &Request<B>, arrival: Arrival) -> Result<(), HostError> {
    let mut fields = request.headers().get_all(HOST).iter();
    let named = match (fields.next(), fields.next()) {
        (Some(one), None) => {
            let host = Authority::try_from(one.as_bytes());
            // An address has no user.
            let host = host.ok().filter(|host| !host.as_str().contains('@'));
            Some(host.ok_or(HostError::NotOne)?)
        }
        (None, _) if request.version() < Version::HTTP_11 => None,
        (None | Some(_), _) => return Err(HostError::NotOne),
    };
    let in_target = request.uri().authority();
    let all_are = |is_served: fn(&Authority) -> bool| named.iter().chain(in_target).all(is_served);
    let is_served = match arrival {
        Arrival::Loopback => all_are(is_of_loopback),
        Arrival::Exposed => all_are(is_address_or_own),
        Arrival::Unix => true,
    };
    if is_served { Ok(()) } else { Err(HostError::Another) }
}

/// Whether it is an address, or a name of this host: localhost, or what `hostname` prints, with
/// its domain or without.
fn is_address_or_own(host: &Authority) -> bool {
    let name = host.host();
    let six = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    name.parse::<Ipv4Addr>().is_ok()
        || six.is_some_and(|six| six.parse::<Ipv6Addr>().is_ok())
        || is_of_loopback(host)
        || gethostname().is_ok_and(|own| own.to_str().is_some_and(|own| is_name_of(own, name)))
}

fn is_name_of(own: &str, name: &str) -> bool {
    let short = own.split('.').next().unwrap_or(own);
    !short.is_empty() && [own, short].iter().any(|own| own.eq_ignore_ascii_case(name))
}

fn is_of_loopback(host: &Authority) -> bool {
    let host = host.host();
    let six = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|four: Ipv4Addr| four.is_loopback())
        || six.and_then(|six| six.parse().ok()).is_some_and(|six: Ipv6Addr| {
            six.is_loopback() || six.to_ipv4_mapped().is_some_and(|four| four.is_loopback())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of evil.example, which leads to the exposed address.
    #[test]
    fn an_exposed_address_is_served_by_its_number_and_by_the_name_of_this_host() {
        let at = |host: &str, arrival| {
            let request = Request::builder().header(HOST, host).body(()).unwrap();
            check(&request, arrival)
        };
        let own = gethostname().unwrap().into_string().unwrap();
        for host in ["192.0.2.1:9101", "[2001:db8::1]:9101", "127.0.0.1", "localhost:9101", &own] {
            assert_eq!(at(host, Arrival::Exposed), Ok(()), "{host}");
        }
        for host in ["evil.example:9101", "192.0.2.1.evil.example"] {
            assert_eq!(at(host, Arrival::Exposed), Err(HostError::Another), "{host}");
            assert_eq!(at(host, Arrival::Unix), Ok(()), "{host}");
        }
        for name in ["db1", "DB1", "db1.example.com"] {
            assert!(is_name_of("db1.example.com", name), "{name}");
        }
        for name in ["db1.evil.example", "example.com", ""] {
            assert!(!is_name_of("db1.example.com", name) && !is_name_of("", name), "{name}");
        }
    }

    fn checked(hosts: &[&str], target: &str, version: Version) -> Result<(), HostError> {
        let mut request = Request::builder().uri(target).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        check(&request.body(()).unwrap(), Arrival::Loopback)
    }

    #[test]
    fn names_of_loopback_are_served_and_no_others() {
        let one = |host: &str| checked(&[host], "/", Version::HTTP_11);
        for host in ["localhost", "LocalHost:9101", "127.0.0.1:9101", "127.9.8.7", "[::1]:1"] {
            assert_eq!(one(host), Ok(()), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:9101", "192.0.2.1", "127.1", "[::2]"] {
            assert_eq!(one(host), Err(HostError::Another), "{host}");
        }
        for host in ["", "a b", "user@localhost", "localhost/"] {
            assert_eq!(one(host), Err(HostError::NotOne), "{host}");
        }
    }

    #[test]
    fn a_request_has_one_host() {
        assert_eq!(checked(&[], "/", Version::HTTP_11), Err(HostError::NotOne));
        assert_eq!(checked(&[], "/", Version::HTTP_10), Ok(()));
        let two = ["localhost", "localhost"];
        assert_eq!(checked(&two, "/", Version::HTTP_11), Err(HostError::NotOne));
        let other = "http://evil.example/";
        assert_eq!(checked(&["localhost"], other, Version::HTTP_11), Err(HostError::Another));
        assert_eq!(checked(&[], other, Version::HTTP_10), Err(HostError::Another));
    }
}
