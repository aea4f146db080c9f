//! Where a process takes requests that only lets its open connections end, as after a
//! restart: at an abstract unix socket, since the next process has the path after
//! `--control`. Its name tells that path and the process.

use std::fs;
use std::path::{self, Path};

use sha2::{Digest, Sha256};

/// The name of the socket of the process `pid`.
pub(super) fn name(control: &Path, pid: u32) -> String {
    format!("{}{pid}", prefix(control))
}

/// The names of all such sockets on this host.
pub(super) fn all(control: &Path) -> Vec<String> {
    let prefix = prefix(control);
    // Where there is no /proc, nothing can be found.
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names = sockets.lines().filter_map(|line| line.rsplit_once(" @")).map(|(_, name)| name);
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with(&prefix)).map(str::to_owned).collect();
    // An accepted connection has the name of its listener.
    names.sort_unstable();
    names.dedup();
    names
}

/// A path may be too long for a name.
fn prefix(control: &Path) -> String {
    let path = path::absolute(control).unwrap_or_else(|_| control.to_path_buf());
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let short = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    format!("spiped.draining.{}.", short.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_name_and_another_path_has_another() {
        let relative = std::env::current_dir().unwrap().join("control");
        assert_eq!(name(Path::new("control"), 7), name(&relative, 7));
        assert_ne!(name(Path::new("/a"), 7), name(Path::new("/b"), 7));
        assert!(name(Path::new(&"/a".repeat(99)), u32::MAX).len() < 107);
    }
}
