//! A file for the secret that a provider sends when it is enrolled: written once, by the gateway, for
//! the operator to refer to.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::private_file;
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
        match private_file::create(&self.0, secret.expose()) {
            // Another attempt to send it came at the same time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.holds(secret) => {
                Ok(())
            }
            created => created,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn the_first_secret_stays_and_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("asana");
        let file = SecretFile::new(path.clone());
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
    fn of_secrets_that_come_at_once_the_one_that_is_kept_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let path = dir.path().join(format!("asana{round}"));
            let file = SecretFile::new(path.clone());
            let begin = Barrier::new(4);
            // Each comes twice: its sender tries again while the first attempt is under way.
            let keep = |text: &str| {
                begin.wait();
                file.keep(&secret(text)).is_ok()
            };
            let accepted = thread::scope(|scope| {
                let keep = &keep;
                let attempts =
                    ["one", "one", "two", "two"].map(|text| scope.spawn(move || keep(text)));
                attempts.map(|attempt| attempt.join().unwrap())
            });
            let kept = fs::read(&path).unwrap();
            let is_one = kept == b"one";
            assert!(is_one || kept == b"two", "{kept:?}");
            assert_eq!(accepted, [is_one, is_one, !is_one, !is_one]);
        }
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
