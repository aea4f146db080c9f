//! Notifications to systemd (`sd_notify(3)`): the process is ready, its status, it reloads,
//! it stops, no thread is stuck.
//!
//! A systemd that does not read is not waited for. Messages that it must get, such as that
//! the process is ready, are sent once there is room; others are dropped.
//!
//! Without `NOTIFY_SOCKET` in the environment, nothing is sent. This process runs no other
//! program that could inherit the variable.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fmt::Write;
use std::future::pending;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::unistd::pipe;
use sd_notify::NotifyState;
use sd_notify::NotifyState::{
    Custom, MonotonicUsec, Ready, Reloading, Status, Stopping, Watchdog as Alive,
};
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::warn;

/// How long systemd may take to read the last status, in milliseconds.
const LAST_STATUS: u16 = 1000;

/// The shortest interval between two statuses, and between two tries to send late messages.
const INTERVAL: Duration = Duration::from_secs(1);

/// The interval at which systemd's watchdog is fed, if it is on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watchdog(Option<Duration>);

/// Sends the status whenever it changes.
pub(crate) struct Notifier {
    is_on: bool,
    changed: Notify,
}

/// Tells systemd that the process is ready.
pub(crate) fn tell_ready() {
    tell(&[Ready], IfFull::SendLater);
}

/// Tells systemd the status, as one line.
pub(crate) fn tell_status(status: &str) {
    // A path may have an end of line, behind which another message would begin.
    tell(&[Status(&status.replace('\n', " "))], IfFull::Drop);
}

/// Tells systemd why the process ends, and waits until systemd has read it: systemd cannot
/// tell the unit of a process that is gone.
pub(crate) fn tell_last_status(status: &str) {
    tell_status(status);
    if OUTBOX.is_none() {
        return;
    }
    if let Ok((closed, barrier)) = pipe() {
        tell_with("BARRIER=1\n".to_owned(), vec![barrier]);
        let mut closed = [PollFd::new(closed.as_fd(), PollFlags::POLLIN)];
        // If systemd does not read it in time, the log has the reason as well.
        let _too_late = poll(&mut closed, LAST_STATUS);
    }
}

/// Tells systemd what the start waits for, and that it may take `limit` longer.
pub(crate) fn tell_waiting(status: &str, limit: Duration) {
    let limit = format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros());
    tell(&[Status(&status.replace('\n', " ")), Custom(&limit)], IfFull::SendLater);
}

/// Tells systemd that the process reloads, for as long as `reload` takes.
pub(crate) async fn reloading<T>(reload: impl Future<Output = T>) -> T {
    // Newer versions of systemd want to know when it began.
    match NotifyState::monotonic_usec_now() {
        Ok(now @ MonotonicUsec(_)) => tell(&[Reloading, now], IfFull::Drop),
        _ => tell(&[Reloading], IfFull::Drop),
    }
    let result = reload.await;
    tell(&[Ready], IfFull::SendLater);
    result
}

/// Tells systemd that the process stops, which may take `limit`.
pub(crate) fn tell_stopping(status: &str, limit: Duration) {
    let limit = format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros());
    tell(&[Stopping, Status(status), Custom(&limit)], IfFull::SendLater);
}

/// What becomes of a message that systemd has no room for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfFull {
    /// It is sent once there is room, since systemd waits for it.
    SendLater,
    /// It is dropped, since the next message of its kind replaces it.
    Drop,
}

