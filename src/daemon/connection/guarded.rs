//! Sockets, and the guard that counts their descriptors.

/// Sockets and their guard, such as a slot or a permit. The sockets are closed before the
/// guard gives their descriptors back.
pub(crate) struct Guarded<S, G> {
    pub(crate) sockets: S,
    pub(crate) guard: G,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, RawFd};
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, fcntl};

    /// Notes, when dropped, whether a descriptor is closed.
    struct LooksAt<'a>(RawFd, &'a mut Option<bool>);

    impl Drop for LooksAt<'_> {
        fn drop(&mut self) {
            #[expect(unsafe_code, reason = "the descriptor may be closed, which is tested")]
            // SAFETY: fcntl only reads the flags of the descriptor.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0) };
            *self.1 = Some(fcntl(fd, FcntlArg::F_GETFD).is_err());
        }
    }

    #[test]
    fn the_sockets_are_closed_before_their_guard_is_dropped() {
        let mut was_closed = None;
        let (sockets, _peer) = UnixStream::pair().unwrap();
        let guard = LooksAt(sockets.as_raw_fd(), &mut was_closed);
        drop(Guarded { sockets, guard });
        assert_eq!(was_closed, Some(true));
    }
}
