//! `limits`.

use super::{Compiler, value};
use crate::cgroup::memory_limit;
use crate::config::spec::LimitsSpec;
use crate::document::{At, Parsed};
use crate::settings::{Limits, PerAddress};
use crate::units::ByteSize;

/// Heads below this would refuse ordinary requests; above it one client holds too much.
const HEADER_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 20;

impl Compiler<'_, '_> {
    /// What is absent, or wrong and reported, keeps its default.
    pub(super) fn limits(&mut self, spec: Option<&At<LimitsSpec>>) -> Limits {
        let mut limits = memory_limit().map_or_else(Limits::default, Limits::within);
        let Some((spec, _)) = value(spec) else {
            return limits;
        };
        for (at, limit) in [
            (&spec.connections, &mut limits.connections),
            (&spec.requests_in_flight, &mut limits.requests_in_flight),
        ] {
            *limit = self.count(at.as_ref()).unwrap_or(*limit);
        }
        if let Some(count) = self.count(spec.connections_per_address.as_ref()) {
            limits.connections_per_address = PerAddress::Exactly(count);
        }
        for (at, limit) in [
            (
                &spec.tls_handshake_timeout,
                &mut limits.tls_handshake_timeout,
            ),
            (&spec.header_timeout, &mut limits.header_timeout),
            (&spec.body_timeout, &mut limits.body_timeout),
            (&spec.idle_timeout, &mut limits.idle_timeout),
            (&spec.write_timeout, &mut limits.write_timeout),
        ] {
            *limit = self.positive_duration(at.as_ref()).unwrap_or(*limit);
        }
        for (at, limit) in [
            (&spec.drain_timeout, &mut limits.drain_timeout),
            (&spec.drain_delay, &mut limits.drain_delay),
        ] {
            *limit = self
                .duration(at.as_ref(), std::time::Duration::ZERO)
                .unwrap_or(*limit);
        }
        self.sizes(spec, &mut limits);
        limits
    }

    fn count(&mut self, at: Option<&At<usize>>) -> Option<usize> {
        let (count, place) = value(at)?;
        if *count == 0 {
            let message = "it must be at least 1: nothing would be served";
            self.error(&place, message, None);
            return None;
        }
        Some(*count)
    }

    fn sizes(&mut self, spec: &LimitsSpec, limits: &mut Limits) {
        if let Some((Parsed(size), place)) = value(spec.body_memory.as_ref()) {
            if size.0 == 0 {
                self.error(&place, "it must be above 0: no body could be read", None);
            } else {
                limits.body_memory = *size;
            }
        }
        if let Some((Parsed(rate), _)) = value(spec.body_min_rate.as_ref()) {
            limits.body_min_rate = *rate;
        }
        if let Some((Parsed(size), place)) = value(spec.header_bytes.as_ref()) {
            if HEADER_BYTES.contains(&size.0) {
                limits.header_bytes = *size;
            } else {
                let (least, most) = (
                    ByteSize(*HEADER_BYTES.start()),
                    ByteSize(*HEADER_BYTES.end()),
                );
                self.error(
                    &place,
                    format!("it must be within {least} and {most}"),
                    None,
                );
            }
        }
    }
}
