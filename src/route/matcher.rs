//! Which route takes a request. Precedence is judged from the left: host, then segment by segment.
//!
//! Exact host before `*.` host before any; a literal segment before `{name}` before `{*rest}`. The
//! order of the file never matters; routes that match the same requests equally are refused when
//! the table is built. Paths are compared byte for byte: nothing is decoded or folded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use http::Method;

use super::Route;

/// Host, path and methods of a route.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPattern,
    /// Which methods. Never empty.
    pub methods: Vec<Method>,
    /// Further methods, of the handshakes of its presets: nothing else comes with them.
    pub handshakes: Vec<Method>,
}

impl RouteMatch {
    /// Every method that it takes.
    pub fn all_methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.iter().chain(&self.handshakes)
    }

    /// Whether it takes a method.
    pub fn takes(&self, method: &Method) -> bool {
        self.all_methods().any(|own| own == method)
    }
}

/// Which hosts a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Any host.
    Any,
    /// This host, lower case, without port and trailing dot.
    Exact(Arc<str>),
    /// One label before this suffix, which begins with a dot: `*.example.org` is `.example.org`.
    Wildcard(Arc<str>),
}

/// A pattern that does not parse; the message says what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl HostPattern {
    /// Parses `hooks.example.org` or `*.example.org`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let host = normalize_host(text);
        let (pattern, name): (fn(Arc<str>) -> Self, &str) = match host.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') => (Self::Wildcard, suffix),
            Some(_) => {
                return Err(PatternError(format!(
                    "`{text}` is not a host; a wildcard stands for one whole label: `\"*.example.org\"`"
                )));
            }
            None => (Self::Exact, host.as_str()),
        };
        let address = name.starts_with('[') && name.ends_with(']');
        let legal = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if let Some(rest) = host.strip_prefix('.') {
            return Err(PatternError(format!(
                "`{text}` is not a host; `\"*.{rest}\"` stands for one label before it"
            )));
        }
        let labels = name.strip_prefix('.').unwrap_or(name);
        if !address && (!legal || labels.split('.').any(str::is_empty)) {
            let hint = if name.contains("://") {
                "; write the name alone, without scheme and path"
            } else if name.contains(':') {
                "; leave the port out"
            } else {
                ""
            };
            return Err(PatternError(format!("`{text}` is not a host{hint}")));
        }
        Ok(pattern(name.into()))
    }
}

/// A host as it is compared: lower case, without one trailing dot.
pub fn normalize_host(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// One segment of a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// These bytes.
    Literal(Arc<str>),
    /// One non-empty segment, by name.
    Param(Arc<str>),
    /// The tail, also an empty one, by name; always last.
    Rest(Arc<str>),
}

/// Which paths a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: Arc<str>,
    segments: Vec<Segment>,
}

