//! Where a process takes requests that only lets its open connections end, as after a
//! restart: at an abstract unix socket, since the next process has the path after
//! `--control`. Its name tells that path, and is random besides: any user can listen at an
//! abstract name, and must not be there first.

use std::fs;
use std::io;
use std::path::{self, Path};

use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

/// A name for such a socket.
///
/// # Errors
/// When the system has no randomness.
pub(super) fn new_name(control: &Path) -> io::Result<String> {
    let random = SysRng.try_next_u64().map_err(io::Error::other)?;
    Ok(format!("{}{random:016x}", prefix(control)))
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
    fn the_names_of_a_path_begin_alike_and_cannot_be_guessed() {
        let relative = std::env::current_dir().unwrap().join("control");
        assert_eq!(prefix(Path::new("control")), prefix(&relative));
        assert_ne!(prefix(Path::new("/a")), prefix(Path::new("/b")));
        let name = || new_name(Path::new(&"/a".repeat(99))).unwrap();
        assert!(name().len() < 107 && name() != name());
    }
}
