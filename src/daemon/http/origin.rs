//! The page that a request comes from. A page of another site cannot read the answers, but it
//! could have a browser of this host make requests that cost something.

use hyper::Request;
use hyper::header::{HOST, HeaderMap, ORIGIN};

/// Whether a browser says that a page of another site makes the request. Such a page may still
/// have a link to this one.
pub(super) fn is_of_another_site<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|it| it == value);
    let is_link = request.uri().path() == "/" && is("sec-fetch-mode", "navigate");
    let of_others = is("sec-fetch-site", "cross-site") || is("sec-fetch-site", "same-site");
    (of_others && !is_link) || has_another_origin(headers)
}

/// Whether there is an origin, which is not the host that the request names. Behind a proxy,
/// the scheme may be another.
fn has_another_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let (_, of) = origin.to_str().ok().and_then(|it| it.split_once("://")).unwrap_or_default();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    !host.is_some_and(|host| host.eq_ignore_ascii_case(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_may_link_to_the_page_and_no_more() {
        let is_refused = |path: &str, fields: &[(&str, &str)]| {
            let mut request = Request::builder().uri(path).header(HOST, "localhost:9101");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            is_of_another_site(&request.body(()).unwrap())
        };
        for site in ["same-origin", "none"] {
            assert!(!is_refused("/status", &[("Sec-Fetch-Site", site)]), "{site}");
        }
        for site in ["cross-site", "same-site"] {
            let link = [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", "navigate")];
            assert!(is_refused("/readyz?target=1", &link[..1]), "{site}");
            assert!(is_refused("/status", &link) && !is_refused("/", &link), "{site}");
            assert!(is_refused("/", &[link[0], ("Sec-Fetch-Mode", "no-cors")]), "{site}");
        }
        assert!(!is_refused("/status", &[]));
        for own in ["http://localhost:9101", "https://LocalHost:9101"] {
            assert!(!is_refused("/status", &[("Origin", own)]), "{own}");
        }
        for other in ["http://evil.example", "http://localhost:8080", "null", ""] {
            assert!(is_refused("/status", &[("Origin", other)]), "{other}");
        }
    }
}
