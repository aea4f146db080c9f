//! Reading a secret from a terminal, which does not show it.

use std::io::{self, Write};
use std::os::fd::AsFd;

use base64ct::{Base64, Encoding};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::read;

use crate::keys::memory::SecretBytes;

/// Signals that end or stop this process, from a keyboard or by a command.
const SIGNALS: [Signal; 5] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP];

/// Asks, on standard error, for up to about `max` bytes in the form of base64(1), and reads
/// them from the terminal that is standard input. The result may be empty.
///
/// # Errors
/// When standard input is not a terminal or cannot be read. When the text is not base64,
/// the error is [`io::ErrorKind::InvalidData`].
pub(crate) fn paste_base64(prompt: &str, max: usize) -> io::Result<SecretBytes> {
    // Base64 has 4 bytes for 3, and ends of lines.
    let room = max.saturating_mul(3) / 2;
    let mut text = SecretBytes::zeroed(room)?;
    let length = read_unseen(prompt, &mut text)?;
    text.truncate(length);
    decode_base64(text)
}

/// What base64(1) has printed, in lines of whatever length.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is no base64.
pub(crate) fn decode_base64(mut text: SecretBytes) -> io::Result<SecretBytes> {
    let length = without_whitespace(&mut text);
    text.truncate(length);
    let mut content = SecretBytes::zeroed(length)?;
    let decoded = Base64::decode(&*text, &mut content);
    let length = decoded.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?.len();
    content.truncate(length);
    Ok(content)
}

/// Reads lines until the text is complete, or the input ends. Returns how many bytes came.
fn read_unseen(prompt: &str, into: &mut [u8]) -> io::Result<usize> {
    let hidden = Hidden::begin()?;
    write!(io::stderr(), "{prompt}")?;
    let mut got = 0;
    while let Some(room) = into.get_mut(got..).filter(|room| !room.is_empty()) {
        hidden.wait()?;
        match read(io::stdin(), room) {
            Ok(0) => break,
            Ok(count) => got = got.saturating_add(count),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if into.get(..got).is_some_and(is_complete) {
            break;
        }
    }
    writeln!(io::stderr())?;
    Ok(got)
}

/// Whether a text in lines is at its end: an empty line, or one that ends with padding,
/// which base64 has only there. A pause says nothing, since a terminal may be slow.
fn is_complete(text: &[u8]) -> bool {
    let last =
        text.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|byte| *byte == b'\n').next());
    let last = last.map(<[u8]>::trim_ascii_end);
    last.is_some_and(|line| line.is_empty() || line.ends_with(b"="))
}

/// Removes whitespace, in place. Returns the remaining length.
fn without_whitespace(text: &mut [u8]) -> usize {
    let mut kept = 0_usize;
    for index in 0..text.len() {
        if text.get(index).is_some_and(|byte| !byte.is_ascii_whitespace()) {
            text.swap(kept, index);
            kept = kept.saturating_add(1);
        }
    }
    kept
}

/// Guard: the terminal shows nothing of what is typed until dropped. The terminal is
/// restored at a signal, too.
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
        let signals =
            SignalFd::with_flags(&held_back, SfdFlags::SFD_CLOEXEC).inspect_err(|_| {
                let _was_blocked = held_back.thread_unblock();
            })?;
        let hidden = Self { before, held_back, signals };
        hidden.hide()?;
        Ok(hidden)
    }

    /// Hides what is typed. Keeps what was typed ahead, since it may be the secret.
    fn hide(&self) -> io::Result<()> {
        let mut hidden = self.before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        set(SetArg::TCSADRAIN, &hidden)
    }

    /// Waits for input. A signal has its usual effect, and the terminal is restored
    /// meanwhile.
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
                set(SetArg::TCSADRAIN, &self.before)?;
                self.held_back.thread_unblock()?;
                // The signal did not end the process, or the process goes on after a stop.
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
        // Fails where the terminal is gone. Late input is discarded: it may be a part of the
        // secret, and must not reach the shell.
        let _gone = set(SetArg::TCSAFLUSH, &self.before);
        let _was_blocked = self.held_back.thread_unblock();
    }
}

fn set(when: SetArg, termios: &Termios) -> io::Result<()> {
    Ok(tcsetattr(io::stdin(), when, termios)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_with_its_padding_or_an_empty_line() {
        for whole in ["\n", "BwcH\n\n", "BwcH\nBwc=\n", "Bw==\n", "BwcH\n \r\n", "Bwc= \n"] {
            assert!(is_complete(whole.as_bytes()), "{whole:?}");
        }
        for part in ["", "BwcH", "BwcH\n", "BwcH\nBwc=", "Bwc=\nBwcH\n", "\nBwcH\n"] {
            assert!(!is_complete(part.as_bytes()), "{part:?}");
        }
    }
}
