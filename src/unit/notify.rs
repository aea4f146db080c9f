//! What systemd is told while we run (`sd_notify(3)`): that we are ready, what
//! we do, that we reload, that we end, and that no thread is stuck.
//!
//! A systemd that does not read is not waited for. What it must hear, such as that
//! we are ready, it is told once there is room; the rest is left out.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing of this happens. This
//! process runs no other program, so nobody inherits that variable from it.

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

/// How long systemd may take to hear why we end, in milliseconds.
const LAST_STATUS: u16 = 1000;

/// How often the status is told at most, and what was not told is tried again.
const INTERVAL: Duration = Duration::from_secs(1);

/// The watchdog of systemd, if it wants to be fed; how often.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watchdog(Option<Duration>);

/// Tells the status whenever it changes.
pub(crate) struct Notifier {
    is_on: bool,
    changed: Notify,
}

/// Tells that the start is over.
pub(crate) fn tell_ready() {
    tell(&[Ready], Else::Later);
}

/// Tells one line of what we do, or of why we do not.
pub(crate) fn tell_status(status: &str) {
    // A second line would be another message: a path can have one.
    tell(&[Status(&status.replace('\n', " "))], Else::Never);
}

/// Tells why we end, and waits until systemd has heard it: of a process that is gone, it
/// does not know in which unit it was.
pub(crate) fn tell_last_status(status: &str) {
    tell_status(status);
    if OUTBOX.is_none() {
        return;
    }
    if let Ok((heard, barrier)) = pipe() {
        tell_with("BARRIER=1\n".to_owned(), vec![barrier]);
        let mut heard = [PollFd::new(heard.as_fd(), PollFlags::POLLIN)];
        // It is in the log as well.
        let _unheard = poll(&mut heard, LAST_STATUS);
    }
}

/// Tells what keeps us from being ready, and that the start may take that much longer.
pub(crate) fn tell_waiting(status: &str, limit: Duration) {
    let limit = format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros());
    tell(&[Status(&status.replace('\n', " ")), Custom(&limit)], Else::Later);
}

/// Tells that we reload for as long as `reload` takes.
pub(crate) async fn reloading<T>(reload: impl Future<Output = T>) -> T {
    // Newer versions of systemd want to know when it began.
    match NotifyState::monotonic_usec_now() {
        Ok(now @ MonotonicUsec(_)) => tell(&[Reloading, now], Else::Never),
        _ => tell(&[Reloading], Else::Never),
    }
    let result = reload.await;
    tell(&[Ready], Else::Later);
    result
}

/// Tells that we end, and that it may take that long.
pub(crate) fn tell_stopping(status: &str, limit: Duration) {
    let limit = format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros());
    tell(&[Stopping, Status(status), Custom(&limit)], Else::Later);
}

/// When to tell what systemd has no room for now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Else {
    /// Once it has: it would wait for it.
    Later,
    /// The next one of its kind says all that matters.
    Never,
}

fn tell(states: &[NotifyState<'_>], or_else: Else) {
    let mut text = String::new();
    for state in states {
        // Writing to a string does not fail.
        let _written = writeln!(text, "{state}");
    }
    send(Message { text, descriptors: vec![] }, or_else);
}

/// Hands systemd descriptors, with what it is to do with them.
pub(crate) fn tell_with(text: String, descriptors: Vec<OwnedFd>) {
    send(Message { text, descriptors }, Else::Later);
}

/// From now on nothing is told: another process is the one to do it.
pub(crate) fn fall_silent() {
    IS_SILENT.store(true, Ordering::Relaxed);
}

static IS_SILENT: AtomicBool = AtomicBool::new(false);

fn send(message: Message, or_else: Else) {
    if let Some(outbox) = &*OUTBOX
        && !IS_SILENT.load(Ordering::Relaxed)
    {
        warn_of(outbox.tell(message, or_else));
    }
}

/// Says so once: what is wrong then is wrong for each message.
fn warn_of(told: io::Result<()>) {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    if let Err(error) = told
        && !IS_SAID.swap(true, Ordering::Relaxed)
    {
        warn!(hint = "is NOTIFY_SOCKET meant for this process?", "cannot notify systemd: {error}");
    }
}

/// The way to systemd; none if nobody is to be told.
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
    /// What there was no room for, and has to be told.
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

    fn tell(&self, message: Message, or_else: Else) -> io::Result<()> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        self.send_late(&mut late)?;
        if late.is_empty() && self.send(&message)? {
            return Ok(());
        }
        let is_told_already = message.descriptors.is_empty()
            && late.back().is_some_and(|last| last.text == message.text);
        if or_else == Else::Later && !is_told_already {
            late.push_back(message);
            self.is_late.notify_one();
        }
        Ok(())
    }

    /// Tells what is late, as far as there is room; the rest stays.
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

    /// Whether there was room for it.
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

/// Tells what systemd had no room for, once it has.
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

    /// The status is another one now.
    pub(crate) fn changed(&self) {
        if self.is_on {
            self.changed.notify_one();
        }
    }

    /// Tells the status now and when it has changed, at most once a second.
    /// As long as nothing changes, nothing wakes us.
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
    /// That of this process. To be called before
    /// [`crate::process::background::detach`]: it is meant for this process id.
    #[must_use]
    pub(crate) fn from_env() -> Self {
        // Four times as often as it has to be, so that a busy system has time.
        let interval = sd_notify::watchdog_enabled().and_then(|limit| limit.checked_div(4));
        Self(interval.filter(|interval| !interval.is_zero()))
    }

    /// Feeds it for as long as `all_answer` ends: a thread that is stuck keeps that from
    /// ending, and systemd then ends us.
    pub(crate) async fn feed(self, all_answer: impl AsyncFn()) -> Infallible {
        let Some(interval) = self.0 else { return pending().await };
        loop {
            all_answer().await;
            tell(&[Alive], Else::Never);
            sleep(interval).await;
        }
    }
}