fn tell(states: &[NotifyState<'_>], if_full: IfFull) {
    let mut text = String::new();
    for state in states {
        // Writing to a string does not fail.
        let _written = writeln!(text, "{state}");
    }
    send(Message { text, descriptors: vec![] }, if_full);
}

/// Sends systemd a message with descriptors.
pub(crate) fn tell_with(text: String, descriptors: Vec<OwnedFd>) {
    send(Message { text, descriptors }, IfFull::SendLater);
}

/// Sends nothing from now on, since another process of the unit does.
pub(crate) fn fall_silent() {
    IS_SILENT.store(true, Ordering::Relaxed);
}

static IS_SILENT: AtomicBool = AtomicBool::new(false);

fn send(message: Message, if_full: IfFull) {
    if let Some(outbox) = &*OUTBOX
        && !IS_SILENT.load(Ordering::Relaxed)
    {
        warn_of(outbox.tell(message, if_full));
    }
}

/// Logs an error once, since it would come for each message.
fn warn_of(told: io::Result<()>) {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    if let Err(error) = told
        && !IS_SAID.swap(true, Ordering::Relaxed)
    {
        warn!(hint = "is NOTIFY_SOCKET meant for this process?", "cannot notify systemd: {error}");
    }
}

/// The way to systemd, if there is one.
static OUTBOX: LazyLock<Option<Outbox>> = LazyLock::new(|| {
    let path = std::env::var_os("NOTIFY_SOCKET")?;
    match Outbox::to(&path) {
        Ok(outbox) => Some(outbox),
        Err(error) => {
            warn_of(Err(error));
            None
        }
    }
});

struct Outbox {
    to: UnixAddr,
    socket: UnixDatagram,
    /// Messages that there was no room for, and that must be sent.
    late: Mutex<VecDeque<Message>>,
    is_late: Notify,
}

struct Message {
    text: String,
    descriptors: Vec<OwnedFd>,
}

impl Outbox {
    fn to(path: &OsStr) -> io::Result<Self> {
        let to = match path.as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
            _ => UnixAddr::new(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { to, socket, late: Mutex::default(), is_late: Notify::new() })
    }

    fn tell(&self, message: Message, if_full: IfFull) -> io::Result<()> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        self.send_late(&mut late)?;
        if late.is_empty() && self.send(&message)? {
            return Ok(());
        }
        let is_told_already = message.descriptors.is_empty()
            && late.back().is_some_and(|last| last.text == message.text);
        if if_full == IfFull::SendLater && !is_told_already {
            late.push_back(message);
            self.is_late.notify_one();
        }
        Ok(())
    }

    /// Sends late messages, as far as there is room.
    fn send_late(&self, late: &mut VecDeque<Message>) -> io::Result<()> {
        while let Some(message) = late.front() {
            match self.send(message) {
                Ok(false) => return Ok(()),
                Ok(true) => drop(late.pop_front()),
                Err(error) => {
                    late.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Sends a message. Returns whether there was room for it.
    fn send(&self, message: &Message) -> io::Result<bool> {
        let text = [IoSlice::new(message.text.as_bytes())];
        let numbers: Vec<_> = message.descriptors.iter().map(OwnedFd::as_raw_fd).collect();
        let descriptors = [ControlMessage::ScmRights(&numbers)];
        let descriptors = if numbers.is_empty() { &[][..] } else { &descriptors };
        let (socket, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        match sendmsg(socket, &text, descriptors, flags, Some(&self.to)) {
            Ok(_whole) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Sends late messages once there is room; for ever.
pub(crate) async fn keep_telling_late() -> Infallible {
    let Some(outbox) = &*OUTBOX else { return pending().await };
    loop {
        outbox.is_late.notified().await;
        loop {
            sleep(INTERVAL).await;
            let mut late = outbox.late.lock().unwrap_or_else(PoisonError::into_inner);
            warn_of(outbox.send_late(&mut late));
            if late.is_empty() {
                break;
            }
        }
    }
}

impl Notifier {
    pub(crate) fn from_env() -> Self {
        let is_on = std::env::var_os("NOTIFY_SOCKET").is_some();
        Self { is_on, changed: Notify::new() }
    }

    /// Marks the status as changed.
    pub(crate) fn changed(&self) {
        if self.is_on {
            self.changed.notify_one();
        }
    }

    /// Tells systemd the status, now and whenever it changes, at most once a second. Wakes
    /// only when it changes.
    pub(crate) async fn keep_telling(&self, status: impl Fn() -> String) -> Infallible {
        if !self.is_on {
            return pending().await;
        }
        loop {
            tell_status(&status());
            sleep(INTERVAL).await;
            self.changed.notified().await;
        }
    }
}

impl Watchdog {
    /// The watchdog of this process. To be called before
    /// [`crate::process::background::detach`], since the variables name this process id.
    #[must_use]
    pub(crate) fn from_env() -> Self {
        // Four times as often as needed, so that a busy system has time.
        let interval = sd_notify::watchdog_enabled().and_then(|limit| limit.checked_div(4));
        Self(interval.filter(|interval| !interval.is_zero()))
    }

    /// Feeds the watchdog each time `all_answer` has returned. While a thread is stuck it
    /// does not return, and systemd ends the process.
    pub(crate) async fn feed(self, all_answer: impl AsyncFn()) -> Infallible {
        let Some(interval) = self.0 else { return pending().await };
        loop {
            all_answer().await;
            tell(&[Alive], IfFull::Drop);
            sleep(interval).await;
        }
    }
}
