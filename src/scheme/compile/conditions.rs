//! What must hold of a request, and when something of a preset counts.

use http::Method;

use super::{Compiler, get};
use crate::document::{At, OneOrMany};
use crate::scheme::Require;
use crate::scheme::locate::{Location, Pointer};
use crate::scheme::spec::{Ordered, RequireSpec, WhenSpec};
use crate::scheme::when::When;

impl Compiler<'_> {
    pub(in crate::scheme) fn require(&mut self, at: &At<RequireSpec>) -> Option<Require> {
        let spec = at.get()?;
        let header = spec
            .header
            .as_ref()
            .and_then(|at| self.header(at))
            .map(Location::Header);
        let query = spec.query.as_ref().and_then(|at| self.text(at));
        let query = query.map(|name| Location::Query(name.into()));
        let json = spec
            .json
            .as_ref()
            .and_then(|at| self.pointer(at))
            .map(Location::Json);
        let place = header.or(query).or(json);
        if place.is_none() {
            self.error(
                at,
                "say where the value stands: `header`, `query` or `json`",
            );
        }
        if spec.equals.is_none() && spec.contains.is_none() {
            self.error(at, "say what the value must be: `equals` or `contains`");
        }
        let is_secret = |at: &At<String>| at.get().is_some_and(|text| text == "{secret}");
        let secret = get(&spec.equals).is_some_and(|OneOrMany(all)| all.iter().any(is_secret));
        let pointer = get(&spec.json).filter(|text| text.split('/').any(|token| token == "*"));
        Some(Require {
            place: place?,
            secret,
            each: pointer.and_then(|text| Pointer::parse(text)),
            contains: get(&spec.contains).cloned().unwrap_or_default(),
            base64_json: spec.base64_json.as_ref().and_then(|at| self.pointer(at)),
            item: get(&spec.item).cloned(),
            separator: get(&spec.separator)
                .cloned()
                .unwrap_or_else(|| ",".to_owned()),
            equals: match &spec.equals {
                Some(at) if !secret => self.choices(at),
                _ => Vec::new(),
            },
            optional: get(&spec.optional).copied().unwrap_or_default(),
        })
    }

    pub(in crate::scheme) fn when(&mut self, at: &At<WhenSpec>) -> When {
        at.get().map(|spec| self.when_of(spec)).unwrap_or_default()
    }

    fn when_of(&mut self, spec: &WhenSpec) -> When {
        let mut when = When {
            body: get(&spec.body).copied(),
            ..When::default()
        };
        if let Some(at) = &spec.method {
            when.method = at
                .get()
                .and_then(|text| Method::from_bytes(text.as_bytes()).ok());
        }
        if let Some(at) = &spec.header {
            when.present.extend(self.header(at).map(Location::Header));
        }
        if let Some(at) = &spec.query {
            when.present
                .extend(self.text(at).map(|name| Location::Query(name.into())));
        }
        if let Some(at) = &spec.form {
            when.present
                .extend(self.text(at).map(|name| Location::Form(name.into())));
        }
        when.any_query = get(&spec.any_query).copied().unwrap_or_default();
        if let Some(at) = &spec.not {
            let not = at.get().map(|own| self.when_of(own));
            when.not = not.map(Box::new);
        }
        if let Some(at) = &spec.json {
            when.present.extend(self.pointer(at).map(Location::Json));
        }
        if let Some(name) = get(&spec.param) {
            let value = self.params.get(name);
            when.never = value.is_none_or(is_off);
        }
        equal_to(&mut when, &spec.header_equals, |name| {
            Some(Location::Header(name.parse().ok()?))
        });
        equal_to(&mut when, &spec.query_equals, |name| {
            Some(Location::Query(name.into()))
        });
        equal_to(&mut when, &spec.json_equals, |name| {
            Some(Location::Json(Pointer::parse(name)?))
        });
        when
    }
}

/// Adds values that must be equal, each at the place that `place` makes of its name.
fn equal_to(
    when: &mut When,
    values: &Option<At<Ordered<String>>>,
    place: impl Fn(&str) -> Option<Location>,
) {
    for (name, value) in get(values).map(Ordered::iter).into_iter().flatten() {
        let place = place(name);
        when.equal.extend(place.map(|place| (place, value.clone())));
    }
}

/// Whether a param says no: `false`, also as the environment writes it.
fn is_off(value: &serde_json::Value) -> bool {
    *value == serde_json::Value::Bool(false) || value.as_str() == Some("false")
}
