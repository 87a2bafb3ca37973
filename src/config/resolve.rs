//! The one reader of the environment, of secrets and of files.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::secret_form::{self, Source};
use crate::clock::Clock;
use crate::secret::Secret;
use crate::units::{ByteSize, UnixTime};

/// Largest configuration file: far above 10,000 routes (SECURITY S-15, DS-21).
const CONFIG_BYTES_MAX: u64 = 32 << 20;
/// Largest other file: secrets, certificates, htpasswd, presets.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The process environment as it was at start, and the time.
#[derive(Clone)]
pub struct Environment {
    variables: HashMap<String, String>,
    /// Variables whose values are not UTF-8.
    not_text: HashMap<String, OsString>,
    clock: Clock,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.variables.len())
    }
}

impl Environment {
    /// The environment of this process.
    pub fn from_process() -> Self {
        Self::from_os(std::env::vars_os())
    }

    fn from_os(pairs: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut env = Self::empty();
        for (name, value) in pairs {
            // A configuration cannot ask for a name that is not UTF-8.
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(env.variables.insert(name, value)),
                Err(value) => drop(env.not_text.insert(name, value)),
            }
        }
        env
    }

    /// An environment without variables.
    pub fn empty() -> Self {
        Self {
            variables: HashMap::new(),
            not_text: HashMap::new(),
            clock: Clock::system(),
        }
    }

    /// An environment of these variables.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self {
            variables: variables.collect(),
            ..Self::empty()
        }
    }

    /// The same variables at another time: what `not_after` is judged by.
    #[must_use]
    pub fn at(self, now: UnixTime) -> Self {
        Self {
            clock: Clock::manual(now),
            ..self
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Whether a variable is set to something that is not UTF-8.
    pub fn is_not_text(&self, name: &str) -> bool {
        self.not_text.contains_key(name)
    }

    /// The path that a variable holds, if it is not empty. A path need not be UTF-8.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let text = self.get(name).map(PathBuf::from);
        let path = text.or_else(|| self.not_text.get(name).map(PathBuf::from));
        path.filter(|path| !path.as_os_str().is_empty())
    }

    pub(super) fn now(&self) -> UnixTime {
        self.clock.now()
    }
}

/// What is wrong with a reference or a file, and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Finding {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// A secret as it was referred to.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) secret: Secret,
    /// Name of the variable or stem of the file; `None` for a `value:`.
    pub(super) name: Option<String>,
    pub(super) warnings: Vec<Finding>,
}

/// Reads what a configuration refers to, and notes which files it was.
#[derive(Debug)]
pub(super) struct Resolver<'e> {
    pub(super) env: &'e Environment,
    /// Where relative paths start.
    pub(super) base: PathBuf,
    watched: Vec<(PathBuf, Stamp)>,
    known: HashSet<PathBuf>,
    is_for_verb: bool,
}

/// Reads a configuration file.
pub(super) fn read_config(file: &Path) -> io::Result<Vec<u8>> {
    read(file, CONFIG_BYTES_MAX).map(|(bytes, _)| bytes)
}

