//! Where an ACME account and its certificates outlive the process: files that only we can read,
//! replaced whole.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::private_file;
use crate::settings::AcmeSettings;

/// Larger files are not ours.
const FILE_MAX: u64 = 1 << 20;
/// Longest part of a file name: two and the rest fit into 255 bytes.
const NAME_MAX: usize = 100;
/// Digits of what tells apart certificates with the same first name.
const MARK_LENGTH: usize = 16;
/// Most files of other names that are looked at.
const OTHERS_MAX: usize = 100;

/// The files of one ACME configuration.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    account: PathBuf,
    certificate: PathBuf,
    /// How the names of this authority's certificates begin.
    certificates: String,
    domains: Vec<String>,
}

/// What tells one account from another.
#[derive(Deserialize)]
struct AccountId {
    id: String,
}

impl Cache {
    /// Names hold what the content is for: another directory is another account.
    pub(super) fn new(settings: &AcmeSettings) -> Self {
        let directory = plain(settings.directory.trim_start_matches("https://"));
        let folder = settings.cache.clone();
        let certificates = format!("certificate-{directory}-");
        Self {
            account: folder.join(format!("account-{directory}.json")),
            certificate: folder.join(format!("{certificates}{}.pem", names(&settings.domains))),
            folder,
            certificates,
            domains: settings.domains.clone(),
        }
    }

    /// The account's credentials; `None` when there are none yet. An error of kind `InvalidData`: the file is
    /// not one of ours.
    pub(super) fn account(&self) -> io::Result<Option<Zeroizing<String>>> {
        read(&self.account)
    }

    pub(super) fn keep_account(&self, json: &str) -> io::Result<()> {
        self.write(&self.account, json)
    }

    /// Makes place for a new account, and says where the old one is.
    pub(super) fn set_account_aside(&self) -> io::Result<PathBuf> {
        let aside = self.account.with_extension("damaged");
        fs::rename(&self.account, &aside).map(|()| aside)
    }

    /// Where the account is.
    pub(super) fn account_file(&self) -> &Path {
        &self.account
    }

    /// Forgets the account with this id; another one, which somebody has made since, stays.
    pub(super) fn forget_account(&self, id: &str) -> io::Result<()> {
        let kept = self.account()?.unwrap_or_default();
        let kept: Option<AccountId> = serde_json::from_str(&kept).ok();
        if kept.is_none_or(|kept| kept.id != id) {
            return Ok(());
        }
        match fs::remove_file(&self.account) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The files in which this authority's certificates may be, those of other names too: first those that begin
    /// with one of ours, which no number of others hides.
    pub(super) fn certificates(&self) -> Vec<PathBuf> {
        let mut files = vec![self.certificate.clone()];
        let listed = match fs::read_dir(&self.folder) {
            Ok(listed) => listed,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let cache = self.folder.display();
                    tracing::warn!(%cache, %error, "the ACME cache cannot be read");
                }
                return files;
            }
        };
        let of_others = listed.filter_map(Result::ok).map(|entry| entry.path());
        let of_others = of_others.filter(|path| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let is_certificate = name.starts_with(&self.certificates)
                && path.extension().is_some_and(|end| end == "pem");
            is_certificate && *path != self.certificate
        });
        let mut of_others: Vec<PathBuf> = of_others.collect();
        of_others.sort_by_cached_key(|path| {
            let is_ours = self.domains.iter().any(|domain| self.is_for(path, domain));
            (!is_ours, path.clone())
        });
        files.extend(of_others.into_iter().take(OTHERS_MAX));
        files
    }

    /// Whether a file has the name of a certificate of this authority for `domain` and maybe others: that of
    /// an authority may begin like that of another.
    pub(super) fn is_for(&self, file: &Path, domain: &str) -> bool {
        if *file == *self.certificate {
            return true;
        }
        let name = file.file_name().and_then(OsStr::to_str);
        let names = name.and_then(|name| name.strip_prefix(&self.certificates));
        let names = names.and_then(|names| names.strip_suffix(".pem"));
        let rest = names.and_then(|names| names.strip_prefix(&plain(domain)));
        rest.is_some_and(|rest| match rest.strip_prefix('-') {
            None => rest.is_empty(),
            Some(mark) => {
                mark.len() == MARK_LENGTH && mark.bytes().all(|byte| byte.is_ascii_hexdigit())
            }
        })
    }

    /// Chain and key in one file, so that they cannot come apart.
    pub(super) fn keep_certificate(&self, pem: &str) -> io::Result<()> {
        self.write(&self.certificate, pem)
    }

    /// Whether anything can be kept: writes a file, and removes it.
    pub(super) fn try_out(&self) -> io::Result<()> {
        // Processes may share a folder.
        let trial = self.folder.join(format!("trial-{}", std::process::id()));
        self.write(&trial, "")?;
        fs::remove_file(trial)
    }

    fn write(&self, path: &Path, content: &str) -> io::Result<()> {
        let mut folder = DirBuilder::new();
        folder.recursive(true).mode(0o700).create(&self.folder)?;
        private_file::replace(path, content.as_bytes())
    }
}

