//! `state`.

use std::sync::Arc;
use std::time::Duration;

use redis::IntoConnectionInfo;

use super::{Compiler, PLAIN_NAME, is_plain_name, value};
use crate::config::certificate;
use crate::config::resolve::Finding;
use crate::config::spec::{OnFailureSpec, RedisSpec, StateSpec, StoreSpec};
use crate::document::{At, Place};
use crate::scheme;
use crate::settings::{OnFailure, RedisSettings, StateSettings, StoreUrl};

/// A request waits for no longer than this, unless told otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_millis(100);
/// What every key begins with, unless told otherwise.
const PREFIX_DEFAULT: &str = "hookward";
/// Kinds of URL that lead to a server.
const URLS: &str = "write `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `rediss://...` for TLS, or \
                    `redis+unix:///PATH`";

impl Compiler<'_, '_> {
    /// `None` when something was wrong and reported, or nothing is written.
    pub(super) fn state(&mut self, spec: Option<&At<StateSpec>>) -> Option<StateSettings> {
        let (state, place) = value(spec)?;
        let store = state.store.as_ref().map(At::get);
        match store {
            // A wrong word has been reported. The rest is read all the same.
            Some(Some(StoreSpec::Redis) | None) => {}
            Some(Some(StoreSpec::Memory)) => return Some(StateSettings::Memory),
            None => {
                if let Some((_, place)) = value(state.redis.as_ref()) {
                    let message =
                        "Redis is not used: what is claimed and counted stays in this process";
                    let hint =
                        "write `store: redis` beside it, or `store: memory` if that is meant";
                    self.warn(&place, message, hint);
                }
                return Some(StateSettings::Memory);
            }
        }
        if state.redis.is_none() && store.flatten().is_some() {
            let hint = "such as `redis: { url: \"env:REDIS_URL\" }`";
            self.missing(&place.path, "redis", hint);
        }
        let (redis, place) = value(state.redis.as_ref())?;
        self.redis(redis, &place).map(StateSettings::Redis)
    }

    fn redis(&mut self, spec: &RedisSpec, place: &Place) -> Option<RedisSettings> {
        let timeout = self.positive_duration(spec.timeout.as_ref());
        let prefix = self.prefix(spec);
        let ca = self.authorities_of_redis(spec);
        let (url, place) = self.required(&spec.url, &place.path, "url")?;
        let url = self.redis_url(url, &place)?;
        Some(RedisSettings {
            url,
            cluster: value(spec.cluster.as_ref()).is_some_and(|(cluster, _)| *cluster),
            ca,
            prefix: prefix.unwrap_or_else(|| PREFIX_DEFAULT.into()),
            timeout: timeout.unwrap_or(TIMEOUT_DEFAULT),
            on_failure: match value(spec.on_failure.as_ref()) {
                Some((OnFailureSpec::Local, _)) => OnFailure::Local,
                Some((OnFailureSpec::Reject, _)) | None => OnFailure::Reject,
            },
        })
    }

    /// No message repeats a URL: it may hold a password.
    fn redis_url(&mut self, reference: &str, place: &Place) -> Option<StoreUrl> {
        let resolved = match self.resolver.location(reference) {
            Ok(resolved) => resolved,
            Err(finding) => {
                self.finding(place, finding);
                return None;
            }
        };
        for warning in resolved.warnings {
            self.doubt(place, warning);
        }
        let secret = resolved.secret;
        let is_good = std::str::from_utf8(secret.expose())
            .is_ok_and(|url| url.into_connection_info().is_ok());
        if !is_good {
            let finding = Finding::new("this refers to something that is not a URL of Redis");
            self.finding(place, finding.hint(URLS));
            return None;
        }
        let digest = scheme::digest(&[b"hookward redis", secret.expose()]);
        Some(StoreUrl::new(secret, digest))
    }

    fn prefix(&mut self, spec: &RedisSpec) -> Option<Arc<str>> {
        let (prefix, place) = value(spec.prefix.as_ref())?;
        if is_plain_name(prefix) {
            return Some(prefix.as_str().into());
        }
        self.error(&place, "this cannot begin the name of a key", PLAIN_NAME);
        None
    }

    fn authorities_of_redis(&mut self, spec: &RedisSpec) -> Option<Arc<[u8]>> {
        let (file, place) = value(spec.ca.as_ref())?;
        let read = self.resolver.file(file);
        let pem = self.reported(read, &place)?;
        let authorities = certificate::parse_chain(&pem, file);
        self.trusted(authorities, file, &place)?;
        Some(pem.into())
    }
}
