//! `rate_limits`, `body` and `replay`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::signature::Facts;
use super::{Compiler, value, values};
use crate::config::spec::{BodySpec, OnDuplicateSpec, QuotaKeySpec, QuotaSpec, ReplaySpec};
use crate::document::{At, OneOrMany, Parsed, Place, REWRITTEN_OFF, TextOr};
use crate::route::BODY_SIZE_MAX_DEFAULT;
use crate::route::policy::{BodyPolicy, OnDuplicate, Quota, QuotaKey, ReplayPolicy, ReplaysOf};
use crate::settings::Limits;
use crate::units::{Rate, Span};

/// How long deliveries of a scheme without a timestamp are remembered.
const WINDOW_DEFAULT: Duration = Duration::from_mins(10);
/// Timestamps are judged in whole seconds, so a delivery can be fresh for up to a second more than its tolerance.
const ROUNDING: Duration = Duration::from_secs(1);

impl Compiler<'_, '_> {
    pub(super) fn quotas(&mut self, at: Option<&At<OneOrMany<QuotaSpec>>>) -> Box<[Quota]> {
        let mut quotas: Vec<Quota> = Vec::new();
        for (spec, place) in values(at).unwrap_or_default() {
            let Some(quota) = self.quota(spec, &place) else {
                continue;
            };
            if quotas.iter().any(|other| quota.is_alike(other)) {
                let hint = "every request would be counted twice; remove one";
                self.error(&place, "this limit stands here twice", hint);
            }
            quotas.push(quota);
        }
        quotas.into()
    }

    fn quota(&mut self, spec: &QuotaSpec, place: &Place) -> Option<Quota> {
        let key = self.required(&spec.key, &place.path, "key");
        let rate = self.required(&spec.rate, &place.path, "rate");
        let burst = match value(spec.burst.as_ref()) {
            None => None,
            Some((burst, place)) => {
                let burst = NonZeroU32::new(*burst);
                if burst.is_none() {
                    self.error(&place, "it must be at least 1: nothing would pass", None);
                }
                Some(burst?)
            }
        };
        let (Parsed(rate), _) = rate?;
        Some(Quota {
            key: match key?.0 {
                QuotaKeySpec::ClientIp => QuotaKey::ClientIp,
                QuotaKeySpec::Route => QuotaKey::Route,
            },
            rate: *rate,
            burst: burst.unwrap_or_else(|| burst_default(*rate)),
        })
    }

    /// `signatures` is `None` when the checks have been reported as wrong.
    pub(super) fn body(
        &mut self,
        spec: Option<&At<BodySpec>>,
        signatures: Option<&Facts>,
        limits: &Limits,
        route: &Place,
    ) -> BodyPolicy {
        let of_preset = signatures.and_then(|facts| facts.body_size_max);
        let size_default = of_preset.unwrap_or(BODY_SIZE_MAX_DEFAULT);
        let is_said = value(spec).is_some_and(|(spec, _)| spec.max_size.is_some());
        if !is_said && size_default > limits.body_memory {
            let from = of_preset.map_or("by default", |_| "by its preset");
            let message = format!(
                "takes bodies of up to {size_default} {from}, but `limits.body_memory` is {}",
                limits.body_memory
            );
            let hint = "larger ones are answered 503; raise `limits.body_memory`, or lower `body.max_size`";
            self.warn(route, message, hint);
        }
        let Some((spec, _)) = value(spec) else {
            return BodyPolicy {
                size_max: size_default,
                content_types: None,
                well_formed: false,
            };
        };
        let size_max = match value(spec.max_size.as_ref()) {
            None => size_default,
            Some((Parsed(size), place)) => {
                if size.0 == 0 {
                    let message = "no body is taken: every request that has one gets 413";
                    self.warn(&place, message, "such as `1MiB`, or leave it out");
                }
                if *size > limits.body_memory {
                    let message =
                        format!("larger than `limits.body_memory` ({})", limits.body_memory);
                    self.warn(&place, message, "such a body can never be read");
                }
                *size
            }
        };
        let content_types = spec.content_types.as_ref().map(|at| self.content_types(at));
        let well_formed = value(spec.well_formed.as_ref()).filter(|(wanted, _)| **wanted);
        let is_judged = |own: &Arc<str>| own.contains("json") || own.contains("xml");
        if let Some((_, place)) = &well_formed
            && let Some(types) = &content_types
            && !types.iter().any(is_judged)
        {
            let message = "only JSON and XML are judged, and none of `content_types` is either";
            self.warn(place, message, None);
        }
        BodyPolicy {
            size_max,
            content_types,
            well_formed: well_formed.is_some(),
        }
    }

