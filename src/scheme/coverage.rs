//! What a signature covers, and what it leaves for a stranger to change.

use data_encoding::HEXLOWER_PERMISSIVE;

use super::locate::{self, Location, View, find};
use super::parse::SignatureForm;
use super::primitive::{Digest, same_tag};
use super::template::Template;
use super::verify::unreadable;
use super::{Part, Proof, Scheme, SignatureError, jwt};
use crate::reason::Reason;

/// Values that are signed without all that stands around them, where anybody can add what other readers take for
/// them: found when the scheme is loaded.
#[derive(Clone, Debug, Default)]
pub(super) struct Loose {
    /// Whether they are of the JSON in the body.
    pub(super) json: bool,
    /// Whether they may be of the query alone, for [`Scheme::signs_query_alone`] to tell.
    pub(super) query: bool,
    /// Fields of a form that are signed each by itself or hold the JSON, where the URL is not signed.
    pub(super) form_fields: Box<[Box<str>]>,
}

impl Scheme {
    /// Whether the signature covers the whole body.
    pub fn covers_body(&self) -> bool {
        if let Proof::HttpSignature(own) = &self.proof {
            return own.covers_body();
        }
        if matches!(self.proof, Proof::AwsSns(_)) {
            return true;
        }
        if let Proof::Jwt(jwt) = &self.proof {
            // A token that is the body covers it. Tokens that are items of the body do not.
            let in_token = |place: &Location| place.is_in_body() && self.each.is_none();
            return jwt.detached
                || jwt.claims.iter().any(jwt::Claim::covers_body)
                || self
                    .signature
                    .as_ref()
                    .is_some_and(|own| own.places.iter().any(in_token));
        }
        self.body_digest.is_some()
            || self.contents.iter().all(|parts| {
                parts
                    .iter()
                    .any(|part| !part.when.is_impossible() && part.text.covers_body())
            }) && !self.contents.is_empty()
    }

    /// Whether what is signed is known to tell each delivery from all others: it is the body, or holds an id that
    /// does. Single values may do so as well; a time and a type do not.
    pub fn tells_deliveries_apart(&self) -> bool {
        let holds_id = |part: &Part| {
            let is_event_id = |place| part.text.covers(place);
            part.text.covers_id() || self.event_id.iter().any(is_event_id)
        };
        let mut contents = self.contents.iter();
        self.covers_body()
            || (!self.contents.is_empty() && contents.all(|parts| parts.iter().any(holds_id)))
    }

    /// Whether the signature is of the URL with its host, so that somebody must say which that is.
    pub fn signs_host(&self) -> bool {
        let mut parts = self.contents.iter().flatten();
        parts.any(|part| part.text.covers_host())
    }

    /// Whether the signature is of the URL that is called, or of a part of it other than the query.
    pub fn covers_url(&self) -> bool {
        match (&self.proof, &self.url.instead) {
            (Proof::HttpSignature(own), _) => own.covers_url(),
            (Proof::Jwt(jwt), _) => jwt.claims.iter().any(jwt::Claim::covers_url),
            (_, Some(instead)) => instead.covers_url(),
            (_, None) => {
                let mut parts = self.contents.iter().flatten();
                parts.any(|part| part.text.covers_url())
            }
        }
    }

    /// Whether judging a body takes many times as long as hashing it, because it is decoded or its JSON is sorted.
    pub fn is_dear(&self) -> bool {
        let mut parts = self.contents.iter().flatten();
        self.body_decoded || parts.any(|part| part.text.sorts_json())
    }

    pub(super) fn loose(&self) -> Loose {
        let texts = self.contents.iter().flatten();
        let signed = texts.flat_map(|part| part.text.form_fields());
        let of_json = self.json_from.iter().filter_map(Location::form_field);
        Loose {
            json: self.signs_json_values(),
            query: self
                .contents
                .iter()
                .flatten()
                .any(|part| part.text.is_of_query()),
            form_fields: of_json
                .chain(signed)
                .filter(|_| !self.signs_url || self.url.instead.is_some())
                .map(Into::into)
                .collect(),
        }
    }