/// What a file holds; `None` when it is not there.
pub(super) fn read(path: &Path) -> io::Result<Option<Zeroizing<String>>> {
    let length = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if length > FILE_MAX {
        return Err(damaged("it is too large"));
    }
    match String::from_utf8(fs::read(path)?) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(damaged("it is damaged: it holds no text"))
        }
    }
}

/// The part of a file name for these names, in whatever order they stand: two certificates with the same first
/// name must not take each other's place.
fn names(domains: &[String]) -> String {
    let first = plain(domains.first().map_or("", String::as_str));
    let all: BTreeSet<&str> = domains.iter().map(String::as_str).collect();
    if all.len() < 2 {
        return first;
    }
    let all = Vec::from_iter(all).join(" ");
    let mark = blake3::hash(all.as_bytes()).to_hex();
    let mark: String = mark.chars().take(MARK_LENGTH).collect();
    format!("{first}-{mark}")
}

/// A part of a file name.
fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let plain = text.chars().map(|c| if is_plain(c) { c } else { '-' });
    plain.take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn settings(folder: &Path, domains: &[&str]) -> AcmeSettings {
        AcmeSettings {
            domains: domains.iter().map(|name| (*name).to_owned()).collect(),
            email: None,
            directory: "https://ca.example.org/directory".to_owned(),
            ca: None,
            cache: folder.join("a/b"),
        }
    }

    #[test]
    fn files_are_ours_alone_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&settings(dir.path(), &["a.example.org", "b.example.org"]));
        assert!(cache.account().unwrap().is_none());
        for content in ["one", "two"] {
            cache.keep_certificate(content).unwrap();
            let kept = read(&cache.certificate).unwrap().unwrap();
            assert_eq!(kept.as_str(), content);
        }
        cache.keep_account(r#"{"id":"new"}"#).unwrap();
        cache.forget_account("old").unwrap();
        assert!(cache.account().unwrap().is_some(), "that of another keeper");
        cache.forget_account("new").unwrap();
        cache.forget_account("new").unwrap();
        assert!(cache.account().unwrap().is_none());
        let mode = fs::metadata(&cache.certificate).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 1);
    }

    #[test]
    fn a_certificate_has_a_file_for_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = |names: &[&str]| {
            let cache = Cache::new(&settings(dir.path(), names));
            let name = cache.certificate.file_name().unwrap();
            name.to_str().unwrap().to_owned()
        };
        let (a, b, c) = ("a.example.org", "b.example.org", "c.example.org");
        assert_eq!(
            file(&[a]),
            "certificate-ca.example.org-directory-a.example.org.pem"
        );
        assert_eq!(file(&[a, a]), file(&[a]));
        assert_eq!(
            file(&[a, b, c]),
            "certificate-ca.example.org-directory-a.example.org-2735e99858d28421.pem"
        );
        assert_eq!(file(&[a, b, c]), file(&[a, c, b]));
        assert_ne!(file(&[a, b]), file(&[a, c]));
        assert_ne!(file(&[a, b]), file(&[a]));
    }

    #[test]
    fn certificates_of_other_names_are_found_and_those_of_other_authorities_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&settings(dir.path(), &["a.example.org"]));
        assert_eq!(
            cache.certificates().len(),
            1,
            "the own one, also before it is there"
        );
        let other = Cache::new(&settings(dir.path(), &["b.example.org"]));
        other.keep_certificate("other").unwrap();
        other.keep_account("{}").unwrap();
        fs::write(dir.path().join("a/b/.hookward-x"), "left behind").unwrap();
        let foreign = AcmeSettings {
            directory: "https://ca.example.com/directory".to_owned(),
            ..settings(dir.path(), &["a.example.org"])
        };
        Cache::new(&foreign).keep_certificate("foreign").unwrap();
        let alike = AcmeSettings {
            directory: "https://ca.example.org/directory-b".to_owned(),
            ..foreign
        };
        let alike = Cache::new(&alike);
        alike.keep_certificate("alike").unwrap();
        let mut found = cache.certificates();
        assert_eq!(found.remove(0), cache.certificate, "the own one is first");
        found.sort();
        assert_eq!(
            found,
            [alike.certificate.clone(), other.certificate.clone()]
        );
        assert!(cache.is_for(&other.certificate, "b.example.org"));
        let two = Cache::new(&settings(dir.path(), &["b.example.org", "c.example.org"]));
        assert!(cache.is_for(&two.certificate, "b.example.org"));
        assert!(!cache.is_for(&two.certificate, "b.example"));
        assert!(!cache.is_for(&other.certificate, "b.example"));
        assert!(!cache.is_for(&alike.certificate, "a.example.org"));
        assert!(cache.is_for(&cache.certificate, "whatever its names are"));
    }

    #[test]
    fn many_certificates_of_other_names_do_not_hide_those_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let (x, y) = ("x.example.org", "y.example.org");
        for number in 0..=OTHERS_MAX {
            let other = format!("a{number:03}.example.org");
            let other = Cache::new(&settings(dir.path(), &[&other]));
            other.keep_certificate("other").unwrap();
        }
        let alone = Cache::new(&settings(dir.path(), &[y]));
        alone.keep_certificate("alone").unwrap();
        let cache = Cache::new(&settings(dir.path(), &[x, y]));
        let found = cache.certificates();
        assert_eq!(found.len(), 1 + OTHERS_MAX);
        assert_eq!(found[..2], [cache.certificate.clone(), alone.certificate]);
        assert!(found[2..].is_sorted());
        assert!(found[2].ends_with("certificate-ca.example.org-directory-a000.example.org.pem"));
    }

    #[test]
    fn what_is_no_text_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&settings(dir.path(), &["a.example.org"]));
        let size = usize::try_from(FILE_MAX).unwrap();
        cache.keep_account(&"x".repeat(size)).unwrap();
        assert!(cache.account().unwrap().is_some());
        for content in [vec![b'x'; size + 1], vec![0xff, 0xfe]] {
            fs::write(&cache.account, &content).unwrap();
            let error = cache.account().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let aside = cache.set_account_aside().unwrap();
            assert_eq!(fs::read(aside).unwrap(), content);
            assert!(cache.account().unwrap().is_none());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_says_so_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&settings(dir.path(), &["a.example.org"]));
        fs::write(dir.path().join("a"), "a file").unwrap();
        assert!(cache.keep_account("{}").is_err());
        assert!(cache.account().is_err(), "not to know is not to have none");
    }
}
