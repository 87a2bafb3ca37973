//! `basic`: users from the configuration and from htpasswd files.

use std::collections::HashSet;
use std::sync::Arc;

use super::keys::Written;
use super::routes::Scope;
use super::{Compiler, value, values};
use crate::config::spec::{BasicSpec, UserSpec};
use crate::document::{At, Place};
use crate::password_hash::validate_hash;
use crate::route::auth::{BasicCheck, BasicUser, Password, challenge};

impl Compiler<'_, '_> {
    pub(super) fn basic(&mut self, at: &At<BasicSpec>, scope: Scope<'_>) -> Option<BasicCheck> {
        let (spec, place) = value(Some(at))?;
        let realm = value(spec.realm.as_ref()).and_then(|(realm, place)| self.realm(realm, &place));
        if spec.users.is_none() && spec.htpasswd.is_none() {
            let key = self.key(&place.path);
            let message = "there is no user: the key `users` is missing";
            self.error(&key, message, "write `users`, or `htpasswd: FILE`");
            return None;
        }
        let mut users = Some(Vec::new());
        // Each with its place, also where something else of the user is wrong.
        let mut names = Vec::new();
        if let Some(at) = &spec.users {
            let items = values(Some(at)).unwrap_or_default();
            if items.is_empty()
                && let Some(place) = at
                    .place()
                    .filter(|_| at.get().is_some_and(|list| list.0.is_empty()))
            {
                self.error(place, "there is no user, so no request could pass", None);
            }
            for (user, place) in items {
                let user = self.user(user, &place, scope.route, &mut names);
                join(&mut users, user.map(|user| vec![user]));
            }
        }
        if let Some((file, place)) = value(spec.htpasswd.as_ref()) {
            join(&mut users, self.htpasswd(file, &place, &mut names));
        }
        let mut seen = HashSet::new();
        for (name, place) in &names {
            if !seen.insert(name) {
                self.error(place, format!("the user `{name}` stands here twice"), None);
            }
        }
        Some(BasicCheck {
            challenge: challenge("Basic", realm.unwrap_or(scope.route)),
            users: users?,
        })
    }

    fn realm<'r>(&mut self, realm: &'r str, place: &Place) -> Option<&'r str> {
        let legal = |c: char| (c == ' ' || c.is_ascii_graphic()) && !matches!(c, '"' | '\\');
        if realm.is_empty() || !realm.chars().all(legal) {
            self.error(
                place,
                "a realm is visible ASCII without `\"` and `\\`",
                None,
            );
            return None;
        }
        Some(realm)
    }

    fn user(
        &mut self,
        spec: &UserSpec,
        place: &Place,
        route: &str,
        names: &mut Vec<(Arc<str>, Place)>,
    ) -> Option<BasicUser> {
        let name = self.required(&spec.name, &place.path, "name");
        let name = name.and_then(|(name, place)| match user_name(name) {
            Ok(name) => Some(name),
            Err(message) => {
                self.error(&place, message, None);
                None
            }
        });
        names.extend(name.clone().map(|name| (name, place.clone())));
        let password = match (&spec.password, &spec.password_hash) {
            (None, None) => {
                let hint = "write `password: env:NAME`, or `password_hash`, made by `hookward hash-password`";
                self.missing(&place.path, "password", hint);
                None
            }
            (Some(_), Some(hash)) => {
                let place = hash.place().unwrap_or(place);
                self.error(
                    place,
                    "`password` and `password_hash` exclude each other",
                    "remove one",
                );
                None
            }
            (Some(password), None) => self.password(password, name.as_ref(), route),
            (None, Some(hash)) => {
                value(Some(hash)).and_then(|(hash, place)| match validate_hash(hash) {
                    Ok(password) => Some(password),
                    Err(message) => {
                        self.error(&place, message, None);
                        None
                    }
                })
            }
        };
        Some(BasicUser {
            name: name?,
            password: password?,
        })
    }

    fn password(
        &mut self,
        at: &At<String>,
        user: Option<&Arc<str>>,
        route: &str,
    ) -> Option<Password> {
        let (reference, place) = value(Some(at))?;
        match self.resolver.secret(reference) {
            Ok(resolved) => {
                for warning in resolved.warnings {
                    self.doubt(&place, warning);
                }
                let id = user.map_or_else(|| "password".into(), Arc::clone);
                let written = Written {
                    id,
                    bytes: resolved.secret,
                    not_after: None,
                    place,
                };
                self.shared(std::slice::from_ref(&written), route);
                Some(Password::Plain(written.bytes))
            }
            Err(finding) => {
                self.finding(&place, finding);
                None
            }
        }
    }

    /// Reads `name:hash` lines; what is wrong is named by its line in that file.
    fn htpasswd(
        &mut self,
        file: &str,
        place: &Place,
        names: &mut Vec<(Arc<str>, Place)>,
    ) -> Option<Vec<BasicUser>> {
        let bytes = match self.resolver.file(file) {
            Ok(bytes) => bytes,
            Err(finding) => {
                self.finding(place, finding);
                return None;
            }
        };
        let Ok(text) = String::from_utf8(bytes) else {
            self.error(place, format!("`{file}` is not UTF-8"), None);
            return None;
        };
        let mut is_good = true;
        let mut users: Vec<BasicUser> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let user = htpasswd_line(line).and_then(|(name, hash)| {
                names.push((Arc::clone(&name), place.clone()));
                let password = validate_hash(hash)?;
                Ok(BasicUser { name, password })
            });
            match user {
                Ok(user) => users.push(user),
                Err(message) => {
                    is_good = false;
                    self.error(
                        place,
                        format!("`{file}` line {}: {message}", index + 1),
                        None,
                    );
                }
            }
        }
        if is_good && users.is_empty() {
            self.error(
                place,
                format!("there is no user in `{file}`"),
                "`htpasswd -B FILE NAME` adds one",
            );
        }
        (is_good && !users.is_empty()).then_some(users)
    }
}

/// Name and hash. No message repeats what follows the colon.
fn htpasswd_line(line: &str) -> Result<(Arc<str>, &str), String> {
    let (name, hash) = line.split_once(':').ok_or("not `name:hash`")?;
    Ok((user_name(name)?, hash))
}

fn user_name(name: &str) -> Result<Arc<str>, String> {
    if name.is_empty() {
        return Err("the user name is empty".to_owned());
    }
    // RFC 7617: the first colon ends the user name.
    if let Some(at) = name.find(|c: char| c == ':' || c.is_control()) {
        // What follows may be the password.
        let name = name.get(..at).unwrap_or_default();
        return Err(format!(
            "`{name}…` is not a user name: no colon and no control characters"
        ));
    }
    Ok(name.into())
}

fn join<T>(all: &mut Option<Vec<T>>, more: Option<Vec<T>>) {
    match (all.as_mut(), more) {
        (Some(all), Some(more)) => all.extend(more),
        (_, None) => *all = None,
        (None, _) => {}
    }
}
