//! What is wrong with a file: every problem of it, each with its place and what to change.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where in a file: line and column count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Mark {
    /// The start of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// Whether a problem keeps the file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file is used; somebody should look.
    Warning,
}

/// One thing wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, where it is another one than that of the report: a preset that a configuration brings.
    pub file: Option<PathBuf>,
    /// Place in the file.
    pub mark: Mark,
    /// Configuration path, such as `routes[2].verify[0].provider`; empty for the whole file.
    pub path: String,
    /// What is wrong. Lower case, no final period, literals in backticks.
    pub message: String,
    /// What to change.
    pub hint: Option<String>,
    /// Error or warning.
    pub severity: Severity,
}

/// All problems of one file, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Report {
    file: PathBuf,
    problems: Vec<Problem>,
}

impl Report {
    /// An empty report about `file`.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            problems: Vec::new(),
        }
    }

    /// Adds a problem, in the order of the file; those of other files come last.
    pub fn push(&mut self, problem: Problem) {
        let order = |problem: &Problem| (problem.file.clone(), problem.mark);
        let at = self
            .problems
            .partition_point(|other| order(other) <= order(&problem));
        self.problems.insert(at, problem);
    }

    /// Its problems, for the report of a file that led to this one.
    pub fn abroad(&self) -> impl Iterator<Item = Problem> {
        self.problems.iter().map(|problem| Problem {
            file: Some(self.file.clone()),
            ..problem.clone()
        })
    }

    /// The problems, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether any problem keeps the file from being used.
    pub fn has_errors(&self) -> bool {
        self.problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// How many errors and warnings.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self
            .problems
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count();
        (errors, self.problems.len() - errors)
    }

    /// The first problems, errors before warnings, and how many there are besides: for a log, where the same is said of
    /// each route.
    pub fn beginning(&self) -> impl fmt::Display {
        Beginning(self)
    }

    /// The problems as `validate --format json` prints them.
    pub fn to_json(&self) -> serde_json::Value {
        let problems: Vec<_> = self
            .problems
            .iter()
            .map(|problem| {
                serde_json::json!({
                    "file": problem.file(&self.file).display().to_string(),
                    "line": problem.mark.line,
                    "column": problem.mark.column,
                    "path": problem.path,
                    "message": problem.message,
                    "hint": problem.hint,
                    "severity": problem.severity,
                })
            })
            .collect();
        serde_json::json!({ "valid": !self.has_errors(), "problems": problems })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems
            .iter()
            .try_for_each(|problem| problem.write(&self.file, f))
    }
}

impl Problem {
    fn file<'a>(&'a self, of_report: &'a Path) -> &'a Path {
        self.file.as_deref().unwrap_or(of_report)
    }

    fn write(&self, file: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Mark { line, column } = self.mark;
        let file = self.file(file).to_string_lossy();
        let file = printable(&file);
        write!(f, "{file}:{line}:{column}: {severity}: ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", printable(&self.path))?;
        }
        writeln!(f, "{}", printable(&self.message))?;
        if let Some(hint) = &self.hint {
            writeln!(f, "  hint: {}", printable(hint))?;
        }
        Ok(())
    }
}

struct Beginning<'a>(&'a Report);

/// Problems of a [`Beginning`].
const BEGINNING_MAX: usize = 20;

impl fmt::Display for Beginning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { file, problems } = self.0;
        let of = |severity| problems.iter().filter(move |one| one.severity == severity);
        let by_severity = of(Severity::Error).chain(of(Severity::Warning));
        for problem in by_severity.take(BEGINNING_MAX) {
            problem.write(file, f)?;
        }
        match problems.len().saturating_sub(BEGINNING_MAX) {
            0 => Ok(()),
            left => writeln!(f, "{left} more: `hookward validate` lists all"),
        }
    }
}

/// What somebody else wrote, so that it forges no line and steers no terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// The closest of `known` to `word`, when close enough to be a slip: `did you mean ...?`.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_problem_forges_a_line() {
        let mut report = Report::new("a\nb.yaml");
        report.push(Problem {
            file: None,
            mark: Mark::START,
            path: "routes.\r\u{9b}2K".to_owned(),
            message: "`a\nb.yaml: valid\u{1b}[2K` is not `ü`".to_owned(),
            hint: Some("a\tb".to_owned()),
            severity: Severity::Error,
        });
        let expected = "a\\nb.yaml:1:1: error: routes.\\r\\u{9b}2K: \
                        `a\\nb.yaml: valid\\u{1b}[2K` is not `ü`\n  hint: a\\tb\n";
        assert_eq!(report.to_string(), expected);
        assert_eq!(report.beginning().to_string(), expected);
        assert_eq!(report.to_json()["problems"][0]["hint"], "a\tb");
    }

    #[test]
    fn a_beginning_says_what_it_leaves_out() {
        for (problems, more) in [(20, ""), (25, "5 more: `hookward validate` lists all\n")] {
            let mut report = Report::new("hookward.yaml");
            for line in 1..=problems {
                report.push(Problem {
                    file: None,
                    mark: Mark { line, column: 1 },
                    path: String::new(),
                    message: "somebody should look".to_owned(),
                    hint: None,
                    severity: Severity::Warning,
                });
            }
            let all = report.to_string();
            let lines: String = all.split_inclusive('\n').take(20).collect();
            assert_eq!(report.beginning().to_string(), format!("{lines}{more}"));
            // What refuses it is never left out for what is only doubtful.
            report.push(Problem {
                file: None,
                mark: Mark::START,
                path: String::new(),
                message: "this is wrong".to_owned(),
                hint: None,
                severity: Severity::Error,
            });
            let beginning = report.beginning().to_string();
            let first = "hookward.yaml:1:1: error: this is wrong\n";
            assert!(beginning.starts_with(first), "{beginning}");
        }
    }
}
