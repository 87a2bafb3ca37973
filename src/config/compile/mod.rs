//! From the shape of a configuration to its meaning, one topic a file.
//!
//! Each function reports what is wrong through [`Compiler`] and returns what is right; `None` means
//! that it has been reported.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;

use super::Config;
use super::certificate;
use super::presets;
use super::resolve::{Finding, Resolver};
use super::spec::{AdminSpec, ConfigSpec};
use super::value::{Address, Network};
use crate::document::{At, Document, OneOrMany, Parsed, Place};
use crate::problem::{Problem, Report};
use crate::route::matcher::RouteTable;
use crate::scheme::Scheme;
use crate::scheme::catalog::{Catalog, Selected};
use crate::settings::ListenerSettings;
use crate::units::Span;

mod basic;
mod checks;
mod credentials;
mod forward;
mod handshakes;
mod keys;
mod limits;
mod listeners;
mod names;
mod policies;
mod routes;
mod signature;
mod state;
mod upstreams;

use handshakes::HandshakesAndAnswers;

/// Longest duration that makes sense anywhere; beyond it arithmetic on time could overflow.
const DURATION_MAX: Duration = Duration::from_hours(8784);

/// What every topic needs: where things stand, what they refer to, and where problems go.
struct Compiler<'a, 'e> {
    document: &'a Document,
    resolver: &'a mut Resolver<'e>,
    problems: &'a mut Vec<Problem>,
    /// How many errors of them were found here.
    errors: usize,
    catalog: Catalog,
    /// Presets that routes have found, by reference; `None` when it has been reported.
    presets: HashMap<String, Option<Selected>>,
    /// Presets bound without params, by reference: thousands of routes may share one.
    bound: HashMap<String, (Arc<Scheme>, HandshakesAndAnswers)>,
    /// Digests of secrets, and the route that has them.
    secrets: HashMap<[u8; 32], Arc<str>>,
    /// Addresses of our own listeners, by name.
    own: Vec<(Arc<str>, SocketAddr)>,
}

/// Compiles a whole configuration.
pub(super) fn config(
    spec: &ConfigSpec,
    document: &Document,
    resolver: &mut Resolver<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    let mut compiler = Compiler {
        document,
        resolver,
        problems,
        errors: 0,
        catalog: Catalog::built_in(),
        presets: HashMap::new(),
        bound: HashMap::new(),
        secrets: HashMap::new(),
        own: Vec::new(),
    };
    compiler.version(&spec.version);
    compiler.presets(spec.providers_dir.as_ref());
    let admin = compiler.admin(spec.admin.as_ref());
    let limits = compiler.limits(spec.limits.as_ref());
    let state = compiler.state(spec.state.as_ref());
    let listeners = compiler.listeners(&spec.listeners, admin);
    let own = listeners.iter();
    compiler.own = own
        .map(|own| (Arc::clone(&own.name), own.address))
        .collect();
    let mut upstreams = compiler.upstreams(spec.upstreams.as_ref());
    // A listener that is wrong, which has been reported, is missing here: it may have asked for certificates.
    let written = spec.listeners.get().map_or(0, |own| own.0.len());
    let asks_for_certificates =
        listeners.len() < written || listeners.iter().any(listeners::asks_for_certificates);
    let mut unnamed = listeners.iter().filter(|own| own.public_url.is_none());
    let world = routes::World {
        limits: &limits,
        asks_for_certificates,
        takes_any_host: unnamed.clone().any(ListenerSettings::takes_tls),
        takes_plain_urls: unnamed.any(ListenerSettings::takes_plain_http),
    };
    let routes = compiler.routes(&spec.routes, &world, &mut upstreams);
    compiler.names_of_certificates(spec, &listeners);
    let routes = RouteTable::build(routes).ok()?;
    Some(Config {
        admin,
        listeners,
        limits,
        state: state.unwrap_or_default(),
        upstreams: upstreams.into_settings(),
        routes,
    })
}

impl Compiler<'_, '_> {
    fn version(&mut self, version: &At<u64>) {
        if version.place().is_none() {
            self.missing("", "version", "this build reads `version: 1`");
        }
        if let Some((found, place)) = value(Some(version))
            && *found != 1
        {
            let message = format!("version {found} is not known");
            self.error(&place, message, "this build reads `version: 1`");
        }
    }

    fn presets(&mut self, folder: Option<&At<String>>) {
        let Some((folder, place)) = value(folder) else {
            return;
        };
        match presets::add_folder(&mut self.catalog, folder, self.resolver) {
            Ok(reports) => {
                for report in reports {
                    self.broken_preset(&report);
                }
            }
            Err(finding) => self.finding(&place, finding),
        }
    }

    /// Reports what is wrong with a preset's file, once: the folder is read, and routes refer to it.
    fn broken_preset(&mut self, report: &Report) {
        for problem in report.abroad() {
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }

    fn admin(&mut self, spec: Option<&At<AdminSpec>>) -> Option<SocketAddr> {
        let (admin, place) = value(spec)?;
        let (Parsed(Address(address)), _) =
            self.required(&admin.address, &place.path, "address")?;
        Some(*address)
    }

    // === reporting ===

    fn error<'h>(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        hint: impl Into<Option<&'h str>>,
    ) {
        self.errors += 1;
        self.problems
            .push(place.error(message, hint.into().map(str::to_owned)));
    }

