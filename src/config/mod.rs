//! `hookward.yaml`: from text to the settings and routes that the rest of the program uses.
//!
//! `spec.rs` is the shape, `compile/` the meaning, `resolve.rs` the only reader of files, secrets and
//! environment. Every problem of a file is found in one run: a part that is wrong is reported and
//! left out, and the rest is read on.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

mod certificate;
mod compile;
mod echo;
mod pem_form;
mod presets;
mod resolve;
mod schema;
mod secret_file;
mod secret_form;
mod spec;
mod value;

pub use resolve::{Environment, Stamp};
pub use schema::SCHEMA;
pub use secret_form::SecretForm;

use crate::document::Document;
use crate::problem::{Mark, Problem, Report, Severity};
use crate::route::matcher::RouteTable;
use crate::scheme::catalog::Catalog;
use crate::secret::Secret;
use crate::settings::{Limits, ListenerSettings, StateSettings, UpstreamSettings};
use resolve::{Finding, Resolver};

/// Everything that a configuration asks for, ready to use.
#[derive(Debug)]
pub struct Config {
    /// Where probes and metrics are served.
    pub admin: Option<SocketAddr>,
    /// Listeners, in the order of the file. Names are unique.
    pub listeners: Vec<ListenerSettings>,
    /// Limits of the whole gateway.
    pub limits: Limits,
    /// Where replay claims and rates are kept.
    pub state: StateSettings,
    /// Upstreams: those with a name, then those that a route gave as a URL.
    pub upstreams: Vec<UpstreamSettings>,
    /// Routes. Each upstream that they name is one of `upstreams`.
    pub routes: RouteTable,
}

/// What came of loading a configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; `None` when the report has errors.
    pub config: Option<Config>,
    /// Everything that is wrong or doubtful.
    pub report: Report,
    /// Every file that it was made from, the configuration first: a change calls for a reload.
    pub watched: Vec<(PathBuf, Stamp)>,
    /// Whether the configuration file itself could not be read.
    pub unreadable: bool,
}

/// Loads a configuration file. Relative paths in it start from its folder.
pub fn load(file: &Path, env: &Environment) -> Loaded {
    load_by(resolve::read_config, file, env)
}

/// Loads a configuration file again. One that is not a regular file is an error, because it cannot be read twice.
pub fn reload(file: &Path, env: &Environment) -> Loaded {
    load_by(resolve::reread_config, file, env)
}

fn load_by(read: fn(&Path) -> io::Result<Vec<u8>>, file: &Path, env: &Environment) -> Loaded {
    let name = file.display().to_string();
    let stamp = Stamp::of(file);
    let failed = |mark, message, hint, unreadable| {
        let mut report = Report::new(&name);
        report.push(error(mark, message, hint));
        Loaded {
            config: None,
            report,
            watched: vec![(file.to_owned(), stamp)],
            unreadable,
        }
    };
    let bytes = match read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let message = format!("cannot read the configuration: {}", resolve::reason(&error));
            let hint = match std::path::absolute(file) {
                Ok(full) if file.is_relative() => {
                    format!("it is looked for at {}; ", full.display())
                }
                _ => String::new(),
            };
            let is_missing = error.kind() == io::ErrorKind::NotFound;
            let hint = is_missing.then(|| hint + "`-c FILE` or `HOOKWARD_CONFIG` names another");
            return failed(Mark::START, message, hint, true);
        }
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let before = error.as_bytes().get(..good).unwrap_or_default();
            let mark = end_of(&String::from_utf8_lossy(before));
            let bytes = error.as_bytes();
            let message = if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
                "UTF-16, and not UTF-8"
            } else {
                "not UTF-8"
            };
            let hint = Some("save the file as UTF-8".to_owned());
            return failed(mark, message.to_owned(), hint, false);
        }
    };
    let dir = file.parent().unwrap_or(Path::new(""));
    let mut loaded = load_text(&name, &text, dir, env);
    loaded.watched.insert(0, (file.to_owned(), stamp));
    loaded
}

/// Loads a configuration from memory: `name` stands in messages, relative paths start from `dir`.
pub fn load_text(name: &str, text: &str, dir: &Path, env: &Environment) -> Loaded {
    let mut resolver = Resolver::new(env, dir);
    let (config, mut problems) = match Document::parse(text) {
        Ok(document) => compile(document, &mut resolver),
        Err(problems) => (None, problems),
    };
    // A mistake under an anchor is found wherever the anchor is used, and is reported once.
    let mut told = HashSet::new();
    problems.retain(|own| told.insert((own.file.clone(), own.mark, own.message.clone())));
    problems.sort_by_key(|problem| problem.mark);
    problems.iter_mut().for_each(echo::shorten);
    let mut report = Report::new(name);
    for problem in problems {
        report.push(problem);
    }
    let config = config.filter(|_| !report.has_errors());
    Loaded {
        config,
        report,
        watched: resolver.into_watched(),
        unreadable: false,
    }
}

