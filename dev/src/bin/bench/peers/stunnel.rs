//! stunnel, TLS 1.3, where both sides show a certificate.

use std::fs;
use std::path::Path;

use super::Side;
use crate::Result;

pub fn command(
    suite: &str,
    side: Side,
    (listen, connect): (u16, u16),
    folder: &Path,
) -> Result<Vec<String>> {
    let client = match side {
        Side::Client => "yes",
        Side::Server => "no",
    };
    let certificate = folder.join("certificate.pem");
    let text = format!(
        "foreground = yes\npid =\ndebug = warning\n\
         socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
         [pipe]\nclient = {client}\naccept = 127.0.0.1:{listen}\nconnect = 127.0.0.1:{connect}\n\
         sslVersion = TLSv1.3\nciphersuites = {suite}\n\
         cert = {0}\nCAfile = {0}\nverifyPeer = yes\n",
        certificate.display()
    );
    let path = folder.join(format!("stunnel-{suite}-{side:?}.conf"));
    fs::write(&path, text)?;
    Ok(vec!["stunnel4".into(), path.display().to_string()])
}