/// Reads it again. A pipe is an error, because it gives its content once, and every later load would fail.
pub(super) fn reread_config(file: &Path) -> io::Result<Vec<u8>> {
    let kind = std::fs::metadata(file)?.file_type();
    if kind.is_file() || kind.is_dir() {
        read_config(file)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

impl<'e> Resolver<'e> {
    pub(super) fn new(env: &'e Environment, base: &Path) -> Self {
        Self {
            env,
            base: base.to_owned(),
            watched: Vec::new(),
            known: HashSet::new(),
            is_for_verb: false,
        }
    }

    /// Reads what the command line of a verb names. It is read once, so that a pipe, as shells make one of
    /// `<(command)`, will do.
    pub(super) fn for_verb(mut self) -> Self {
        self.is_for_verb = true;
        self
    }

    /// Notes a file whose change calls for a reload, and returns its full path.
    pub(super) fn watch(&mut self, path: &str) -> PathBuf {
        let path = self.base.join(path);
        if self.known.insert(path.clone()) {
            self.watched.push((path.clone(), Stamp::of(&path)));
        }
        path
    }

    /// The full path of what is not read for the configuration.
    pub(super) fn place(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// Every file noted, in the order of the configuration, as it was before it was read.
    pub(super) fn into_watched(self) -> Vec<(PathBuf, Stamp)> {
        self.watched
    }

    /// Reads a file that is not secret.
    pub(super) fn file(&mut self, path: &str) -> Result<Vec<u8>, Finding> {
        self.read(path).map(|(bytes, _)| bytes)
    }

    /// Reads a private key; `true` when every user of the machine can read it (SECURITY S-24).
    pub(super) fn private_file(&mut self, path: &str) -> Result<(Secret, bool), Finding> {
        let (bytes, mode) = self.read(path)?;
        Ok((Secret::new(bytes), mode & 0o004 != 0))
    }

    fn read(&mut self, path: &str) -> Result<(Vec<u8>, u32), Finding> {
        if path.is_empty() {
            return Err(Finding::new("the path is empty"));
        }
        let full = self.watch(path);
        // A pipe may never end, and a load that never ends blocks every later reload.
        let kind = std::fs::metadata(&full).map(|meta| meta.file_type());
        if !self.is_for_verb && kind.is_ok_and(|kind| !kind.is_file() && !kind.is_dir()) {
            let finding = Finding::new(format!("`{path}` is not a regular file"));
            return Err(finding.hint("a reload reads it again; write what it gives into a file"));
        }
        read(&full, FILE_BYTES_MAX).map_err(|error| self.cannot_read(&full, path, &error))
    }

    fn cannot_read(&self, full: &Path, written: &str, error: &io::Error) -> Finding {
        let finding = Finding::new(format!("cannot read `{written}`: {}", reason(error)));
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        if is_missing && let Some(path) = written.strip_prefix("file:") {
            return finding.hint(format!("this is a path and no reference: write `{path}`"));
        }
        if is_missing && written.starts_with("env:") {
            return finding.hint(
                "this is a path and no reference: write `${env:NAME}` for a path in a variable",
            );
        }
        if !is_missing || Path::new(written).is_absolute() {
            return finding;
        }
        let folder = if self.is_for_verb {
            "the current folder"
        } else {
            "the configuration's folder"
        };
        let full = absolute(full);
        finding.hint(format!("relative paths start from {folder}: {full}"))
    }

    /// Resolves `env:NAME`, `file:PATH` or `value:TEXT`. No message repeats a secret.
    pub(super) fn secret(&mut self, reference: &str) -> Result<Resolved, Finding> {
        let mut resolved = self.written(reference, "secret")?;
        let bytes = resolved.secret.expose();
        if let Some(finding) = secret_form::refuse(bytes, &origin(reference)) {
            return Err(finding);
        }
        let doubts = secret_form::doubts(bytes, source(reference));
        resolved.warnings.extend(doubts);
        Ok(resolved)
    }

    /// Resolves a reference to something that is not secret, such as a public key.
    pub(super) fn public(&mut self, reference: &str) -> Result<Resolved, Finding> {
        let mut resolved = self.written(reference, "key")?;
        resolved.warnings.clear();
        Ok(resolved)
    }

    /// Resolves a reference to a URL that may hold a password.
    pub(super) fn location(&mut self, reference: &str) -> Result<Resolved, Finding> {
        self.written(reference, "URL")
    }

    fn written(&mut self, reference: &str, what: &str) -> Result<Resolved, Finding> {
        let (bytes, name, warnings) = match reference.split_once(':') {
            Some(("env", name)) => (self.variable(name)?, Some(name.to_owned()), Vec::new()),
            Some(("file", path)) => {
                let (mut bytes, mode) = self.read(path)?;
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                }
                let mut warnings = Vec::new();
                if mode & 0o002 != 0 {
                    let warning = Finding::new(format!("every user can change `{path}`"));
                    warnings.push(warning.hint(format!("chmod o-w {path}")));
                }
                let stem = Path::new(path)
                    .file_stem()
                    .map(|stem| stem.to_string_lossy());
                (bytes, stem.map(std::borrow::Cow::into_owned), warnings)
            }
            Some(("value", text)) => {
                let warning = Finding::new("the secret stands in the configuration itself");
                let hint =
                    "write `env:NAME` or `file:PATH`, so that the file can be shown to others";
                (text.as_bytes().to_vec(), None, vec![warning.hint(hint)])
            }
            _ => return Err(bare(reference, what, self.env)),
        };
        if bytes.is_empty() {
            return Err(Finding::new(format!("{} is empty", origin(reference))));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Finding::new(format!(
                "{} is nothing but blanks",
                origin(reference)
            )));
        }
        if bytes.iter().all(|byte| *byte == 0) {
            let message = format!("{} is nothing but NUL bytes", origin(reference));
            let hint = "a file is left so by a crash; HMAC takes it for an empty secret, under which anybody can sign";
            return Err(Finding::new(message).hint(hint));
        }
        if secret_form::is_hollow(&bytes) {
            let message = format!(
                "{} is empty but for quotes, a name, a byte order mark, or what cannot be seen",
                origin(reference)
            );
            let hint = "whoever knows that can sign with it; write the secret itself";
            return Err(Finding::new(message).hint(hint));
        }
        Ok(Resolved {
            secret: Secret::new(bytes),
            name,
            warnings,
        })
    }

    fn variable(&self, name: &str) -> Result<Vec<u8>, Finding> {
        // More than shells take, because containers have variables with `-` and `.`.
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(is_name) {
            let message = if name.trim().is_empty() {
                "`env:` needs the name of an environment variable"
            } else {
                "what stands after `env:` has a character that no name has, such as a blank"
            };
            return Err(Finding::new(message).hint("such as `env:GITHUB_SECRET`"));
        }
        if self.env.is_not_text(name) {
            return Err(
                Finding::new(not_text(name)).hint("write it to a file, and `file:PATH` here")
            );
        }
        let value = self.env.get(name).map(|value| value.as_bytes().to_vec());
        value.ok_or_else(|| {
            let message = format!("environment variable `{name}` is not set");
            let hint = if self.is_for_verb {
                "set it for this command, in a shell with `export`; or write `file:PATH`"
            } else {
                "set it before the gateway starts, for a running one sees no new variables; or write `file:PATH`"
            };
            Finding::new(message).hint(hint)
        })
    }
}

/// Where a reference was read, for a message.
fn origin(reference: &str) -> String {
    match reference.split_once(':') {
        Some(("env", name)) => format!("environment variable `{name}`"),
        Some(("file", path)) => format!("`{path}`"),
        _ => "the value".to_owned(),
    }
}

fn source(reference: &str) -> Source {
    match reference.split_once(':') {
        Some(("env", _)) => Source::Variable,
        Some(("file", _)) => Source::File,
        _ => Source::Value,
    }
}

/// What is wrong with a variable that is set and is no text.
pub(super) fn not_text(name: &str) -> String {
    format!("environment variable `{name}` is not UTF-8")
}

/// What is wrong with a text that is not a reference. It may be a secret, so the message repeats it only if it is
/// the name of a variable that is set.
fn bare(text: &str, what: &str, env: &Environment) -> Finding {
    let name = text
        .trim_start_matches('$')
        .trim_start_matches('{')
        .trim_end_matches('}');
    let hint = if !name.is_empty() && env.get(name).is_some() {
        format!("did you mean `env:{name}`?")
    } else {
        "write `env:NAME` (without `$`), `file:PATH`, or `value:TEXT` for a throw-away one"
            .to_owned()
    };
    Finding::new(format!("this is not a reference to a {what}")).hint(hint)
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Option<[i128; 4]>);

impl Stamp {
    /// The stamp of the version that is there now, if there is one.
    pub fn of(file: &Path) -> Self {
        let meta = std::fs::metadata(file).ok();
        // Not the modification time: a copy can keep it, and a change of permissions does not move it.
        Self(meta.map(|meta| {
            let changed = i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec());
            [
                meta.dev().into(),
                meta.ino().into(),
                meta.len().into(),
                changed,
            ]
        }))
    }
}

