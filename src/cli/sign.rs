//! `hookward sign`: the request that the provider would send.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::ValueEnum;
use data_encoding::BASE64;
use http::Method;
use serde_json::{Value, json};

use super::config_file::working_folder;
use super::output::Output;
use super::{ExitStatus, Printable, input, url};
use crate::clock::Clock;
use crate::config::{self, Environment};
use crate::scheme::catalog::{Catalog, CatalogError, Selected};
use crate::scheme::keys::Key;
use crate::scheme::sign::Draft;
use crate::scheme::{KeyKind, Params, Scheme, SenderUrl};
use crate::secret::Secret;
use crate::units::UnixTime;

/// What is called where nothing is said.
const DEFAULT_URL: &str = "https://localhost/";

/// Make the request that a provider would send
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    request: RequestArgs,
    /// The URL that the provider would call [default: `https://localhost/`]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// How to print it: an HTTP/1.1 message, a curl command, or JSON
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// What `sign` and `send` both need.
#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    /// Preset, or one of its schemes
    #[arg(long, value_name = "NAME[/SCHEME]")]
    provider: String,
    /// The secret, or the private key: `env:NAME`, `file:PATH` or `value:TEXT`
    #[arg(long, value_name = "REF")]
    secret: Option<String>,
    #[command(flatten)]
    preset: ProviderArgs,
    /// Request method
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    method: Method,
    /// A header field, `Name: value`; may be repeated
    #[arg(long = "header", value_name = "FIELD", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The body, `-` for standard input
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// The moment it is signed at: Unix seconds or RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    now: Option<UnixTime>,
}

/// What a preset needs beside keys.
#[derive(Debug, clap::Args)]
pub(super) struct ProviderArgs {
    /// What the preset asks for beside secrets; VALUE is text, or JSON for lists and booleans
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = param)]
    params: Vec<(String, Value)>,
    /// A folder with more presets
    #[arg(long, value_name = "DIR")]
    providers_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// An HTTP/1.1 message, as `verify --request` reads it
    #[default]
    Http,
    /// A command for a shell
    Curl,
    /// For machines
    Json,
}

