//! A process that is measured: started, watched, and ended by its id.

use std::error::Error;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::ClockId;
use nix::unistd::Pid;

/// Whatever ends a measurement.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How long nothing may happen before a process is given up.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A running process, which ends when this is dropped, and when this program is killed.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the process; its output goes to `log`.
    pub fn start(command: &[String], log: &Path) -> Result<Self> {
        let output = File::create(log)?;
        // The system ends the process when this program is gone, for whatever reason.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until the process, or a child of it, listens on this port. Asks the system,
    /// because a connection would go through to the target.
    pub fn wait_for(&mut self, port: u16) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !listens(port)? {
            if self.child.try_wait()?.is_some() || Instant::now() > end {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(3).collect();
                return Err(format!("it does not start: {}", last.join(" | ")).into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The processor time that the process and its living children have used so far.
    pub fn cpu(&self) -> Result<Duration> {
        let mut used = Duration::ZERO;
        for pid in self.family() {
            match ClockId::pid_cpu_clock_id(pid).and_then(ClockId::now) {
                Ok(time) => used += time.into(),
                // A child may have ended since then.
                Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(used)
    }

    /// KiB of memory: the process's own, and its share of shared memory.
    pub fn memory(&self) -> Result<f64> {
        let mut sum = 0.0;
        for pid in self.family() {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no Pss")?;
            sum += kib.parse::<f64>()?;
        }
        Ok(sum)
    }

    /// The process and all its children; sshd, for example, has one for each client.
    fn family(&self) -> Vec<Pid> {
        let mut family = vec![self.child.id()];
        let mut asked = 0;
        while let Some(&pid) = family.get(asked) {
            asked += 1;
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for task in tasks {
                let children = fs::read_to_string(task.path().join("children"));
                family.extend(children.unwrap_or_default().split(' ').flat_map(str::parse::<u32>));
            }
        }
        family.into_iter().filter_map(|pid| pid.try_into().ok()).map(Pid::from_raw).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The address of this port on loopback.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Two ports of loopback on which nothing listens.
pub fn free_ports() -> Result<(u16, u16)> {
    let (one, other) = (TcpListener::bind(loopback(0))?, TcpListener::bind(loopback(0))?);
    Ok((one.local_addr()?.port(), other.local_addr()?.port()))
}

/// Whether a listener has this port on 127.0.0.1, or on all addresses.
fn listens(port: u16) -> Result<bool> {
    let (here, anywhere) = (format!("0100007F:{port:04X}"), format!("00000000:{port:04X}"));
    let sockets = fs::read_to_string("/proc/net/tcp")?;
    Ok(sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        (local == here || local == anywhere) && fields.nth(1) == Some("0A")
    }))
}

/// Raises the descriptors of this process and its children to the limit; returns the
/// number.
pub fn raise_limit() -> Result<usize> {
    let wanted = 65_536;
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Only root may raise the hard limit, and not everywhere.
    if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted.try_into()?);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(wanted), hard)?;
    Ok(hard.min(wanted).try_into()?)
}