    fn content_types(&mut self, at: &At<OneOrMany<String>>) -> Vec<Arc<str>> {
        let Some((OneOrMany(items), place)) = value(Some(at)) else {
            return Vec::new();
        };
        if items.is_empty() {
            let hint = "leave `content_types` out to accept any";
            self.error(&place, "no content type is accepted, so no request", hint);
        }
        let mut types = Vec::new();
        for (text, place) in values(Some(at)).unwrap_or_default() {
            if is_media_type(text) {
                types.push(text.to_ascii_lowercase().into());
            } else {
                let hint = if text.contains(';') {
                    "leave the parameters out; any are accepted"
                } else if text.contains('*') {
                    "there are no wildcards; list each type"
                } else {
                    "such as `application/json`"
                };
                self.error(&place, format!("`{text}` is not a media type"), hint);
            }
        }
        types
    }

    /// On by default where the timestamp is signed: then a window over the tolerance both ways
    /// is enough to know every replay.
    pub(super) fn replay(
        &mut self,
        at: Option<&At<TextOr<ReplaySpec>>>,
        signatures: Option<&Facts>,
    ) -> Option<ReplayPolicy> {
        let Some(at) = at else {
            // One event must not be swallowed for another.
            let facts = signatures.filter(|facts| !facts.may_be_shared)?;
            return Some(ReplayPolicy {
                window: facts.tolerance_both_ways?.saturating_add(ROUNDING),
                on_duplicate: OnDuplicate::Acknowledge,
                of: ReplaysOf::SignedWithTime,
            });
        };
        let spec = match value(Some(at))? {
            (TextOr::Text(text), _) if text == "off" => return None,
            (TextOr::Text(text), place) => {
                let message = format!("`{text}` is neither `off` nor a mapping");
                let hint = if text == "false" {
                    REWRITTEN_OFF
                } else {
                    "such as `replay: { window: 10m, on_duplicate: reject }`"
                };
                self.error(&place, message, hint);
                return None;
            }
            (TextOr::Full(spec), _) => spec,
        };
        let on_duplicate = match value(spec.on_duplicate.as_ref()) {
            None | Some((OnDuplicateSpec::Acknowledge, _)) => OnDuplicate::Acknowledge,
            Some((OnDuplicateSpec::Reject, _)) => OnDuplicate::Reject,
            Some((OnDuplicateSpec::Off, _)) => {
                if let Some(place) = spec.window.as_ref().and_then(At::place) {
                    let message = "`on_duplicate: off` remembers nothing: `window` has no effect";
                    self.warn(place, message, "remove one");
                }
                return None;
            }
        };
        let given = self.positive_duration(spec.window.as_ref());
        let facts = signatures?;
        let key = at.place().map(|place| self.key(&place.path))?;
        if !facts.signed {
            let message = "replays cannot be told without a signature";
            self.error(
                &key,
                message,
                "remove `replay`, or add a `provider` or `scheme` to `verify`",
            );
            return None;
        }
        if facts.has_shared_token {
            let message = "several events may carry the same token: all but the first would be taken for copies";
            let hint = "write `replay: off`, unless each delivery has a token of its own";
            self.warn(&key, message, hint);
        }
        // One that is wrong has been reported.
        if spec.window.is_some() && given.is_none() {
            return None;
        }
        let window = self.window(spec, given, facts)?;
        Some(ReplayPolicy {
            window,
            on_duplicate,
            of: ReplaysOf::Signed,
        })
    }

    fn window(
        &mut self,
        spec: &ReplaySpec,
        given: Option<Duration>,
        facts: &Facts,
    ) -> Option<Duration> {
        let Some(least) = facts.tolerance_both_ways else {
            return Some(given.unwrap_or(WINDOW_DEFAULT));
        };
        let window = given.unwrap_or(least);
        if window < least {
            let place = spec.window.as_ref()?.place()?;
            let message = format!(
                "a delivery is fresh for {} (its tolerance both ways), longer than it is remembered",
                Span(least)
            );
            let hint = format!("write at least `{}`, or leave `window` out", Span(least));
            self.error(place, message, hint.as_str());
            return None;
        }
        Some(window.max(least.saturating_add(ROUNDING)))
    }
}

/// What refills in a second, at least 1.
fn burst_default(rate: Rate) -> NonZeroU32 {
    let seconds = u32::try_from(rate.per.as_secs()).unwrap_or(u32::MAX);
    NonZeroU32::new(rate.count.get() / seconds.max(1)).unwrap_or(NonZeroU32::MIN)
}

fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c);
        !part.is_empty() && part.chars().all(legal)
    };
    text.split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_what_refills_in_a_second() {
        for (rate, burst) in [("30/s", 30), ("100/m", 1), ("600/m", 10), ("1000/h", 1)] {
            assert_eq!(burst_default(rate.parse().unwrap()).get(), burst);
        }
    }
}