    /// Whether it signs values of a JSON body and not all of it.
    pub(super) fn signs_json_values(&self) -> bool {
        let is_in_json = |form: &SignatureForm| {
            let mut places = form.places.iter();
            places.any(|place| matches!(place, Location::Json(_)))
        };
        let is_of_values = match &self.proof {
            Proof::AwsSns(_) => true,
            Proof::Jwt(_) => self.signature.as_ref().is_some_and(is_in_json),
            _ => false,
        };
        let mut contents = self.contents.iter();
        let is_whole = |parts: &Vec<Part>| parts.iter().any(|part| part.text.covers_any_body());
        let mut parts = self.contents.iter().flatten();
        self.json_from.is_empty()
            && !self.body_decoded
            && (is_of_values || self.each.is_some() || parts.any(|part| part.text.reads_json()))
            && !(self.contents.iter().len() > 0 && contents.all(is_whole))
    }

    /// Whether of all bodies it covers those alone that are forms.
    pub(super) fn covers_only_forms(&self) -> bool {
        let mut parts = self.contents.iter().flatten();
        self.body_digest.is_none()
            && parts.clone().any(|part| part.text.covers_only_form())
            && !parts.any(|part| part.text.covers_any_body())
    }

    /// Whether the signature covers all of a body that has a value at `place`. Pairs that are read in it do not
    /// count: a `skip` leaves some out, and written one after the other, one can begin in its neighbour.
    pub(super) fn covers_body_around(&self, place: &Location) -> bool {
        if self.contents.is_empty() {
            return self.covers_body();
        }
        let is_whole = |part: &Part| !part.when.is_impossible() && part.text.covers_any_body();
        let by_digest = self.body_digest.is_some() && !matches!(place, Location::Form(_));
        by_digest || self.contents.iter().all(|parts| parts.iter().any(is_whole))
    }

    /// Whether the signature covers the value at `place`: by itself, as `{id}`, or in the body.
    pub(super) fn covers_place(&self, place: &Location) -> bool {
        let by_id = self.id.contains(place);
        (place.is_in_body() && self.covers_body_around(place))
            || self.always_signs(|text| text.covers(place) || (by_id && text.covers_id()))
    }

    /// Whether such a text is in whatever the provider may have signed, and under any condition: a stranger
    /// chooses both.
    pub(super) fn always_signs(&self, wanted: impl Fn(&Template) -> bool) -> bool {
        let is_there = |part: &Part| part.when.is_certain() && wanted(&part.text);
        let mut contents = self.contents.iter();
        !self.contents.is_empty() && contents.all(|parts| parts.iter().any(is_there))
    }

    /// Whether the signature covers the value at `place` as one of pairs that are told apart.
    pub(super) fn covers_pair(&self, place: &Location) -> bool {
        self.always_signs(|text| text.shows_pair(place))
    }

    /// Whether the provider signs nothing but the query of such a request.
    pub(super) fn signs_query_alone(&self, view: View<'_>) -> Result<bool, SignatureError> {
        let is_of_query = |part: &Part| part.text.is_of_query();
        let contents = self.contents.iter().filter(|_| self.loose.query);
        for parts in contents.filter(|parts| parts.iter().any(is_of_query)) {
            let mut is_alone = true;
            for part in parts.iter().filter(|part| !is_of_query(part)) {
                let is_there =
                    part.text.literal().is_none() && part.when.holds(view).map_err(unreadable)?;
                is_alone &= !is_there;
            }
            if is_alone {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fails unless the signature covers the body. With a digest in the URL, the body must match it. Where only
    /// forms are covered, a body that is not a form fails, because a captured signature of an empty form would
    /// fit any. Where only the query is signed, any body fails.
    pub(super) fn body_is_covered(&self, view: View<'_>) -> Result<(), SignatureError> {
        const UNCOVERED: SignatureError = SignatureError::new(
            Reason::SignatureMismatch,
            "nothing that is signed covers the body",
        );
        let body = view.body()?;
        let is_form = || body.is_empty() || locate::is_form(view.headers);
        let Some(name) = &self.body_digest else {
            let is_uncovered = self.covers_only_forms() && !is_form()
                || !body.is_empty() && self.signs_query_alone(view)?;
            return if is_uncovered { Err(UNCOVERED) } else { Ok(()) };
        };
        let places = [Location::Query(name.as_str().into())];
        match find(&places, view).map_err(unreadable)? {
            None if is_form() => Ok(()),
            None => Err(UNCOVERED),
            Some(given) => {
                let own = Digest::Sha256.of(body.frames().iter().map(AsRef::as_ref));
                let given = HEXLOWER_PERMISSIVE.decode(&given).unwrap_or_default();
                if same_tag(&own, &given) {
                    Ok(())
                } else {
                    Err(SignatureError::new(
                        Reason::SignatureMismatch,
                        "the body is not that of the signed digest",
                    ))
                }
            }
        }
    }
}
