//! Lists of secrets and public keys: references, ids, ends.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Compiler, PLAIN_NAME, is_plain_name, value};
use crate::config::resolve::{Finding, Resolved};
use crate::config::spec::{SecretSpec, Secrets};
use crate::document::{At, OneOrMany, Parsed, Place, TextOr};
use crate::scheme;
use crate::secret::Secret;
use crate::units::UnixTime;

/// A key as written, its reference resolved.
pub(super) struct Written {
    pub(super) id: Arc<str>,
    pub(super) bytes: Secret,
    pub(super) not_after: Option<UnixTime>,
    pub(super) place: Place,
}

/// What could be read of a list.
#[derive(Default)]
pub(super) struct WrittenList {
    pub(super) keys: Vec<Written>,
    /// Whether that is all of it.
    pub(super) is_complete: bool,
}

/// Whether what is referred to must be kept secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Public,
    Secret,
}

/// One item of a list, in either form.
struct Item<'s> {
    id: Option<(&'s String, Place)>,
    /// `None` when it has been reported as wrong.
    reference: Option<(&'s String, Place)>,
    not_after: Option<(UnixTime, Place)>,
}

impl Compiler<'_, '_> {
    /// Resolves every item of a list that must not be empty.
    pub(super) fn written(&mut self, at: &At<Secrets>, kind: Kind, route: &str) -> WrittenList {
        let Some((OneOrMany(items), place)) = value(Some(at)) else {
            return WrittenList::default();
        };
        if items.is_empty() {
            let hint = match kind {
                Kind::Public => "such as `[file:key.pem]`",
                Kind::Secret => "such as `[env:WEBHOOK_SECRET]`",
            };
            self.error(&place, "the list is empty, so no request could pass", hint);
            return WrittenList::default();
        }
        let parsed: Vec<_> = items.iter().map(|item| self.item(item)).collect();
        let mut ids = self.explicit_ids(parsed.iter().flatten());
        let mut written = Vec::new();
        for (index, item) in parsed.into_iter().enumerate() {
            let Some(item) = item else { continue };
            let Some((reference, place)) = item.reference else {
                continue;
            };
            let Some(resolved) = self.resolve(reference, &place, kind) else {
                continue;
            };
            let id = match &item.id {
                Some((id, _)) => id.as_str().into(),
                None => default_id(resolved.name.as_deref(), index + 1, &mut ids),
            };
            written.push(Written {
                id,
                bytes: resolved.secret,
                not_after: item.not_after.map(|(end, _)| end),
                place,
            });
        }
        if kind == Kind::Secret {
            self.shared(&written, route);
        }
        self.ends(&written, items);
        WrittenList {
            is_complete: written.len() == items.len(),
            keys: written,
        }
    }

    fn item<'s>(&mut self, at: &'s At<TextOr<SecretSpec>>) -> Option<Item<'s>> {
        let (item, place) = value(Some(at))?;
        match item {
            TextOr::Text(reference) => Some(Item {
                id: None,
                reference: Some((reference, place)),
                not_after: None,
            }),
            TextOr::Full(spec) => {
                let not_after =
                    value(spec.not_after.as_ref()).map(|(Parsed(end), place)| (*end, place));
                if let Some((end, place)) = &not_after
                    && end.is_past_calendars()
                {
                    let message = format!("`{}` is past the year 9999", end.secs());
                    let hint = "a time is in seconds, not in milliseconds";
                    self.error(place, message, hint);
                }
                Some(Item {
                    id: value(spec.id.as_ref()),
                    reference: self.required(&spec.from, &place.path, "from"),
                    not_after,
                })
            }
        }
    }

    fn resolve(&mut self, reference: &str, place: &Place, kind: Kind) -> Option<Resolved> {
        let resolved = match kind {
            Kind::Public => self.resolver.public(reference),
            Kind::Secret => self.resolver.secret(reference),
        };
        let mut resolved = self.reported(resolved, place)?;
        for warning in resolved.warnings.drain(..) {
            self.doubt(place, warning);
        }
        Some(resolved)
    }

    /// Warns of a reference where none is read, so that the text itself is taken.
    pub(super) fn reference_outside(&mut self, text: &str, place: &Place) {
        let hint = match text.split_once(':') {
            Some(("env", name)) if is_variable(name) => format!("write `${{env:{name}}}`"),
            Some(("file", path)) if !path.is_empty() && !path.contains(' ') => {
                "write the text itself; a variable is filled in by `${env:NAME}`".to_owned()
            }
            _ => return,
        };
        let message = "references are read in secrets only: here, this is the value itself";
        self.warn(place, message, hint.as_str());
    }

    /// The ids that were written, each of which must be the only one of its kind.
    fn explicit_ids<'i>(&mut self, items: impl Iterator<Item = &'i Item<'i>>) -> HashSet<Arc<str>> {
        let mut ids = HashSet::new();
        for (id, place) in items.filter_map(|item| item.id.as_ref()) {
            if !is_plain_name(id) {
                self.error(place, format!("`{id}` is not an id"), PLAIN_NAME);
            } else if !ids.insert(Arc::from(id.as_str())) {
                self.error(
                    place,
                    format!("another key of this check has the id `{id}`"),
                    None,
                );
            }
        }
        ids
    }

    /// Warns of a secret that stands twice in a list, or in two routes: what is signed for one is
    /// then signed for the other (SECURITY A-25).
    pub(super) fn shared(&mut self, written: &[Written], route: &str) {
        let mut here: Vec<([u8; 32], &str)> = Vec::new();
        for key in written {
            let digest = scheme::digest(&[key.bytes.expose()]);
            if let Some((_, id)) = here.iter().find(|(other, _)| *other == digest) {
                self.warn(
                    &key.place,
                    format!("the same secret as `{id}`"),
                    "remove one",
                );
                continue;
            }
            here.push((digest, &key.id));
            match self.secrets.get(&digest) {
                Some(other) if **other != *route => {
                    let message = format!("route `{other}` has the same secret");
                    let hint =
                        "give each route its own, or a request for one can be sent to the other";
                    self.warn(&key.place, message, hint);
                }
                Some(_) => {}
                None => {
                    self.secrets.insert(digest, route.into());
                }
            }
        }
    }

    /// An end in the past is not an error: a gateway that served yesterday must still start for its other
    /// routes; the key itself no longer counts.
    fn ends(&mut self, written: &[Written], items: &[At<TextOr<SecretSpec>>]) {
        let now = self.resolver.env.now();
        let is_over = |key: &&Written| key.not_after.is_some_and(|end| end <= now);
        let over: Vec<&Written> = written.iter().filter(is_over).collect();
        let all = over.len() == items.len();
        for key in over {
            let end = key.not_after.unwrap_or(now);
            let message = if all {
                format!(
                    "`{}` ended at {end}, as every key of this check: no request can pass",
                    key.id
                )
            } else {
                format!("`{}` ended at {end} and no longer counts", key.id)
            };
            self.doubt(
                &key.place,
                Finding::new(message).hint("remove it, or move `not_after`"),
            );
        }
    }
}

fn is_variable(name: &str) -> bool {
    let is_sign = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(is_sign)
}

/// A stable id that tells nothing: the variable, the file's stem, or the position.
fn default_id(name: Option<&str>, position: usize, ids: &mut HashSet<Arc<str>>) -> Arc<str> {
    let is_plain = |c: &char| is_plain_name(c.encode_utf8(&mut [0; 4]));
    let stem: String = name.unwrap_or_default().chars().filter(is_plain).collect();
    let first = if stem.is_empty() {
        format!("key-{position}")
    } else {
        stem
    };
    let mut id: Arc<str> = first.as_str().into();
    let mut copy = 2;
    while !ids.insert(Arc::clone(&id)) {
        id = format!("{first}-{copy}").into();
        copy += 1;
    }
    id
}
