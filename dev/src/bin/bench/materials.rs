//! The files and servers that the peers need: keys, certificates, and a redis-server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;
use crate::process::{Process, free_ports, loopback};

/// Makes keys and certificates in this folder, as far as their tools are installed.
pub fn make(folder: &Path, spiped: Option<&Path>) -> Result<()> {
    let key = folder.join("spiped.key");
    match spiped {
        Some(spiped) => run(Command::new(spiped).arg("keygen").arg(&key))?,
        None => fs::write(&key, b"of no use to anybody but a run of this")?,
    }
    for key in ["ssh-host", "ssh-user"] {
        let options = ["-q", "-t", "ed25519", "-N", "", "-f"];
        run(Command::new("ssh-keygen").args(options).arg(folder.join(key)))?;
    }
    certificate(folder)
}

/// One certificate for both sides, which each side trusts, of the fastest kind.
fn certificate(folder: &Path) -> Result<()> {
    let (key, certificate) = (folder.join("tls.key"), folder.join("tls.crt"));
    let options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
                   -subj /CN=spiped-bench -addext subjectAltName=IP:127.0.0.1";
    run(Command::new("openssl")
        .args(options.split_whitespace())
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate))?;
    let both = [fs::read(certificate)?, fs::read(key)?].concat();
    Ok(fs::write(folder.join("certificate.pem"), both)?)
}

/// A redis-server that saves nothing.
pub fn redis(folder: &Path) -> Result<(SocketAddr, Process)> {
    let (port, _other) = free_ports()?;
    let command = format!(
        "redis-server --bind 127.0.0.1 --port {port} --appendonly no --tcp-backlog 4096 --dir {} --save",
        folder.display()
    );
    let command: Vec<String> =
        command.split(' ').map(str::to_owned).chain([String::new()]).collect();
    let mut server = Process::start(&command, &folder.join("redis.log"))?;
    server.wait_for(port).map_err(|error| format!("redis-server: {error}"))?;
    Ok((loopback(port), server))
}

/// Runs the command until it ends.
fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
