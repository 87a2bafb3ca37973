//! What of a request goes into a template, and where in it a value begins and ends.

use super::filter::Filter;
use super::json_shape::Shape;
use super::{Segment, Source, Template, Value};
use crate::scheme::locate::Location;

impl Template {
    fn uses(&self, wanted: &dyn Fn(&Source) -> bool) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Literal(_) => false,
            Segment::Value(value) => {
                wanted(&value.source)
                    || matches!(&value.source, Source::Text(inner) if inner.uses(wanted))
            }
        })
    }

    /// Whether the whole body goes in.
    pub(in crate::scheme) fn covers_body(&self) -> bool {
        self.covers_any_body()
            || self.uses(&|source| matches!(source, Source::Fields(fields) if fields.is_of_body()))
    }

    /// Whether it ends in the secret as it is.
    pub(in crate::scheme) fn ends_in_secret(&self) -> bool {
        match self.segments.last() {
            Some(Segment::Value(value)) => {
                matches!(value.source, Source::Secret) && value.filters.is_empty()
            }
            _ => false,
        }
    }

    /// Whether the boundary of the body in the signed content is fixed, so that bytes cannot be moved between the
    /// body and the values next to it. An id counts as delimited if `has_id_form`; times always are; URLs and
    /// header fields are, if a line break separates them from the body.
    pub(in crate::scheme) fn fix_body<'t>(
        texts: impl Iterator<Item = &'t Self>,
        has_id_form: bool,
    ) -> bool {
        let segments: Vec<&Segment> = texts.flat_map(|text| &text.segments).collect();
        let is_body = |segment: &&Segment| match segment {
            Segment::Literal(_) => false,
            Segment::Value(value) => matches!(value.source, Source::Body | Source::Json(..)),
        };
        let ends_line = |segment: &&Segment| match segment {
            Segment::Literal(text) => text.contains('\n'),
            Segment::Value(_) => false,
        };
        let body = segments.iter().position(is_body);
        let is_apart = |at: usize| {
            let body = body.unwrap_or(at);
            let between = segments.get(at.min(body)..at.max(body));
            between.is_some_and(|between| between.iter().any(ends_line))
        };
        segments
            .iter()
            .enumerate()
            .all(|(at, segment)| match segment {
                Segment::Literal(_) => true,
                Segment::Value(value) => {
                    value.is_fixed(has_id_form) || (value.is_of_one_line() && is_apart(at))
                }
            })
    }

    /// Whether the bytes of the body go in, not what is read in them.
    pub(in crate::scheme) fn is_over_bytes(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Body))
    }

    /// Whether only a form body goes in: another one is left out.
    pub(in crate::scheme) fn covers_only_form(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Fields(fields) if fields.is_of_form()))
    }

    /// Whether the whole body goes in, whatever it is.
    pub(in crate::scheme) fn covers_any_body(&self) -> bool {
        self.uses(&|source| match source {
            Source::Body => true,
            Source::Json(_, pointer) => pointer.is_root(),
            _ => false,
        })
    }

    /// Whether the query goes in, or fields of it, and nothing else of a request.
    pub(in crate::scheme) fn is_of_query(&self) -> bool {
        let of_query = |source: &Source| match source {
            Source::Query | Source::Place(Location::Query(_)) => true,
            Source::Fields(fields) => fields.is_of_query(),
            _ => false,
        };
        let of_none = |source: &Source| matches!(source, Source::Secret | Source::Text(_));
        self.uses(&of_query) && !self.uses(&|source| !of_query(source) && !of_none(source))
    }

    /// Whether JSON goes in with its keys in another order.
    pub(in crate::scheme) fn sorts_json(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Json(Shape::Sorted, _)))
    }

    /// Whether values of the JSON in the body go in.
    pub(in crate::scheme) fn reads_json(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Json(..) | Source::Place(Location::Json(_))))
    }

    /// The fields of a form that go in by themselves.
    pub(in crate::scheme) fn form_fields(&self) -> Vec<&str> {
        let sources = self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Value(value) => Some(&value.source),
        });
        sources
            .flat_map(|source| match source {
                Source::Place(place) => place.form_field().into_iter().collect(),
                Source::Text(inner) => inner.form_fields(),
                _ => Vec::new(),
            })
            .collect()
    }

    /// Whether the timestamp goes in.
    pub(in crate::scheme) fn covers_timestamp(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Timestamp))
    }

    /// Whether the id goes in.
    pub(in crate::scheme) fn covers_id(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Id))
    }

    /// Whether the host of the URL goes in.
    pub(in crate::scheme) fn covers_host(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Host | Source::Origin | Source::Url))
    }

    /// Whether the URL goes in, or a part of it other than the query.
    pub(in crate::scheme) fn covers_url(&self) -> bool {
        let is_of_url = |source: &Source| {
            matches!(
                source,
                Source::Path | Source::PathBelow(_) | Source::Scheme | Source::Target
            )
        };
        self.covers_host() || self.uses(&is_of_url)
    }

    /// Whether it depends on how the URL is written: on a spelling, or on whether a bare path is.
    pub(in crate::scheme) fn depends_on_spelling(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Path | Source::Target | Source::Url))
    }

    /// Whether the secret goes in.
    pub(in crate::scheme) fn covers_secret(&self) -> bool {
        self.uses(&|source| matches!(source, Source::Secret))
    }

    /// Whether the value at `place` goes in by itself.
    pub(in crate::scheme) fn covers(&self, place: &Location) -> bool {
        self.uses(&|source| match (source, place) {
            (Source::Place(own), place) => own == place,
            (Source::Json(_, own), Location::Json(pointer)) => own == pointer,
            _ => false,
        })
    }

    /// Whether the value at `place` goes in as one of pairs, see `Fields::shows`.
    pub(in crate::scheme) fn shows_pair(&self, place: &Location) -> bool {
        let name = match place {
            Location::Form(name) => Some(&**name),
            Location::Json(pointer) => pointer.member(),
            _ => None,
        };
        self.uses(&|source| match (source, name) {
            (Source::Fields(fields), Some(name)) => fields.shows(name),
            _ => false,
        })
    }
}

impl Value {
    /// Whether it ends where it did when it was signed, whatever stands beside it.
    fn is_fixed(&self, has_id_form: bool) -> bool {
        match &self.source {
            Source::Body
            | Source::Json(..)
            | Source::Method
            | Source::Secret
            | Source::Timestamp => true,
            Source::Id => has_id_form,
            Source::Text(inner) => Template::fix_body(std::iter::once(&**inner), has_id_form),
            _ => self.has_fixed_length(),
        }
    }

    /// Whether no line can end in it.
    fn is_of_one_line(&self) -> bool {
        let is_of_head = matches!(
            self.source,
            Source::Host
                | Source::Origin
                | Source::Path
                | Source::Place(Location::Header(_))
                | Source::Query
                | Source::Scheme
                | Source::Target
                | Source::Url
        );
        is_of_head && self.filters.is_empty()
    }

    /// Whether it is a digest, which is as long whatever it is of.
    fn has_fixed_length(&self) -> bool {
        let is_digest = |filter: &Filter| matches!(filter, Filter::Digest(_) | Filter::Hmac(_));
        self.filters.iter().any(is_digest)
    }
}
