//! New files, which are written as a whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// What the name of a file that is not finished begins with.
const UNFINISHED: &str = ".tmp";

/// Writes a new file. Neither a failure nor a power cut leaves a part of it at that path; a
/// power cut may leave a file `.tmp…` beside it, with that mode.
///
/// # Errors
/// When something is there already ([`io::ErrorKind::AlreadyExists`]), or the
/// system refuses.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (file, entries) = beside(path, content, mode)?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    entries.sync_all().inspect_err(|_| {
        // The file might not be there after a power cut. That it cannot be removed, either,
        // adds nothing to the error.
        drop(fs::remove_file(path));
    })
}

/// Like [`write()`], in the place of another file: after a failure or a power cut, either the
/// old file or the new one is there.
///
/// # Errors
/// When the system refuses.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (file, entries) = beside(path, content, mode)?;
    file.persist(path).map_err(|error| error.error)?;
    entries.sync_all()
}

/// Writes the content to a file `.tmp…` in the folder of the path. Returns the folder, too.
fn beside(path: &Path, content: &[u8], mode: u32) -> io::Result<(NamedTempFile, File)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let entries = File::open(folder)?;
    let mode = Permissions::from_mode(mode);
    let mut builder = tempfile::Builder::new();
    let mut file = builder.prefix(UNFINISHED).permissions(mode.clone()).tempfile_in(folder)?;
    // The umask does not count.
    file.as_file().set_permissions(mode)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok((file, entries))
}

/// Removes the files `.tmp…` that power cuts have left in a folder. One that cannot be removed
/// stays.
pub(crate) fn remove_unfinished(folder: &Path) {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_unfinished(&file.path()) {
            let _stays = fs::remove_file(file.path());
        }
    }
}

/// Whether it is a file `.tmp…`, which is not finished.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_encoded_bytes);
    name.is_some_and(|name| name.starts_with(UNFINISHED.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_replaced_file_has_its_new_content_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old");
        fs::write(&path, b"first").unwrap();
        replace(&path, b"second", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_cut_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        // The process ends before the file has its name.
        let (cut, _) = beside(&folder.path().join("a.key"), b"secret", 0o600).unwrap();
        cut.keep().unwrap();
        for name in ["a.tmp", "b.key", ".x"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join(".tmp-folder")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
        remove_unfinished(folder.path());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        remove_unfinished(&folder.path().join("none"));
    }

    #[test]
    fn it_is_whole_has_its_mode_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        write(&path, b"first", 0o604).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o604);
        let error = write(&path, b"second", 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::metadata(&path).unwrap().ino(), metadata.ino());
        // A dangling link is not replaced, either, and no part of a failed file is left.
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        assert!(write(&folder.path().join("link"), b"third", 0o600).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