impl PathPattern {
    /// Parses `/hooks/github`, `/hooks/{name}` or `/hooks/{*rest}`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let refuse = |why: &str| Err(PatternError(format!("`{text}` is not a path: {why}")));
        let Some(tail) = text.strip_prefix('/') else {
            return refuse("it must begin with `/`");
        };
        if text.contains(['?', '#']) || text.chars().any(|c| c.is_ascii_control() || c == ' ') {
            return refuse("write it as it stands in the request line, without query");
        }
        let parts: Vec<&str> = tail.split('/').collect();
        let mut segments = Vec::with_capacity(parts.len());
        let mut names = HashSet::new();
        for (index, part) in parts.iter().enumerate() {
            let inner = part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'));
            let segment = match inner {
                None if part.contains(['{', '}']) => {
                    return refuse("`{name}` stands for a whole segment");
                }
                None => Segment::Literal((*part).into()),
                Some(name) => {
                    let (rest, name) = match name.strip_prefix('*') {
                        Some(name) => (true, name),
                        None => (false, name),
                    };
                    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    if name.is_empty() || !name.chars().all(legal) {
                        return refuse("names are letters, digits and `_`");
                    }
                    if !names.insert(name) {
                        return refuse("each name may stand once");
                    }
                    if rest && index + 1 != parts.len() {
                        return refuse("`{*rest}` can only stand at the end");
                    }
                    if rest {
                        Segment::Rest(name.into())
                    } else {
                        Segment::Param(name.into())
                    }
                }
            };
            segments.push(segment);
        }
        Ok(Self {
            text: text.into(),
            segments,
        })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Names of its `{name}` segments.
    pub fn params(&self) -> impl Iterator<Item = &Arc<str>> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Param(name) => Some(name),
            Segment::Literal(_) | Segment::Rest(_) => None,
        })
    }

    /// The raw text of the segment that `{name}` stands for in `path`, which must match.
    pub fn param<'p>(&self, name: &str, path: &'p str) -> Option<&'p str> {
        let position = self
            .segments
            .iter()
            .position(|segment| matches!(segment, Segment::Param(param) if &**param == name))?;
        path.strip_prefix('/')?.split('/').nth(position)
    }

    /// `path`, which must match, with the segment of `{name}` replaced by `***`: for logs.
    pub fn mask(&self, name: &str, path: &str) -> String {
        let masked = path.split('/').enumerate().map(|(index, part)| {
            let segment = index
                .checked_sub(1)
                .and_then(|index| self.segments.get(index));
            match segment {
                Some(Segment::Param(param)) if &**param == name => "***",
                _ => part,
            }
        });
        masked.collect::<Vec<_>>().join("/")
    }
}

/// All routes, ready for look-up.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    exact: ByName<Node>,
    wildcard: ByName<Node>,
    any: Node,
    literals: HashSet<Arc<str>>,
    /// Whether some route takes a token from the path.
    has_path_tokens: bool,
    /// Whether some route takes a secret from the path or the query.
    has_url_secrets: bool,
}

/// By a name that the operator wrote. A request cannot make names collide, because it only looks them up.
type ByName<T> = HashMap<Arc<str>, T, foldhash::fast::RandomState>;

/// A place in the tree of paths under one host.
#[derive(Debug, Default)]
struct Node {
    literals: ByName<Self>,
    param: Option<Box<Self>>,
    here: Vec<Arc<Route>>,
    rest: Vec<Arc<Route>>,
}

/// Two routes that match the same requests equally; indexes into the list given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The earlier one.
    pub first: usize,
    /// The later one.
    pub second: usize,
}

