//! The operator's own presets: a folder of files over the shipped ones.

use std::path::Path;

use super::error;
use super::resolve::{Finding, Resolver, absolute, reason};
use crate::problem::{Mark, Report};
use crate::scheme::catalog::Catalog;

/// Adds every `*.yaml` of a folder, in the order of their names. What is wrong with one does not
/// hide the others. Fails when the folder cannot be read.
pub(super) fn add_folder(
    catalog: &mut Catalog,
    folder: &str,
    resolver: &mut Resolver<'_>,
) -> Result<Vec<Report>, Finding> {
    let full = resolver.watch(folder);
    let names = file_names(&full).map_err(|error| {
        let finding = Finding::new(format!(
            "cannot read the folder `{folder}`: {}",
            reason(&error)
        ));
        finding.hint(format!("it is looked for at {}", absolute(&full)))
    })?;
    let mut reports = Vec::new();
    for name in names {
        let path = Path::new(folder).join(&name).to_string_lossy().into_owned();
        let text = resolver.file(&path).map(String::from_utf8);
        let file = full.join(&name).display().to_string();
        let added = match text {
            Ok(Ok(text)) => catalog.add(&file, &text),
            Ok(Err(_)) => Err(report(&file, Finding::new("not UTF-8"))),
            Err(finding) => Err(report(&file, finding)),
        };
        reports.extend(added.err());
    }
    Ok(reports)
}

fn file_names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_yaml = [".yaml", ".yml"].iter().any(|end| name.ends_with(end));
        // Editors leave `.name.yaml.swp` and `.#name.yaml` behind.
        if is_yaml && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A report of what is wrong with a whole file.
pub(super) fn report(file: &str, finding: Finding) -> Report {
    let mut report = Report::new(file);
    report.push(error(Mark::START, finding.message, finding.hint));
    report
}
