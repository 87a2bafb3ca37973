//! When a part of the signed content stands there, a claim is asked for, a handshake is meant.

use http::{HeaderName, Method};

use super::locate::{Location, Unreadable, View, find, is_form, is_present};
use super::spec::BodyKind;

/// Every condition must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct When {
    pub(super) method: Option<Method>,
    /// Values that must be there.
    pub(super) present: Vec<Location>,
    /// Values that must be these.
    pub(super) equal: Vec<(Location, String)>,
    pub(super) body: Option<BodyKind>,
    /// Params decide once: a condition on one that is not set never holds.
    pub(super) never: bool,
    pub(super) any_query: bool,
    pub(super) not: Option<Box<Self>>,
}

impl When {
    /// Header fields it looks at.
    pub(super) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        let places = self
            .present
            .iter()
            .chain(self.equal.iter().map(|(place, _)| place));
        places.filter_map(|place| match place {
            Location::Header(name) => Some(name),
            _ => None,
        })
    }

    /// Whether params alone keep it from ever holding.
    pub(super) fn is_impossible(&self) -> bool {
        self.never || self.not.as_ref().is_some_and(|not| not.is_certain())
    }

    /// Whether it holds for every request.
    pub(super) fn is_certain(&self) -> bool {
        let plain =
            self.method.is_none() && self.body.is_none() && !self.any_query && self.not.is_none();
        !self.never && plain && self.present.is_empty() && self.equal.is_empty()
    }

    /// What the head alone tells: `None` where the body decides. What cannot be read does not hold.
    pub(super) fn foretell(&self, view: View<'_>) -> Option<bool> {
        let is_method = self.method.as_ref().is_none_or(|own| own == view.method);
        let is_query = !self.any_query || view.url.query().is_some_and(|query| !query.is_empty());
        let mut holds = !self.never && is_method && is_query;
        let mut asks_body = self.body.is_some();
        for place in &self.present {
            if place.is_in_body() {
                asks_body = true;
            } else {
                holds = holds && is_present(place, view);
            }
        }
        for (place, wanted) in &self.equal {
            if place.is_in_body() {
                asks_body = true;
            } else {
                let found = find(std::slice::from_ref(place), view).ok().flatten();
                holds = holds && found.as_deref() == Some(wanted.as_bytes());
            }
        }
        match (holds, self.not.as_ref().map(|not| not.foretell(view))) {
            (false, _) | (true, Some(Some(true))) => Some(false),
            (true, Some(None)) => None,
            (true, _) => (!asks_body).then_some(true),
        }
    }

    /// Whether it holds for a request.
    pub(super) fn holds(&self, view: View<'_>) -> Result<bool, Unreadable> {
        if self.never
            || self
                .method
                .as_ref()
                .is_some_and(|method| method != view.method)
        {
            return Ok(false);
        }
        if !self.body.is_none_or(|kind| kind.is(view)) {
            return Ok(false);
        }
        if self.any_query && view.url.query().is_none_or(str::is_empty) {
            return Ok(false);
        }
        for place in &self.present {
            if !is_present(place, view) {
                return Ok(false);
            }
        }
        for (place, wanted) in &self.equal {
            let found = find(std::slice::from_ref(place), view)?;
            if found.as_deref() != Some(wanted.as_bytes()) {
                return Ok(false);
            }
        }
        match &self.not {
            Some(not) => not.holds(view).map(|holds| !holds),
            None => Ok(true),
        }
    }
}

impl BodyKind {
    fn is(self, view: View<'_>) -> bool {
        match self {
            Self::Empty => view.body.is_none_or(super::Content::is_empty),
            Self::Form => !Self::Empty.is(view) && is_form(view.headers),
            Self::Other => !Self::Empty.is(view) && !is_form(view.headers),
        }
    }
}
