//! What `verify` prints.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Value, json};

use crate::problem::printable;
use crate::reason::Reason;
use crate::scheme::handshake::Reply;
use crate::scheme::hints::Hint;
use crate::scheme::trace::{Step, StepResult};

/// A judged request.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Why it is rejected; `None` when it is accepted.
    pub(super) refusal: Option<Reason>,
    /// Preset that it was judged by.
    pub(super) provider: Option<String>,
    /// Key that proved it.
    pub(super) key_id: Option<String>,
    /// The provider's id of the event.
    pub(super) event_id: Option<String>,
    /// What was looked at, in order.
    pub(super) steps: Vec<Step>,
    /// Causes that a second computation proved.
    pub(super) hints: Vec<Hint>,
    /// The answer to a handshake.
    pub(super) answered: Option<Answered>,
}

/// A handshake and its answer.
#[derive(Debug)]
pub(super) struct Answered {
    /// Name in the preset.
    pub(super) name: String,
    /// What the provider would read.
    pub(super) reply: Reply,
}

impl Answered {
    fn headers(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let headers = self.reply.headers.iter();
        headers.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
    }

    fn body(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.reply.body)
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "status": self.reply.status.as_u16(),
            "headers": self.headers().collect::<Vec<_>>(),
            "body": self.body(),
        })
    }
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "answer: {}", self.reply.status.as_u16())?;
        for (name, value) in self.headers() {
            writeln!(f, "  {name}: {}", printable(&value))?;
        }
        match self.body() {
            body if body.is_empty() => Ok(()),
            body => writeln!(f, "\n  {}", printable(&body)),
        }
    }
}

impl Verdict {
    /// The form for machines.
    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({
            "verdict": self.word(),
            "reason": self.refusal.map(Reason::code),
            "provider": self.provider,
            "key_id": self.key_id,
            "event_id": self.event_id,
            "steps": self.steps,
            "hints": self.hints,
        });
        if let (Some(answered), Some(members)) = (&self.answered, json.as_object_mut()) {
            members.insert("handshake".to_owned(), answered.to_json());
        }
        json
    }

    /// Notes a step.
    pub(super) fn step(
        &mut self,
        step: &'static str,
        result: StepResult,
        detail: impl Into<String>,
    ) {
        self.steps.push(Step {
            step,
            result,
            detail: detail.into(),
        });
    }

    /// Takes over the engine's steps.
    pub(super) fn trace(&mut self, steps: Vec<Step>) {
        self.steps.extend(steps.into_iter().map(in_words));
    }

    fn word(&self) -> &'static str {
        if self.refusal.is_none() {
            "accepted"
        } else {
            "rejected"
        }
    }
}

/// The engine explains what fails; what is in order is put into words here.
fn in_words(step: Step) -> Step {
    if step.result != StepResult::Ok || !step.detail.is_empty() {
        return step;
    }
    let detail = match step.step {
        "signature" | "token" | "credentials" => "found",
        "encoding" => "decodes to the right length",
        "timestamp" => "readable, where the scheme has one",
        "id" => "found, where the scheme signs one",
        "body" | "body_digest" => "covered as the scheme promises",
        "key_url" => "of the provider, where one is named",
        "freshness" => "within the tolerance",
        "claims" => "as they must be",
        _ => "in order",
    };
    Step {
        detail: detail.to_owned(),
        ..step
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.word())?;
        if let Some(reason) = self.refusal {
            write!(f, ": {reason}")?;
        }
        writeln!(f)?;
        for (name, value) in [
            ("provider", &self.provider),
            ("key", &self.key_id),
            ("event", &self.event_id),
        ] {
            if let Some(value) = value {
                writeln!(f, "  {name}: {}", printable(value))?;
            }
        }
        let width = self
            .steps
            .iter()
            .map(|step| step.step.len())
            .max()
            .unwrap_or(0);
        for Step {
            step,
            result,
            detail,
        } in &self.steps
        {
            let mark = match result {
                StepResult::Failed => "failed ",
                StepResult::Ok => "ok     ",
                StepResult::Skipped => "skipped",
            };
            let line = format!("  {mark}  {step:width$}  {}", printable(detail));
            writeln!(f, "{}", line.trim_end())?;
        }
        if let Some(answered) = &self.answered {
            write!(f, "{answered}")?;
        }
        for hint in &self.hints {
            writeln!(f, "hint: {}", printable(&hint.message))?;
        }
        if self.refusal == Some(Reason::SignatureMismatch) && self.hints.is_empty() {
            writeln!(
                f,
                "nothing that was tried makes it match: the secret is not the one of this very endpoint, or the \
                 capture is not what was sent (copied from a page, printed anew)"
            )?;
        }
        Ok(())
    }
}
