//! All presets by name: those shipped in `rules/providers/`, and the operator's own over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::spec::{PresetSpec, SchemeSpec};
use super::{Params, Scheme};
use crate::problem::{Problem, Report};
use std::time::Duration;

/// Presets by name. Files are parsed when they are asked for.
#[derive(Debug, Default)]
pub struct Catalog {
    overlays: BTreeMap<String, Arc<Preset>>,
}

/// One provider: what is known of it, and its schemes.
#[derive(Debug)]
pub struct Preset {
    /// The file it came from, as diagnostics name it.
    pub file: String,
    /// What the file says.
    pub spec: PresetSpec,
}

/// A scheme of a preset, found by `NAME` or `NAME/SCHEME`.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The preset.
    pub preset: Arc<Preset>,
    index: usize,
}

/// Why there is no such preset.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file has mistakes.
    #[error("the preset has mistakes:\n{0}")]
    Broken(Report),
    /// No such name.
    #[error("there is no preset `{name}`")]
    UnknownProvider {
        /// As asked for.
        name: String,
        /// The closest known name.
        suggestion: Option<String>,
    },
    /// The preset has no such scheme.
    #[error("preset `{provider}` has no scheme `{name}`")]
    UnknownScheme {
        /// The preset.
        provider: String,
        /// As asked for.
        name: String,
        /// Those that it has.
        known: Vec<String>,
    },
}

impl Catalog {
    /// The shipped presets.
    pub fn built_in() -> Self {
        Self::default()
    }

    /// Adds or replaces a preset. `file` is its path; its stem must be the provider's name.
    pub fn add(&mut self, _file: &str, _text: &str) -> Result<(), Report> {
        unimplemented!()
    }

    /// Names of all presets, sorted.
    pub fn names(&self) -> Vec<String> {
        unimplemented!()
    }

    /// A preset by name.
    pub fn preset(&self, _name: &str) -> Result<Arc<Preset>, CatalogError> {
        unimplemented!()
    }

    /// A scheme by `NAME` (its first) or `NAME/SCHEME`.
    pub fn find(&self, _reference: &str) -> Result<Selected, CatalogError> {
        unimplemented!()
    }
}

impl Preset {
    /// Its schemes with their ids, in the order of the file; the first is the default.
    pub fn schemes(&self) -> impl Iterator<Item = (&str, &SchemeSpec)> {
        std::iter::empty()
    }
}

impl Selected {
    /// Id of the scheme.
    pub fn scheme_id(&self) -> &str {
        unimplemented!()
    }

    /// What the file says about the scheme.
    pub fn spec(&self) -> &SchemeSpec {
        unimplemented!()
    }

    /// Compiles the scheme with the operator's `params`; `tolerance` replaces the preset's. The
    /// messages name a param that is missing, unknown or ill-formed; marks are of the preset's file.
    pub fn bind(
        &self,
        _params: &Params,
        _tolerance: Option<Duration>,
    ) -> Result<Scheme, Vec<Problem>> {
        unimplemented!()
    }
}
