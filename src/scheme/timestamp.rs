//! The scheme's timestamp: reading it, and how far it may lie from now.

use std::borrow::Cow;

use super::locate::{View, find};
use super::spec::TimeUnit;
use super::{SignatureError, Timestamp, parse};
use crate::reason::Reason;
use crate::units::UnixTime;

/// A timestamp as it stands in the request, and what it means.
pub(super) type Stamp<'a> = (Cow<'a, [u8]>, UnixTime);

impl Timestamp {
    pub(super) fn read<'a>(&self, view: View<'a>) -> Result<Option<Stamp<'a>>, SignatureError> {
        let text = find(&self.places, view).map_err(|why| {
            why.refused(
                Reason::TimestampMalformed,
                "the timestamp stands more than once",
                "the body that holds the timestamp cannot be read",
            )
        })?;
        match text.filter(|text| !text.is_empty()) {
            None if self.optional => Ok(None),
            None => Err(SignatureError::new(
                Reason::TimestampMissing,
                "the timestamp is missing",
            )),
            Some(text) => match parse::time(self.unit, &text) {
                Some(time) => Ok(Some((text, time))),
                None => Err(SignatureError::new(
                    Reason::TimestampMalformed,
                    "the timestamp is not in the scheme's unit",
                )),
            },
        }
    }

    pub(super) fn judge(&self, time: UnixTime, now: UnixTime) -> Result<(), SignatureError> {
        let Some(tolerance) = self.tolerance else {
            return Ok(());
        };
        // Whole seconds are compared as such: half a second must not decide.
        let (time, now) = match self.unit {
            TimeUnit::S | TimeUnit::SOrMs => (
                UnixTime::from_secs(time.secs()),
                UnixTime::from_secs(now.secs()),
            ),
            _ => (time, now),
        };
        tolerance.judge(
            time,
            now,
            "the timestamp is older than the tolerance",
            "the timestamp is ahead by more than the tolerance",
        )
    }
}
