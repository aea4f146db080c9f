//! The page. It is one file, with its scripts and styles in it; a browser runs these and
//! nothing else, since the policy names them by their hashes.

use std::fmt::Write;

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};

/// The page, which reads `/status`.
pub(super) const PAGE: &str = include_str!("../../status/page.html");

/// The policy of all that is not the page: it is no document.
pub(super) const NO_DOCUMENT: &str = "default-src 'none'; frame-ancestors 'none'";

/// The policy of a page (Content-Security-Policy).
pub(super) fn policy_of(page: &str) -> String {
    let mut policy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'"
        .to_owned();
    for (directive, element) in [("script-src", "script"), ("style-src", "style")] {
        let hashes = hashes_of(page, element);
        if !hashes.is_empty() {
            // Writing to a string does not fail.
            let _written = write!(policy, "; {directive} {}", hashes.join(" "));
        }
    }
    policy
}

/// The hashes of what the elements of a page contain.
fn hashes_of(page: &str, element: &str) -> Vec<String> {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let contents = page.split(&begin).skip(1).filter_map(|rest| rest.split(&end).next());
    let hash = |content: &str| Base64::encode_string(&Sha256::digest(content));
    contents.map(|content| format!("'sha256-{}'", hash(content))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_may_run_its_own_scripts_alone() {
        let policy = policy_of("<style>p {}</style><script>alert(1)</script><script></script>");
        // echo -n 'alert(1)' | openssl dgst -sha256 -binary | base64
        let scripts = "script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI=' \
                       'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='";
        assert!(policy.contains(scripts) && policy.contains("; style-src 'sha256-"), "{policy}");
        assert!(!policy_of("<p>").contains("script-src"));
    }

    /// What the policy would keep a browser from running.
    #[test]
    fn the_page_has_no_script_or_style_that_the_policy_does_not_name() {
        for outside in ["<script ", "<style ", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
