//! A real `MariaDB` of the test's own, and its client.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};

use super::program::Program;
use super::{Folder, wait_until};

/// A `MariaDB` of the test's own, without a password for root on its unix socket.
pub struct Maria {
    _server: Program,
    socket: String,
}

impl Maria {
    /// Starts a server with this configuration, and waits until it answers.
    pub fn start(folder: &Folder, conf: &str, address: SocketAddr) -> Self {
        let (data, socket) = (folder.path("data"), folder.path("maria.socket"));
        let (data, socket) = (data.display(), socket.display().to_string());
        let user = if nix::unistd::geteuid().is_root() { "--user=root" } else { "" };
        let install = format!(
            "mariadb-install-db --no-defaults --auth-root-authentication-method=normal \
             --skip-test-db --tmpdir={} --datadir={data} {user}",
            folder.path(".").display()
        );
        let made = Command::new("sh").args(["-c", &install]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let path = folder.path("maria.cnf");
        // Two servers at once would mix up their temporary tables.
        let tmp = folder.path(".").display().to_string();
        fs::write(&path, format!("{conf}\ntmpdir={tmp}\n")).unwrap();
        let (conf, pid) = (path.display(), folder.path("maria.pid"));
        let server = Program::start(
            &format!("mariadbd --defaults-file={conf} {user} --datadir={data}"),
            &[
                &format!("--socket={socket}"),
                &format!("--port={}", address.port()),
                &format!("--pid-file={}", pid.display()),
            ],
            address,
        );
        // It listens on its port before it does on the unix socket.
        wait_until("MariaDB", || ask(&["--socket", &socket, "-u", "root"], "").status.success());
        Self { _server: server, socket }
    }

    /// Has root run statements; returns what they print.
    pub fn root(&self, statements: &str) -> String {
        let done = ask(&["--socket", &self.socket, "-u", "root"], statements);
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    }
}

/// The real client of `MariaDB`.
pub fn ask(how: &[&str], statements: &str) -> Output {
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--skip-column-names", "-B"]).args(how);
    client.args(["-e", statements]).output().unwrap()
}
