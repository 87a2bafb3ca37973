//! What the interpreter did, step by step: nothing while serving, everything for `verify`.

use serde::Serialize;

/// Collects steps, or nothing.
#[derive(Debug, Default)]
pub struct Trace(Option<Vec<Step>>);

/// One step of a verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What was looked at.
    pub step: &'static str,
    /// How it went.
    pub result: StepResult,
    /// What exactly was found; never a secret.
    pub detail: String,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepResult {
    /// It speaks against the request.
    Failed,
    /// It is in order.
    Ok,
    /// It does not apply.
    Skipped,
}

impl Trace {
    /// Collects nothing and costs nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Collects every step.
    pub const fn on() -> Self {
        Self(Some(Vec::new()))
    }

    /// Notes a step; `detail` is only made when somebody collects.
    pub fn note(
        &mut self,
        step: &'static str,
        result: StepResult,
        detail: impl FnOnce() -> String,
    ) {
        if let Some(steps) = &mut self.0 {
            steps.push(Step {
                step,
                result,
                detail: detail(),
            });
        }
    }

    /// What was collected.
    pub fn into_steps(self) -> Vec<Step> {
        self.0.unwrap_or_default()
    }
}
