//! Files that our user alone can read, written whole or not at all, also where processes write the same one at once.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tempfile::{NamedTempFile, PersistError};

/// Writes a file, in the place of what is there.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, NamedTempFile::persist)
}

/// Writes a file that is not there yet.
///
/// Fails with [`io::ErrorKind::AlreadyExists`] where something is, a link to nowhere among it.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, NamedTempFile::persist_noclobber)
}

/// By way of a file beside it, of a name that nobody else has. It goes away when anything fails.
fn write<'a>(
    path: &'a Path,
    content: &[u8],
    persist: fn(NamedTempFile, &'a Path) -> Result<File, PersistError>,
) -> io::Result<()> {
    let folder = path.parent().filter(|own| !own.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = NamedTempFile::with_prefix_in(".hookward-", folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    persist(file, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn a_file_is_ours_alone_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        create(&path, b"first").unwrap();
        let error = create(&path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        replace(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("absent/file"), b"").is_err());
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (link, aim) = (dir.path().join("link"), dir.path().join("aim"));
        symlink(&aim, &link).unwrap();
        let error = create(&link, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        replace(&link, b"x").unwrap();
        assert!(!aim.exists() && !link.is_symlink());
    }

    #[test]
    fn of_those_who_write_at_once_one_is_first() {
        const WRITERS: u8 = 4;
        let dir = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let path = dir.path().join(format!("file{round}"));
            let begin = Barrier::new(WRITERS.into());
            let write = |own: u8| {
                begin.wait();
                create(&path, &[own; 32]).is_ok().then_some(own)
            };
            let first: Vec<u8> = thread::scope(|scope| {
                let writers = (0..WRITERS).map(|own| scope.spawn(move || write(own)));
                let writers: Vec<_> = writers.collect();
                let ended = writers.into_iter().map(|writer| writer.join().unwrap());
                ended.flatten().collect()
            });
            let [first] = first.as_slice() else {
                panic!("{first:?}");
            };
            assert_eq!(fs::read(&path).unwrap(), [*first; 32]);
        }
    }
}