    fn warn<'h>(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        hint: impl Into<Option<&'h str>>,
    ) {
        self.problems
            .push(place.warning(message, hint.into().map(str::to_owned)));
    }

    fn finding(&mut self, place: &Place, finding: Finding) {
        self.errors += 1;
        self.problems
            .push(place.error(finding.message, finding.hint));
    }

    fn doubt(&mut self, place: &Place, doubt: Finding) {
        self.problems.push(place.warning(doubt.message, doubt.hint));
    }

    /// The place of a key, for what concerns all that stands under it.
    fn key(&self, path: &str) -> Place {
        self.document.place(path)
    }

    /// A key that must be there: its absence is reported at what it is missing from.
    fn required<'s, T>(
        &mut self,
        at: &'s At<T>,
        parent: &str,
        key: &str,
    ) -> Option<(&'s T, Place)> {
        let Some(place) = at.place() else {
            self.missing(parent, key, None);
            return None;
        };
        at.get().map(|value| (value, place.clone()))
    }

    fn missing<'h>(&mut self, parent: &str, key: &str, hint: impl Into<Option<&'h str>>) {
        let place = self.key(parent);
        self.error(&place, format!("the key `{key}` is missing"), hint);
    }

    /// Certificates that were read, with what is to be said of them; `None` when they could not be.
    fn trusted(
        &mut self,
        read: Result<Vec<CertificateDer<'static>>, Finding>,
        file: &str,
        place: &Place,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let certificates = self.reported(read, place)?;
        for doubt in certificate::validities(&certificates, file, self.resolver.env.now()) {
            self.doubt(place, doubt);
        }
        Some(certificates)
    }

    /// What was read; `None` when it was not, which is reported.
    fn reported<T>(&mut self, read: Result<T, Finding>, place: &Place) -> Option<T> {
        read.map_err(|finding| self.finding(place, finding)).ok()
    }

    // === values ===

    /// A duration of a sensible length; `None` when the key is absent.
    fn duration(&mut self, at: Option<&At<Parsed<Span>>>, least: Duration) -> Option<Duration> {
        let (Parsed(Span(duration)), place) = value(at)?;
        if *duration < least {
            self.error(&place, "it must be longer than 0", None);
            return None;
        }
        if *duration > DURATION_MAX {
            self.error(
                &place,
                format!("it is longer than {}", Span(DURATION_MAX)),
                None,
            );
            return None;
        }
        Some(*duration)
    }

    fn positive_duration(&mut self, at: Option<&At<Parsed<Span>>>) -> Option<Duration> {
        self.duration(at, Duration::from_millis(1))
    }

    /// Networks, as they are compared; `None` when the key is absent.
    fn networks(&mut self, at: Option<&At<OneOrMany<Parsed<Network>>>>) -> Option<Vec<IpNet>> {
        let mut nets = Vec::new();
        for (Parsed(Network(net)), place) in values(at)? {
            let meant = net.trunc();
            if *net != meant {
                let message = format!(
                    "the address has more bits than the {} of its prefix: it stands for all of `{meant}`",
                    net.prefix_len()
                );
                let hint = format!("write `{meant}`, or the prefix that is meant");
                self.warn(&place, message, hint.as_str());
            }
            nets.push(meant);
        }
        Some(nets)
    }

    fn base(&self) -> &Path {
        &self.resolver.base
    }
}

/// A key's value and place; `None` when it is absent or has been reported as wrong.
fn value<T>(at: Option<&At<T>>) -> Option<(&T, Place)> {
    let at = at?;
    Some((at.get()?, at.place()?.clone()))
}

/// The good values of a list with their places; `None` when the key is absent.
fn values<T>(at: Option<&At<OneOrMany<T>>>) -> Option<Vec<(&T, Place)>> {
    let (OneOrMany(items), _) = value(at)?;
    Some(items.iter().filter_map(|item| value(Some(item))).collect())
}

/// A hint that names the closest of `known`, else all of them.
fn known_names<'n>(word: &str, known: impl Iterator<Item = &'n str> + Clone) -> Option<String> {
    if let Some(close) = crate::problem::suggest(word, known.clone()) {
        return Some(format!("did you mean `{close}`?"));
    }
    let list: Vec<_> = known.map(|name| format!("`{name}`")).collect();
    (!list.is_empty() && list.len() <= 12).then(|| format!("known here: {}", list.join(", ")))
}

/// Whether `text` can be a name in logs, metric labels and header values.
fn is_plain_name(text: &str) -> bool {
    let legal =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '@' | '+');
    !text.is_empty() && text.len() <= 128 && text.chars().all(legal)
}

/// What `is_plain_name` asks for.
const PLAIN_NAME: &str = "use letters, digits and `-_.:/@+`, at most 128";
