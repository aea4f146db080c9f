//! haproxy as a relay: plaintext, or TLS 1.3 where both sides show a certificate.

use std::fs;
use std::path::Path;

use super::{Side, Tls};
use crate::Result;

pub fn command(
    tls: Tls,
    side: Side,
    (listen, connect): (u16, u16),
    folder: &Path,
) -> Result<Vec<String>> {
    let certificate = folder.join("certificate.pem");
    let certificate = certificate.display();
    let only = "ssl-min-ver TLSv1.3 ciphersuites TLS_AES_256_GCM_SHA384";
    let (source, target) = match (tls, side) {
        (Tls::Off, _) => (String::new(), String::new()),
        (Tls::Mutual, Side::Client) => (
            String::new(),
            format!("ssl {only} verify required ca-file {certificate} crt {certificate}"),
        ),
        (Tls::Mutual, Side::Server) => (
            format!("ssl {only} verify required ca-file {certificate} crt {certificate}"),
            String::new(),
        ),
    };
    let text = format!(
        "global\n maxconn 5000\n\
         defaults\n mode tcp\n timeout connect 10s\n timeout client 1h\n timeout server 1h\n\
         listen pipe\n bind 127.0.0.1:{listen} backlog 4096 {source}\n \
         server target 127.0.0.1:{connect} {target}\n"
    );
    let path = folder.join(format!("haproxy-{tls:?}-{side:?}.cfg"));
    fs::write(&path, text)?;
    Ok(["haproxy", "-db", "-f"]
        .map(str::to_owned)
        .into_iter()
        .chain([path.display().to_string()])
        .collect())
}
