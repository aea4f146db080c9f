//! The receiver that is attacked, the server behind it, and what the receiver says.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use spiped::protocol::SharedKey;
use spiped_dev::process::{Process, Result, free_ports, loopback};
use spiped_dev::{key_files, keys};

/// How many connections the server has at once.
const AT_ONCE: usize = 32;

/// A running receiver and its keys.
pub struct Receiver {
    process: Process,
    log: PathBuf,
    pub address: SocketAddr,
    pub keys: Vec<SharedKey>,
}

impl Receiver {
    /// Starts `program` with a folder of this many keys.
    pub fn start(program: &Path, folder: &Path, count: usize, target: SocketAddr) -> Result<Self> {
        let key_folder = folder.join(format!("{count}.keys"));
        fs::create_dir(&key_folder)?;
        for (number, content) in key_files(count).iter().enumerate() {
            let file = key_folder.join(format!("client-{number}.key"));
            fs::write(&file, content)?;
            fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        }
        let log = folder.join(format!("{count}.log"));
        let (port, _) = free_ports()?;
        let (source, target) = (loopback(port).to_string(), target.to_string());
        let (program, key_folder) = (program.to_string_lossy(), key_folder.to_string_lossy());
        let command = [&*program, "-F", "-d", "-s", &source, "-t", &target, "-k", &key_folder];
        let mut process = Process::start(&command.map(str::to_owned), &log)?;
        process.wait_for(port)?;
        Ok(Self { process, log, address: loopback(port), keys: keys(count) })
    }

    pub fn cpu(&self) -> Result<Duration> {
        self.process.cpu()
    }

    /// Prints how many connections have ended for each reason, by the log and the number of
    /// lines that were suppressed.
    pub fn print_refusals(&self) -> Result<()> {
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        for line in fs::read_to_string(&self.log)?.lines() {
            let field = |name: &str| line.split(name).nth(1)?.split(' ').next();
            if let Some(reason) = field(" reason=") {
                let suppressed = field(" suppressed=").map_or(Ok(0), str::parse)?;
                *counts.entry(reason.to_owned()).or_default() += 1 + suppressed;
            }
        }
        let counts: Vec<_> =
            counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        println!("{} keys, log: {}", self.keys.len(), counts.join(", "));
        Ok(())
    }
}

/// A server that sends back what comes.
pub fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind(loopback(0))?;
    let address = listener.local_addr()?;
    for _ in 0..AT_ONCE {
        let listener = listener.try_clone()?;
        thread::spawn(move || while listener.accept().is_ok_and(|(stream, _)| answer(stream)) {});
    }
    Ok(address)
}

/// Returns `true`: a client that gives up reports that itself.
fn answer(mut stream: TcpStream) -> bool {
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        if stream.write_all(&byte).is_err() {
            break;
        }
    }
    true
}
