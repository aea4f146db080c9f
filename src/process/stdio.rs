//! Standard input and output: a terminal, a file, a pipe or a socket, perhaps in
//! non-blocking mode.
//!
//! All processes that have the open file, such as the shell at the terminal, share that
//! mode. So it is left as it is: where a call would block, poll(2) waits.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{dup2_stdout, read, write};
use socket2::SockRef;

/// Standard input without a buffer, in which a copy of a key would be left.
pub(crate) struct Stdin;

/// Standard output without a buffer, which would hold back text without an end of line.
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
    /// Ends standard output while the process goes on: its reader sees the end at once.
    ///
    /// A socket is shut down, since standard input may be the same socket and keep it open.
    /// Otherwise only this descriptor is closed.
    ///
    /// # Errors
    /// When `/dev/null` cannot take its place.
    pub(crate) fn end() -> io::Result<()> {
        Self::end_socket();
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        Ok(dup2_stdout(null)?)
    }

    /// Shuts standard output down if it is a socket, which other processes may also have.
    pub(crate) fn end_socket() {
        // Fails where it is not a socket, or the socket's peer is gone already.
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
