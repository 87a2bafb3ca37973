//! `hookward providers`: the presets, and what is known of each.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::ExitStatus;
use super::output::Output;
use super::sign::{catalog_of, unknown};
use super::validate::Format;
use crate::scheme::catalog::{Catalog, Preset};

mod show;

/// List the presets, or show one
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// How to print
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        global = true
    )]
    format: Format,
    /// A folder with more presets
    #[arg(long, value_name = "DIR", global = true)]
    providers_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(visible_alias = "search")]
    List(List),
    Show(Show),
}

/// List the presets
#[derive(Debug, Default, clap::Args)]
struct List {
    /// Only those whose name, title or category holds this word
    #[arg(value_name = "WORD")]
    word: Option<String>,
}

/// Show what is known of a preset, with a configuration to start from
#[derive(Debug, clap::Args)]
struct Show {
    /// Name of the preset
    #[arg(value_name = "NAME")]
    name: String,
    /// Print only the configuration
    #[arg(long)]
    snippet: bool,
}

pub(super) fn run(args: &Args, output: &mut Output) -> anyhow::Result<ExitStatus> {
    let catalog = catalog_of(args.providers_dir.as_deref())?;
    match &args.verb {
        None => list(&List::default(), &catalog, args.format, output)?,
        Some(Verb::List(list_args)) => list(list_args, &catalog, args.format, output)?,
        Some(Verb::Show(show_args)) => {
            let (name, scheme) = match show_args.name.split_once('/') {
                Some((name, scheme)) => (name, Some(scheme)),
                None => (show_args.name.as_str(), None),
            };
            let preset = catalog
                .preset(name)
                .map_err(|error| unknown(error, &catalog))?;
            let about = show::About::new(&catalog, &preset, name, scheme)?;
            match (show_args.snippet, args.format) {
                (true, Format::Text) => output.bytes(about.snippet().as_bytes()),
                (true, Format::Json) => output.json(&json!({ "snippet": about.snippet() }))?,
                (false, Format::Text) => output.bytes(about.to_string().as_bytes()),
                (false, Format::Json) => output.json(&about.to_json())?,
            }
        }
    }
    Ok(ExitStatus::Success)
}

/// A line of the list.
struct Entry {
    name: String,
    title: String,
    category: String,
    schemes: Vec<String>,
}

impl Entry {
    fn of(name: String, preset: &Preset) -> Self {
        let text = |at: &crate::document::At<String>| at.get().cloned().unwrap_or_default();
        Self {
            title: text(&preset.spec.title),
            category: text(&preset.spec.category),
            schemes: preset.schemes().map(|(id, _)| id.to_owned()).collect(),
            name,
        }
    }

    fn holds(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        [&self.name, &self.title, &self.category]
            .iter()
            .any(|text| text.to_lowercase().contains(&word))
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "title": self.title,
            "category": self.category,
            "schemes": self.schemes,
        })
    }
}

fn list(args: &List, catalog: &Catalog, format: Format, output: &mut Output) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    for name in catalog.names() {
        let entry = match catalog.preset(&name) {
            Ok(preset) => Entry::of(name, &preset),
            Err(error) => {
                // One that cannot be used does not hide the others.
                output.note(format_args!(
                    "warning: preset `{name}`: {}",
                    unknown(error, catalog)
                ));
                continue;
            }
        };
        if args.word.as_deref().is_none_or(|word| entry.holds(word)) {
            entries.push(entry);
        }
    }
    if let (Some(word), true) = (&args.word, entries.is_empty()) {
        let next = "`hookward providers` lists them all, docs/presets.md says how to write one";
        output.note(format_args!("no preset holds `{word}`; {next}"));
    }
    match format {
        Format::Json => output.json(&entries.iter().map(Entry::to_json).collect::<Vec<_>>())?,
        Format::Text => {
            let width = entries
                .iter()
                .map(|entry| entry.name.chars().count())
                .max()
                .unwrap_or(0);
            for Entry {
                name,
                title,
                schemes,
                ..
            } in &entries
            {
                output.line(format_args!(
                    "{name:width$}  {title} ({})",
                    schemes.join(", ")
                ));
            }
        }
    }
    Ok(())
}