pub(super) fn run(
    args: &Args,
    env: &Environment,
    output: &mut Output,
) -> anyhow::Result<ExitStatus> {
    let url = args.url.as_deref().map(url::parse).transpose()?;
    let signed = args.request.sign(url, env, output)?;
    match args.format {
        Format::Http => output.bytes(&http_message(&signed)),
        Format::Curl => output.line(curl(&signed, &[])),
        Format::Json => output.json(&to_json(&signed))?,
    }
    Ok(ExitStatus::Success)
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write `Name: value`")?;
    let (name, value) = (name.trim(), value.trim());
    http::HeaderName::from_bytes(name.as_bytes())
        .map_err(|_ill_formed| format!("`{name}` is not a header name"))?;
    http::HeaderValue::from_str(value)
        .map_err(|_ill_formed| format!("`{value}` is not a header value"))?;
    if ["content-length", "transfer-encoding"].contains(&&*name.to_ascii_lowercase()) {
        return Err(format!("`{name}` follows from the body"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A value that reads as a list, a boolean or a plain number is one; everything else is text.
fn param(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write `NAME=VALUE`")?;
    let parsed = match serde_json::from_str::<Value>(value) {
        Ok(parsed @ (Value::Array(_) | Value::Bool(_))) => parsed,
        // `1e5` or a number with thirty digits would not come back as it was written.
        Ok(Value::Number(number)) if number.to_string() == value => Value::Number(number),
        _ => Value::String(value.to_owned()),
    };
    Ok((name.to_owned(), parsed))
}

impl ProviderArgs {
    pub(super) fn params(&self) -> Params {
        self.params.iter().cloned().collect()
    }
}

/// What a flag refers to.
pub(super) fn read_key(flag: &str, reference: &str, env: &Environment) -> anyhow::Result<Secret> {
    config::secret(reference, env, working_folder())
        .map_err(|message| anyhow::anyhow!("{flag}: {message}"))
}

/// The shipped presets, and those of a folder.
pub(super) fn catalog(args: &ProviderArgs) -> anyhow::Result<Catalog> {
    catalog_of(args.providers_dir.as_deref())
}

/// As [`catalog`], for a folder alone.
pub(super) fn catalog_of(folder: Option<&std::path::Path>) -> anyhow::Result<Catalog> {
    config::catalog(folder).map_err(|reports| {
        let reports: String = reports.iter().map(ToString::to_string).collect();
        let message = format!("presets cannot be used:\n{}", reports.trim_end());
        Printable(message).into()
    })
}

/// An error that says what there is instead.
pub(super) fn unknown(error: CatalogError, catalog: &Catalog) -> anyhow::Error {
    match error {
        CatalogError::UnknownProvider { name } => {
            let near = config::near_presets(&name, catalog);
            let hint = near.unwrap_or_else(|| "`hookward providers` lists them".to_owned());
            anyhow::anyhow!("there is no preset `{name}`; {hint}")
        }
        CatalogError::UnknownScheme {
            provider,
            name,
            known,
        } => anyhow::anyhow!(
            "preset `{provider}` has no scheme `{name}`, only `{}`",
            known.join("`, `")
        ),
        CatalogError::Broken(_) => error.into(),
    }
}

/// Compiles a preset's scheme with the params given.
pub(super) fn bind(selected: &Selected, params: &Params) -> anyhow::Result<Scheme> {
    selected
        .bind(params, None)
        .map_err(|wrong| anyhow::anyhow!(wrong.join("; ")))
}

impl RequestArgs {
    /// The request as the provider would send it to `url`. Says where one should have been given, and which headers
    /// were given in vain.
    pub(super) fn sign(
        &self,
        url: Option<SenderUrl>,
        env: &Environment,
        output: &Output,
    ) -> anyhow::Result<Draft> {
        let catalog = catalog(&self.preset)?;
        let found = catalog.find(&self.provider);
        let selected = found.map_err(|error| unknown(error, &catalog))?;
        let scheme = bind(&selected, &self.preset.params())?;
        let read = |reference| read_key("--secret", reference, env);
        let secret = self.secret.as_deref().map(read).transpose()?;
        let key = match (scheme.key_kind(), &secret) {
            (KeyKind::None, _) => Ok(Key::secret("none".into(), Secret::new(Vec::new()), None)),
            (KeyKind::Secret, Some(secret)) => scheme.secret_key("1".into(), secret.expose(), None),
            (KeyKind::Public, Some(secret)) => scheme.private_key("1".into(), secret.expose()),
            (KeyKind::Secret, None) => bail!("`{}` is signed with `--secret`", self.provider),
            (KeyKind::Public, None) => {
                bail!(
                    "`{}` is signed with a private key, `--secret file:key.pem`",
                    self.provider
                )
            }
        };
        let key = key.map_err(|why| anyhow::anyhow!("--secret: {why}"))?;
        let is_made_up = url.is_none() && scheme.covers_url();
        let draft = self.draft(url.map_or_else(|| url::parse(DEFAULT_URL), Ok)?)?;
        let now = self.now.unwrap_or_else(|| Clock::system().now());
        let signed = scheme
            .sign(draft, &key, now)
            .with_context(|| format!("`{}` cannot be signed", self.provider))?;
        if is_made_up {
            output.note(format_args!(
                "warning: the signature covers the URL, and `{DEFAULT_URL}` was taken for it: give \
                 the one that the provider calls with `--url`"
            ));
        }
        for (name, _) in self.headers.iter().filter(|field| !is_kept(field, &signed)) {
            output.note(format_args!(
                "warning: the `{name}` of `--header` is left out: signing writes its own"
            ));
        }
        Ok(signed)
    }

    fn draft(&self, url: SenderUrl) -> anyhow::Result<Draft> {
        let body = input::read(&self.body)?;
        let mut headers = self.headers.clone();
        let is_typed = headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
        if !is_typed && is_json {
            headers.insert(
                0,
                ("Content-Type".to_owned(), "application/json".to_owned()),
            );
        }
        Ok(Draft {
            method: self.method.clone(),
            url,
            headers,
            body,
        })
    }
}

/// Whether a field that was given is in the signed request, maybe as what a list of signatures begins with.
fn is_kept((name, value): &(String, String), signed: &Draft) -> bool {
    let is_it = |(own, written): &(String, String)| {
        let rest = written
            .strip_prefix(value.as_str())
            .filter(|_| !value.is_empty());
        let is_begun = rest.is_some_and(|rest| rest.starts_with([',', ';', ' ']));
        own.eq_ignore_ascii_case(name) && (written == value || is_begun)
    };
    signed.headers.iter().any(is_it)
}

/// The form that `verify --request` reads back.
fn http_message(signed: &Draft) -> Vec<u8> {
    let has = |wanted: &str| {
        let mut names = signed.headers.iter().map(|(name, _)| name);
        names.any(|name| name.eq_ignore_ascii_case(wanted))
    };
    let mut lines = vec![format!(
        "{} {} HTTP/1.1",
        signed.method,
        url::target(&signed.url)
    )];
    if !has("host") {
        lines.push(format!("Host: {}", url::authority(&signed.url)));
    }
    lines.extend(
        signed
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}")),
    );
    if !has("content-length") {
        lines.push(format!("Content-Length: {}", signed.body.len()));
    }
    let head = lines.join("\r\n") + "\r\n\r\n";
    [head.as_bytes(), &signed.body].concat()
}

fn to_json(signed: &Draft) -> Value {
    json!({
        "method": signed.method.as_str(),
        "url": format!("{}{}", signed.url.origin, signed.url.target),
        "headers": signed.headers,
        "body_base64": BASE64.encode(&signed.body),
    })
}

/// A command that sends exactly these bytes; `options` go first.
pub(super) fn curl(signed: &Draft, options: &[&str]) -> String {
    let mut words = vec!["curl".to_owned(), "-sS".to_owned()];
    words.extend(options.iter().map(|option| (*option).to_owned()));
    words.push(format!("-X {}", quote(signed.method.as_str())));
    for (name, value) in &signed.headers {
        // curl drops a field whose value is empty, unless it ends with a semicolon.
        let field = if value.is_empty() {
            format!("{name};")
        } else {
            format!("{name}: {value}")
        };
        words.push(format!("-H {}", quote(&field)));
    }
    let is_typed = signed
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if !is_typed {
        words.push("-H 'Content-Type:'".to_owned());
    }
    let mut before = String::new();
    match std::str::from_utf8(&signed.body) {
        Ok(text) if !text.contains('\0') => words.push(format!("--data-raw {}", quote(text))),
        _ => {
            before = format!("printf %s {} | base64 -d | ", BASE64.encode(&signed.body));
            words.push("--data-binary @-".to_owned());
        }
    }
    words.push(quote(&format!(
        "{}{}",
        signed.url.origin,
        url::target(&signed.url)
    )));
    before + &words.join(" ")
}

/// A word for a POSIX shell.
pub(super) fn quote(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_text_unless_they_read_as_json() {
        let value = |text: &str| param(text).unwrap().1;
        assert_eq!(value("a=WH-1"), json!("WH-1"));
        assert_eq!(value("a=[\"x\",\"y\"]"), json!(["x", "y"]));
        assert_eq!(value("a=true"), json!(true));
        assert_eq!(value("a=5"), json!(5));
        assert_eq!(value("a=007"), json!("007"));
        assert_eq!(value("a=1e5"), json!("1e5"));
        assert_eq!(
            value("a=123456789012345678901234567890"),
            json!("123456789012345678901234567890")
        );
        assert_eq!(value("a={\"b\":1}"), json!("{\"b\":1}"));
        assert_eq!(value("a=b=c"), json!("b=c"));
        assert_eq!(value("a="), json!(""));
        assert!(param("a").is_err());
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a/b"), "a/b");
        assert_eq!(quote("$x"), "'$x'");
    }
}
