//! Standard input and output as they are handed over: a terminal, a file, a
//! pipe or a socket, and perhaps in non-blocking mode.
//!
//! That mode belongs to all who share the open file, such as the shell behind
//! the terminal. So it is left as it is: where a call would block, poll(2) does.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{dup2_stdout, read, write};
use socket2::SockRef;

/// Standard input, without a buffer: a key that is read leaves no copy there.
pub(crate) struct Stdin;

/// Standard output, without a buffer: what has no end of line is not held back.
pub(crate) struct Stdout;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        when_ready(io::stdin(), PollFlags::POLLIN, |stdin| read(stdin, buffer))
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        when_ready(io::stdout(), PollFlags::POLLOUT, |stdout| write(stdout, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stdout {
    /// Ends standard output while the process goes on: whoever reads it sees its
    /// end at once.
    ///
    /// A socket is shut down, since standard input may be the same one and keeps
    /// it open. Of anything else only this descriptor is given up.
    ///
    /// # Errors
    /// When `/dev/null` cannot take its place.
    pub(crate) fn end() -> io::Result<()> {
        Self::end_socket();
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        Ok(dup2_stdout(null)?)
    }

    /// Shuts standard output down if it is a socket: others may hold it, too.
    pub(crate) fn end_socket() {
        // Fails where it is no socket, or one whose peer is gone already.
        let _no_socket = SockRef::from(&io::stdout()).shutdown(Shutdown::Write);
    }
}

fn when_ready<Fd: AsFd>(
    fd: Fd,
    wanted: PollFlags,
    mut call: impl FnMut(&Fd) -> nix::Result<usize>,
) -> io::Result<usize> {
    loop {
        match call(&fd) {
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(fd.as_fd(), wanted)], PollTimeout::NONE)?;
            }
            result => return Ok(result?),
        }
    }
}