fn read(path: &Path, bytes_max: u64) -> io::Result<(Vec<u8>, u32)> {
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!(
            "it is larger than {}",
            ByteSize(bytes_max)
        )));
    }
    Ok((bytes, meta.mode()))
}

/// A path that says where it is looked for.
pub(super) fn absolute(path: &Path) -> String {
    let full = std::path::absolute(path);
    full.as_deref().unwrap_or(path).display().to_string()
}

/// An I/O error in words, without its number.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => {
            let user = rustix::process::geteuid().as_raw();
            format!("permission denied (it runs as user {user})")
        }
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn secret(reference: &str, dir: &Path) -> Result<(String, usize), Finding> {
        let env = Environment::from_pairs([
            ("GOOD", "an example secret of 32 characters"),
            ("EMPTY", ""),
            ("BLANK", " \t\n"),
            ("SHORT", "short"),
            ("SAMPLE", "ChangeMe"),
            ("QUOTED", "\"\""),
            ("QUOTED_SAMPLE", "'changeme'"),
            ("ASSIGNED_SAMPLE", "SECRET=\"changeme\""),
            ("NULL", "null"),
            ("NAME_ALONE", "GITHUB_SECRET="),
            ("NAME_EXPORTED", "export secret=''"),
            (
                "LIKE_A_NAME",
                "MySecretKeyMySecretKeyMySecretKey12345678901=",
            ),
        ]);
        let resolved = Resolver::new(&env, dir).secret(reference)?;
        let text = String::from_utf8(resolved.secret.expose().to_vec()).unwrap();
        Ok((text, resolved.warnings.len()))
    }

    #[test]
    fn a_secret_of_which_nothing_is_left_is_none() {
        // SECURITY A-01, A-03, A-05
        let dir = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 5] = [
            ("marked", b"\xef\xbb\xbf"),
            ("marked_crlf", b"\xef\xbb\xbf\r\n"),
            ("marked_sample", b"\xef\xbb\xbfchangeme"),
            ("unseen", "\u{2003}\u{a0}\u{200b}".as_bytes()),
            ("utf16", b"\xff\xfe"),
        ];
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            assert!(
                secret(&format!("file:{name}"), dir.path()).is_err(),
                "{name}"
            );
        }
        for name in [
            "QUOTED",
            "QUOTED_SAMPLE",
            "ASSIGNED_SAMPLE",
            "NULL",
            "NAME_ALONE",
            "NAME_EXPORTED",
        ] {
            assert!(
                secret(&format!("env:{name}"), dir.path()).is_err(),
                "{name}"
            );
        }
        assert!(
            secret("env:LIKE_A_NAME", dir.path()).is_ok(),
            "it is base64"
        );
    }

    #[test]
    fn references() {
        // SECURITY A-01, A-02, A-03, A-04, A-05
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        file("good", "a secret from a file\n");
        file("two", "a secret from a file\n\n");
        file("crlf", "a secret from a file\r\n");
        file("empty", "\n");
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let get = |reference: &str| secret(reference, dir.path());
        assert_eq!(
            get("env:GOOD"),
            Ok(("an example secret of 32 characters".to_owned(), 0))
        );
        assert_eq!(get("env:SHORT"), Ok(("short".to_owned(), 1)));
        assert_eq!(get("file:good"), Ok(("a secret from a file".to_owned(), 0)));
        assert_eq!(
            get("file:two"),
            Ok(("a secret from a file\n".to_owned(), 1))
        );
        assert_eq!(
            get("file:crlf"),
            Ok(("a secret from a file\r".to_owned(), 1))
        );
        assert_eq!(
            get("value:an example: of a secret"),
            Ok(("an example: of a secret".to_owned(), 1))
        );
        for reference in [
            "env:UNSET",
            "env:EMPTY",
            "env:BLANK",
            "env:SAMPLE",
            "env:",
            "env:A B",
            "file:",
            "file:none",
            "file:empty",
            "file:folder",
            "value:",
            "value: ",
            "value:changeme",
            "GOOD",
            "$GOOD",
            "",
            "x:y",
        ] {
            assert!(get(reference).is_err(), "{reference}");
        }
        assert_eq!(
            get("${GOOD}").unwrap_err().hint.unwrap(),
            "did you mean `env:GOOD`?"
        );
        for reference in ["env: GOOD", "env:GOOD "] {
            let finding = get(reference).unwrap_err();
            assert!(finding.message.contains("a blank"), "{finding:?}");
        }
    }

    #[test]
    fn a_variable_that_is_no_text_is_set() {
        let pairs = [
            ("CRYPTIC", &b"/etc/\xff.yaml"[..]),
            ("PLAIN", b"a"),
            ("EMPTY", b""),
        ];
        let pairs = pairs.map(|(name, value)| (name.into(), OsStr::from_bytes(value).to_owned()));
        let env = Environment::from_os(pairs);
        let mut resolver = Resolver::new(&env, Path::new(""));
        let finding = resolver.secret("env:CRYPTIC").unwrap_err();
        assert_eq!(finding.message, not_text("CRYPTIC"));
        assert!(finding.hint.unwrap().contains("file:PATH"));
        let cryptic = PathBuf::from(OsStr::from_bytes(b"/etc/\xff.yaml"));
        assert_eq!(env.path("CRYPTIC"), Some(cryptic));
        assert_eq!(env.path("PLAIN"), Some("a".into()));
        assert_eq!(env.path("EMPTY"), None);
        let loaded =
            crate::config::load_text("x", "version: ${env:CRYPTIC:-1}\n", Path::new(""), &env);
        let report = loaded.report.to_string();
        assert!(
            report.contains("1:10: error: version: environment variable `CRYPTIC` is not UTF-8"),
            "{report}"
        );
    }

    #[test]
    fn no_message_repeats_a_secret() {
        // SECURITY L-03
        let env = Environment::from_pairs([("NAME", "canary")]);
        assert_eq!(format!("{env:?}"), "Environment(1 variables)");
        let dir = Path::new(".");
        for reference in ["canary", "canary:x", "value:canary", "$canary"] {
            let shown = match secret(reference, dir) {
                Ok((_, _)) => continue,
                Err(finding) => format!("{finding:?}"),
            };
            assert!(!shown.contains("canary"), "{shown}");
        }
    }
}
