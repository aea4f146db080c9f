//! A secret that is typed or pasted at a terminal, and not shown there.

use std::io::{self, Write};
use std::os::fd::AsFd;

use base64ct::{Base64, Encoding};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::read;

use crate::memory::SecretBytes;

/// What ends this process, or stops it, from a keyboard or by a command.
const SIGNALS: [Signal; 5] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP];

/// The length of the lines of base64(1), but the last.
const BASE64_LINE: usize = 76;

/// Asks at the terminal that is standard input, on standard error, for up to about
/// `max` bytes as base64(1) prints them; what they are, or nothing.
///
/// # Errors
/// When it is no terminal, cannot be read, or the answer is no base64: then it is
/// [`io::ErrorKind::InvalidData`].
pub fn paste_base64(prompt: &str, max: usize) -> io::Result<SecretBytes> {
    // 4 for 3, and the ends of the lines.
    let room = max.saturating_mul(3) / 2;
    let mut text = SecretBytes::zeroed(room)?;
    let length = read_unseen(prompt, &mut text)?;
    let length = without_whitespace(&mut text, length);
    text.truncate(length);
    let mut content = SecretBytes::zeroed(room)?;
    let decoded = Base64::decode(&*text, &mut content);
    let length = decoded.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?.len();
    content.truncate(length);
    Ok(content)
}

/// Reads until the last of the lines; how many bytes came.
fn read_unseen(prompt: &str, into: &mut [u8]) -> io::Result<usize> {
    let hidden = Hidden::begin()?;
    write!(io::stderr(), "{prompt}")?;
    let mut got = 0_usize;
    while let Some(room) = into.get_mut(got..).filter(|room| !room.is_empty()) {
        hidden.wait()?;
        match read(io::stdin(), room) {
            Ok(0) => break,
            Ok(count) => got = got.saturating_add(count),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if is_whole(into.get(..got).unwrap_or_default()) {
            break;
        }
    }
    writeln!(io::stderr())?;
    Ok(got)
}

/// Whether no further line follows: all but the last are full.
fn is_whole(text: &[u8]) -> bool {
    let Some(lines) = text.strip_suffix(b"\n") else { return false };
    lines.split(|byte| *byte == b'\n').next_back().is_some_and(|line| line.len() != BASE64_LINE)
}

/// Moves what is none to the beginning; how much that is.
fn without_whitespace(text: &mut [u8], length: usize) -> usize {
    let mut kept = 0_usize;
    for index in 0..length {
        if text.get(index).is_some_and(|byte| !byte.is_ascii_whitespace()) {
            text.swap(kept, index);
            kept = kept.saturating_add(1);
        }
    }
    kept
}

/// While it lives, the terminal shows nothing of what is typed; however it ends,
/// by a signal too, it is as it was.
struct Hidden {
    before: Termios,
    held_back: SigSet,
    signals: SignalFd,
}

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let held_back = SigSet::from_iter(SIGNALS);
        held_back.thread_block()?;
        let signals = SignalFd::with_flags(&held_back, SfdFlags::SFD_CLOEXEC)?;
        let hidden = Self { before, held_back, signals };
        hidden.hide()?;
        Ok(hidden)
    }

    fn hide(&self) -> io::Result<()> {
        let mut hidden = self.before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        set(&hidden)
    }

    /// Waits for input. A signal does what it always does, but meanwhile the terminal
    /// is as it was.
    fn wait(&self) -> io::Result<()> {
        loop {
            let stdin = io::stdin();
            let mut both =
                [stdin.as_fd(), self.signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut both, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [input, signal] = both.map(|fd| fd.any().unwrap_or_default());
            if signal {
                set(&self.before)?;
                self.held_back.thread_unblock()?;
                // Not ended by it, or going on after a stop.
                self.held_back.thread_block()?;
                self.hide()?;
            } else if input {
                return Ok(());
            }
        }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Where the terminal is gone, there is nothing to be shown again.
        let _gone = set(&self.before);
        let _was_blocked = self.held_back.thread_unblock();
    }
}

/// What was typed ahead is kept: it may be the secret.
fn set(termios: &Termios) -> io::Result<()> {
    Ok(tcsetattr(io::stdin(), SetArg::TCSADRAIN, termios)?)
}
