//! Values that must hold before a signature counts.

use std::borrow::Cow;

use super::keys::KeySet;
use super::locate::{Pointer, View, find};
use super::primitive::same_secret;
use super::template::Scope;
use super::verify::unreadable;
use super::{Require, SignatureError, UrlForm, malformed, parse};
use crate::units::UnixTime;

const NOT_AS_ASKED: SignatureError =
    malformed("a value that the scheme asks for is not as it should be");

impl Require {
    pub(super) fn holds(
        &self,
        view: View<'_>,
        url: &UrlForm,
        keys: &KeySet,
        now: UnixTime,
    ) -> Result<(), SignatureError> {
        let url = url.first(view)?;
        let scope = Scope::new(view, &url);
        if let Some(pointer) = &self.each {
            return self.each_holds(pointer, &scope, keys, now);
        }
        match find(std::slice::from_ref(&self.place), view).map_err(unreadable)? {
            None if self.optional => Ok(()),
            None => Err(NOT_AS_ASKED),
            Some(value) => self.is(&value, &scope, keys, now),
        }
    }

    /// Every value in the body that the pointer finds; none at all is not enough. Where the check has
    /// no secret to compare with, there is nothing to ask.
    fn each_holds(
        &self,
        pointer: &Pointer,
        scope: &Scope<'_>,
        keys: &KeySet,
        now: UnixTime,
    ) -> Result<(), SignatureError> {
        if self.secret && !keys.usable(now).any(|key| key.secret_bytes().is_some()) {
            return Ok(());
        }
        let body = scope.view.body()?;
        let values = pointer.each(&body.joined()).map_err(unreadable)?;
        if values.is_empty() {
            return Err(NOT_AS_ASKED);
        }
        for raw in values {
            let text: String = serde_json::from_str(&raw).map_err(|_bad| NOT_AS_ASKED)?;
            self.is(text.as_bytes(), scope, keys, now)?;
        }
        Ok(())
    }

    fn is(
        &self,
        value: &[u8],
        scope: &Scope<'_>,
        keys: &KeySet,
        now: UnixTime,
    ) -> Result<(), SignatureError> {
        let mut value = Cow::Borrowed(value);
        if let Some(pointer) = &self.base64_json {
            value = Cow::Owned(parse::inside_base64_json(&value, pointer)?.into_bytes());
        }
        if let Some(item) = &self.item {
            value = Cow::Owned(item_of(&value, item, &self.separator).ok_or(NOT_AS_ASKED)?);
        }
        if self.secret && keys.matching(&value, now).is_some() {
            return Ok(());
        }
        if !self.contains.is_empty() {
            let text = String::from_utf8_lossy(&value).into_owned();
            let items: Vec<&str> = text.split(&self.separator).map(str::trim).collect();
            let has = |wanted: &String| items.iter().any(|item| item.eq_ignore_ascii_case(wanted));
            return if self.contains.iter().all(has) {
                Ok(())
            } else {
                Err(NOT_AS_ASKED)
            };
        }
        for wanted in &self.equals {
            if same_secret(&wanted.text(scope)?, &value) {
                return Ok(());
            }
        }
        Err(NOT_AS_ASKED)
    }
}

/// The value of the only item called `name` in `a=1;b=2`.
fn item_of(value: &[u8], name: &str, separator: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok()?;
    let items = text
        .split(separator)
        .filter_map(|item| item.trim().split_once('='));
    let mut own = items
        .filter(|(own, _)| own.trim() == name)
        .map(|(_, value)| value.trim());
    match (own.next(), own.next()) {
        (Some(value), None) => Some(value.as_bytes().to_vec()),
        _ => None,
    }
}
