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

/// Names that may have been meant by one that no preset has: those that share a word with it, else one that differs
/// by a slip.
pub(super) fn near(name: &str, names: &[String]) -> Vec<String> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', ' ', '.'], "-");
    let asked = plain(name);
    let same = |own: &&String| own.replace('-', "") == asked.replace('-', "");
    let whole: Vec<_> = names.iter().filter(same).cloned().collect();
    if is_common(&asked) || !whole.is_empty() {
        return whole;
    }
    let words: Vec<_> = asked.split('-').filter(|word| !is_common(word)).collect();
    let shared = |own: &str| {
        let own: Vec<_> = own.split('-').collect();
        words.iter().filter(|word| own.contains(word)).count()
    };
    let most = names.iter().map(|own| shared(own)).max().unwrap_or(0);
    let mut close: Vec<_> = names
        .iter()
        .filter(|own| most > 0 && shared(own) == most)
        .cloned()
        .collect();
    if close.is_empty() {
        // A slip leaves most of a word: none in three letters, one in four, two from eight on. Letters that
        // changed places are likelier than others.
        let slips = (asked.len() / 4).min(2);
        let known = names.iter().map(|own| {
            let distance = strsim::damerau_levenshtein(&asked, own);
            (distance, letters(own) != letters(&asked), own)
        });
        let known = known.filter(|(distance, ..)| *distance <= slips);
        close.extend(known.min().map(|(_, _, own)| own.clone()));
    }
    if close.is_empty() && asked.len() > 3 {
        let begins = |own: &&String| own.starts_with(&asked);
        close.extend(names.iter().filter(begins).cloned());
    }
    close.truncate(NEAR_MAX);
    close
}

fn letters(name: &str) -> Vec<char> {
    let mut letters: Vec<_> = name.chars().collect();
    letters.sort_unstable();
    letters
}

/// Words that tell no provider from another.
fn is_common(word: &str) -> bool {
    const COMMON: &[&str] = &[
        "api", "app", "cloud", "com", "custom", "data", "generic", "hmac", "hook", "hooks", "io",
        "webhook", "webhooks",
    ];
    COMMON.contains(&word) || word.len() < 2
}

/// Names that a message lists.
const NEAR_MAX: usize = 4;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_share_a_word_or_differ_by_a_slip() {
        let names = Catalog::built_in().names();
        for (name, meant) in [
            ("GitHub", &["github"][..]),
            ("git-hub", &["github"]),
            ("githb", &["github"]),
            ("strip", &["stripe"]),
            ("twillio", &["twilio"]),
            ("sendgird", &["sendgrid"]),
            ("standardwebhooks", &["standard-webhooks"]),
            ("github-enterprise", &["github"]),
            ("shopify-app", &["shopify"]),
            ("docusign", &["docusign-connect"]),
            ("hubspot", &["hubspot-v1", "hubspot-v2", "hubspot-v3"]),
            ("bitbucket", &["bitbucket-cloud", "bitbucket-data-center"]),
            ("aws", &["aws-sns"]),
            ("sns", &["aws-sns"]),
            ("quickbooks", &["intuit-quickbooks"]),
            ("mongo", &["mongodb-atlas"]),
            ("custom", &[]),
            ("generic", &[]),
            ("hmac", &[]),
            ("x", &[]),
            ("", &[]),
        ] {
            assert_eq!(near(name, &names), meant, "{name}");
        }
    }
}