fn compile(mut document: Document, resolver: &mut Resolver<'_>) -> (Option<Config>, Vec<Problem>) {
    let env = resolver.env;
    let mut unset = Vec::new();
    let lookup = |name: &str| match env.get(name) {
        None if env.is_not_text(name) => Err(resolve::not_text(name)),
        value => Ok(value.map(str::to_owned)),
    };
    document.interpolate(&lookup, &mut unset);
    let mut problems = Vec::new();
    let spec = document.decode(&mut problems);
    document.forget_values();
    let config = spec.and_then(|spec| compile::config(&spec, &document, resolver, &mut problems));
    // An unset variable is reported once, not again as a wrong value. A text that only looks like a variable is
    // explained better where it is read.
    let (unset, doubtful): (Vec<_>, Vec<_>) = unset
        .into_iter()
        .partition(|problem| problem.severity == Severity::Error);
    problems.retain(|problem| unset.iter().all(|first| first.path != problem.path));
    let names_env = |problem: &Problem| {
        problem
            .hint
            .as_ref()
            .is_some_and(|hint| hint.contains("env:"))
    };
    let is_explained = |doubt: &Problem| {
        let mut there = problems.iter().filter(|other| other.path == doubt.path);
        there.any(names_env)
    };
    let doubtful: Vec<_> = doubtful
        .into_iter()
        .filter(|own| !is_explained(own))
        .collect();
    problems.extend(doubtful.into_iter().chain(unset));
    for problem in &mut problems {
        document.redact(problem);
    }
    (config, problems)
}

/// Resolves a secret reference (`env:NAME`, `file:PATH`, `value:TEXT`) from the command line.
pub fn secret(reference: &str, env: &Environment, base: &Path) -> Result<Secret, String> {
    match Resolver::new(env, base).for_verb().public(reference) {
        Ok(resolved) => Ok(resolved.secret),
        Err(finding) => Err(in_one_line(finding)),
    }
}

/// What a secret may have been meant to be, each with the form that it is in: for `hookward verify`.
pub fn secret_forms(secret: &[u8]) -> Vec<(SecretForm, Secret)> {
    let meant = secret_form::meant(secret).into_iter();
    meant
        .map(|(form, bytes)| (form, Secret::new(bytes)))
        .collect()
}

/// A report of why there is no configuration at all.
pub fn unusable(message: &str) -> Report {
    let mut report = Report::new("hookward.yaml");
    report.push(error(Mark::START, message.to_owned(), None));
    report
}

/// An I/O error in words, as problems of a configuration have it.
pub fn reason(error: &io::Error) -> String {
    resolve::reason(error)
}

/// The certificates of the PEM text of a file, at least one.
pub fn certificates(pem: &[u8], path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    certificate::parse_chain(pem, path).map_err(in_one_line)
}

fn in_one_line(finding: Finding) -> String {
    match finding.hint {
        Some(hint) => format!("{}; {hint}", finding.message),
        None => finding.message,
    }
}

/// The presets of the program, and those of a folder over them.
pub fn catalog(providers_dir: Option<&Path>) -> Result<Catalog, Vec<Report>> {
    let mut catalog = Catalog::built_in();
    let Some(folder) = providers_dir else {
        return Ok(catalog);
    };
    let env = Environment::empty();
    let mut resolver = Resolver::new(&env, Path::new(""));
    let name = folder.to_string_lossy();
    let reports = presets::add_folder(&mut catalog, &name, &mut resolver)
        .unwrap_or_else(|finding| vec![presets::report(&name, finding)]);
    if reports.is_empty() {
        Ok(catalog)
    } else {
        Err(reports)
    }
}

/// What to say of a name that no preset has: which ones may have been meant.
pub fn near_presets(name: &str, catalog: &Catalog) -> Option<String> {
    let near = presets::near(name, &catalog.names());
    (!near.is_empty()).then(|| format!("did you mean `{}`?", near.join("`, `")))
}

fn error(mark: Mark, message: String, hint: Option<String>) -> Problem {
    Problem {
        file: None,
        mark,
        path: String::new(),
        message,
        hint,
        severity: Severity::Error,
    }
}

fn end_of(text: &str) -> Mark {
    let line = text.matches('\n').count() + 1;
    let column = text
        .rsplit('\n')
        .next()
        .map_or(0, |last| last.chars().count())
        + 1;
    Mark { line, column }
}
