//! Memory for keys, which is in no core dump, no child process and no swap.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

use crate::protocol::KEY_SECRETS;

/// Secret bytes in pages of their own, which are not swapped, not dumped and not inherited
/// by a child; wiped when dropped.
///
/// Where `RLIMIT_MEMLOCK` is too low, the pages cannot be locked and may be swapped. That
/// is no reason to refuse service.
pub(crate) struct SecretBytes {
    pages: MmapMut,
    length: usize,
}

impl SecretBytes {
    /// `length` zero bytes.
    ///
    /// # Errors
    /// When no memory is left.
    pub(crate) fn zeroed(length: usize) -> io::Result<Self> {
        // A mapping has at least one byte.
        let pages = MmapMut::map_anon(length.max(1))?;
        // Each of these protects, even where the others fail.
        let _may_be_swapped = pages.lock();
        let _may_be_dumped = pages.advise(Advice::DontDump);
        let _may_be_inherited = pages.advise(Advice::DontFork);
        Ok(Self { pages, length })
    }

    /// A copy of these bytes.
    ///
    /// # Errors
    /// When no memory is left.
    pub(crate) fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        let mut copy = Self::zeroed(bytes.len())?;
        copy.copy_from_slice(bytes);
        Ok(copy)
    }

    /// Wipes all but the first `length` bytes.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.split_at_mut(length).1.zeroize();
        self.length = length;
    }
}

impl Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.split_at(self.length).0
    }
}

impl DerefMut for SecretBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.pages.split_at_mut(self.length).0
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.zeroize();
    }
}

/// Secret memory for a [`SharedKey`](crate::protocol::SharedKey).
pub(crate) struct KeyMemory(SecretBytes);

impl KeyMemory {
    /// # Errors
    /// When no memory is left.
    pub(crate) fn new() -> io::Result<Self> {
        SecretBytes::zeroed(KEY_SECRETS).map(Self)
    }
}

impl Deref for KeyMemory {
    type Target = [u8; KEY_SECRETS];

    fn deref(&self) -> &[u8; KEY_SECRETS] {
        let Some(key) = self.0.first_chunk() else { unreachable!("its length was given") };
        key
    }
}

impl DerefMut for KeyMemory {
    fn deref_mut(&mut self) -> &mut [u8; KEY_SECRETS] {
        let Some(key) = self.0.first_chunk_mut() else { unreachable!("its length was given") };
        key
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The flags of the mapping that an address is in.
    fn flags(address: *const u8) -> String {
        let address = address.addr();
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().unwrap().split_once('-');
            let range = range.and_then(|(start, end)| {
                let parse = |text| usize::from_str_radix(text, 16).ok();
                Some(parse(start)?..parse(end)?)
            });
            is_inside = range.map_or(is_inside, |range| range.contains(&address));
            if let (true, Some(flags)) = (is_inside, line.strip_prefix("VmFlags:")) {
                return flags.to_owned();
            }
        }
        panic!("no mapping");
    }

    #[test]
    fn secrets_are_locked_not_dumped_and_not_inherited() {
        let key = KeyMemory::new().unwrap();
        let content = SecretBytes::zeroed(65_537).unwrap();
        for address in [key.as_ptr(), content.as_ptr(), &raw const content[65_536]] {
            let flags = flags(address);
            for flag in [" lo", " dd", " dc"] {
                assert!(flags.contains(flag), "{flag}: {flags}");
            }
        }
    }

    #[test]
    fn secrets_are_as_long_as_they_are_said_to_be() {
        for length in [0, 1, 32, 4096, 65_537] {
            let mut secret = SecretBytes::zeroed(length).unwrap();
            assert_eq!(*secret, vec![0; length]);
            secret.fill(7);
            secret.truncate(length / 2);
            assert_eq!(*secret, vec![7; length / 2]);
            assert!(secret.pages.iter().skip(length / 2).all(|byte| *byte == 0));
        }
    }
}
