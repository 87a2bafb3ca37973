//! A file for the secret that a provider sends when it is enrolled: written once, by the gateway, for
//! the operator to refer to.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::scheme::handshake::Keep;
use crate::secret::Secret;

/// Where a secret is kept that a handshake brings.
#[derive(Clone, Debug)]
pub(super) struct SecretFile(PathBuf);

impl SecretFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Whether it is this one. A link is not followed, here as where it is written.
    fn holds(&self, secret: &Secret) -> bool {
        let is_file = self.0.symlink_metadata().is_ok_and(|data| data.is_file());
        is_file && fs::read(&self.0).is_ok_and(|kept| kept == secret.expose())
    }

    /// Whether there is one already.
    pub(super) fn is_taken(&self) -> bool {
        self.0.symlink_metadata().is_ok()
    }
}

impl fmt::Display for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Keep for SecretFile {
    /// Whole or not at all, for our user alone, and never over what is there.
    fn keep(&self, secret: &Secret) -> io::Result<()> {
        if self.holds(secret) {
            // The answer to its first attempt was lost.
            return Ok(());
        }
        if self.is_taken() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut name = self.0.file_name().unwrap_or_default().to_owned();
        name.push(".next");
        let next = self.0.with_file_name(name);
        // What a process that died left behind, which may be readable by others.
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)?;
        let written = file.write_all(secret.expose());
        // A link, unlike a rename, replaces nothing.
        let kept = written
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::hard_link(&next, &self.0));
        fs::remove_file(&next)?;
        kept?;
        let folder = self.0.parent().filter(|own| !own.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn the_first_secret_stays_and_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("asana");
        let file = SecretFile::new(path.clone());
        fs::write(dir.path().join("asana.next"), "left behind").unwrap();
        assert!(!file.is_taken());
        file.keep(&secret("first")).unwrap();
        file.keep(&secret("first")).unwrap();
        let again = file.keep(&secret("second")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_not_followed_and_a_missing_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (link, aim) = (dir.path().join("link"), dir.path().join("aim"));
        std::os::unix::fs::symlink(&aim, &link).unwrap();
        assert!(SecretFile::new(link).keep(&secret("x")).is_err());
        assert!(!aim.exists());
        let nowhere = SecretFile::new(dir.path().join("absent/file"));
        assert!(nowhere.keep(&secret("x")).is_err());
    }
}