/// What the table says about a request.
#[derive(Debug)]
pub enum Found<'t> {
    /// This route takes it.
    Route(&'t Arc<Route>),
    /// The most specific pattern is of these routes, but none has the method.
    MethodNotAllowed(&'t [Arc<Route>]),
    /// Nothing matches.
    Nothing,
}

impl RouteTable {
    /// Builds the table, or names every route that is as specific as an earlier one.
    pub fn build(routes: Vec<Arc<Route>>) -> Result<Self, Vec<Conflict>> {
        let mut table = Self::default();
        let mut indexes: BTreeMap<*const Route, usize> = BTreeMap::new();
        let mut conflicts = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let root = match &route.matches.host {
                HostPattern::Any => &mut table.any,
                HostPattern::Exact(host) => table.exact.entry(Arc::clone(host)).or_default(),
                HostPattern::Wildcard(suffix) => {
                    table.wildcard.entry(Arc::clone(suffix)).or_default()
                }
            };
            let leaf = root.leaf(&route.matches.path.segments);
            let shares = |other: &&Arc<Route>| {
                let mut methods = route.matches.all_methods();
                methods.any(|method| other.matches.takes(method))
            };
            // One conflict for each route is enough: a file that repeats a route would have one for each pair.
            if let Some(other) = leaf.iter().find(shares) {
                let first = indexes.get(&Arc::as_ptr(other)).copied();
                conflicts.push(Conflict {
                    first: first.unwrap_or(index),
                    second: index,
                });
            }
            leaf.push(Arc::clone(route));
            indexes.insert(Arc::as_ptr(route), index);
            table.has_path_tokens |= route.auth.takes_path_tokens();
            table.has_url_secrets |= route.auth.takes_secrets_in_url();
            for segment in &route.matches.path.segments {
                if let Segment::Literal(text) = segment {
                    table.literals.insert(Arc::clone(text));
                }
            }
        }
        table.routes = routes;
        if conflicts.is_empty() {
            Ok(table)
        } else {
            Err(conflicts)
        }
    }

    /// All routes, in the order of the file.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route for a normalized host, a raw path and a method.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Found<'_> {
        let leaf = self.leaf(host, path);
        if leaf.is_empty() {
            return Found::Nothing;
        }
        match leaf.iter().find(|route| route.matches.takes(method)) {
            Some(route) => Found::Route(route),
            None => Found::MethodNotAllowed(leaf),
        }
    }

    /// Routes of the most specific pattern that matches, whatever their methods.
    fn leaf(&self, host: &str, path: &str) -> &[Arc<Route>] {
        let Some(tail) = path.strip_prefix('/') else {
            return &[];
        };
        let suffix = host.find('.').and_then(|dot| host.get(dot..));
        let roots = [
            self.exact.get(host),
            suffix.and_then(|suffix| self.wildcard.get(suffix)),
            Some(&self.any),
        ];
        roots
            .into_iter()
            .flatten()
            .find_map(|root| root.find(tail))
            .unwrap_or(&[])
    }

    /// Whether `route` takes segments that may be anything, where tokens stand in paths: the URL of another route,
    /// mistyped, would show its token there (SECURITY L-08).
    pub fn may_stray(&self, route: &Route) -> bool {
        let is_open = |segment: &Segment| !matches!(segment, Segment::Literal(_));
        self.has_path_tokens && route.matches.path.segments.iter().any(is_open)
    }

    /// A path for the log of a request that no route took. Where secrets stand in URLs, segments that stand in no route
    /// might be one, mistyped or behind an escaped `?`, and are masked (SECURITY L-08).
    pub fn mask_unmatched(&self, path: &str) -> String {
        if !self.has_url_secrets {
            return path.to_owned();
        }
        let shown = |part: &&str| part.is_empty() || self.literals.contains(*part);
        let masked = path
            .split('/')
            .map(|part| if shown(&part) { part } else { "***" });
        masked.collect::<Vec<_>>().join("/")
    }
}

impl Node {
    fn leaf(&mut self, segments: &[Segment]) -> &mut Vec<Arc<Route>> {
        match segments.split_first() {
            None => &mut self.here,
            Some((Segment::Literal(text), tail)) => self
                .literals
                .entry(Arc::clone(text))
                .or_default()
                .leaf(tail),
            Some((Segment::Param(_), tail)) => self.param.get_or_insert_default().leaf(tail),
            Some((Segment::Rest(_), _)) => &mut self.rest,
        }
    }

    /// `tail` is what follows the slash that led here. Depth is bounded by the deepest pattern.
    fn find(&self, tail: &str) -> Option<&[Arc<Route>]> {
        let (segment, next) = match tail.split_once('/') {
            Some((segment, next)) => (segment, Some(next)),
            None => (tail, None),
        };
        let descend = |node: &'_ Self| -> bool { next.is_some() || !node.here.is_empty() };
        let literal = self.literals.get(segment).filter(|node| descend(node));
        let param = self
            .param
            .as_deref()
            .filter(|node| !segment.is_empty() && descend(node));
        for node in [literal, param].into_iter().flatten() {
            let found = match next {
                Some(next) => node.find(next),
                None => Some(node.here.as_slice()),
            };
            if found.is_some() {
                return found;
            }
        }
        (!self.rest.is_empty()).then_some(self.rest.as_slice())
    }
}
