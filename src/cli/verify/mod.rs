//! `hookward verify`: judges a captured request offline, by the engine that serves, and says why.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;

use super::ExitStatus;
use super::config_file::ConfigArgs;
use super::output::Output;
use super::sign::ProviderArgs;
use super::validate::Format;
use super::{input, url};
use crate::clock::Clock;
use crate::config::Environment;
use crate::reason::Reason;
use crate::scheme::hints::{self, Case, Hint};
use crate::scheme::keys::KeySet;
use crate::scheme::{Content, Message, SenderUrl, SignatureError};
use crate::units::UnixTime;

mod provider;
pub mod request;
mod route;
mod secret;
mod verdict;

use request::{Captured, RequestError};
use verdict::Verdict;

/// Judge a captured request offline, step by step, and say why
///
/// Either by a preset and the secrets given here, or by the whole policy of a route. Exits 0 when
/// the request is accepted, 1 when it is rejected, 2 when it could not be judged.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("judge").required(true).args(["provider", "route"])))]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigArgs,
    /// Judge by the policy of this route of the configuration
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["secrets", "params", "providers_dir", "public_keys"]
    )]
    route: Option<String>,
    /// Judge by this preset, or one of its schemes
    #[arg(long, value_name = "NAME[/SCHEME]", conflicts_with = "config")]
    provider: Option<String>,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    preset: ProviderArgs,
    /// The request: one HTTP/1.1 message as bytes, `-` for standard input
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// The URL as the sender saw it
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The moment to judge at: Unix seconds or RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    now: Option<UnixTime>,
    /// Address of the client, for `allow_ips` and `deny_ips`
    #[arg(
        long,
        value_name = "IP",
        requires = "route",
        conflicts_with = "provider"
    )]
    client_ip: Option<IpAddr>,
    /// How to print the verdict
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// The keys to judge by.
#[derive(Debug, clap::Args)]
struct KeyArgs {
    /// A secret: `env:NAME`, `file:PATH` or `value:TEXT`; may be repeated
    #[arg(long = "secret", value_name = "REF")]
    secrets: Vec<String>,
    /// A public key: `file:PATH`, `env:NAME` or `value:TEXT`; may be repeated
    #[arg(long = "public-key", value_name = "REF")]
    public_keys: Vec<String>,
}

/// A request with all that the verdict depends on.
struct Question<'a> {
    request: &'a Captured,
    body: Content,
    /// As given by `--url`.
    url: Option<SenderUrl>,
    client_ip: Option<IpAddr>,
    now: UnixTime,
}

pub(super) fn run(
    args: &Args,
    env: &Environment,
    output: &mut Output,
) -> anyhow::Result<ExitStatus> {
    let bytes = input::read(&args.request)?;
    let captured = request::parse(&bytes).map_err(|error| no_request(args, &bytes, &error))?;
    if let Some(note) = length_note(&captured) {
        output.note(note);
    }
    let question = Question {
        request: &captured,
        body: Content::new(vec![captured.body.clone()]),
        url: args.url.as_deref().map(url::parse).transpose()?,
        client_ip: args.client_ip,
        now: args.now.unwrap_or_else(|| Clock::system().now()),
    };
    let verdict = match (&args.provider, &args.route) {
        (Some(name), None) => provider::judge(name, &args.preset, &args.keys, &question, env)?,
        (None, Some(name)) => {
            let config = args.file.load(env, output)?;
            route::judge(name, &config, &question)?
        }
        (None, None) | (Some(_), Some(_)) => bail!("give either `--provider` or `--route`"),
    };
    print(&verdict, args.format, output)?;
    Ok(if verdict.refusal.is_none() {
        ExitStatus::Success
    } else {
        ExitStatus::No
    })
}

/// What a file is that is no request, and where it is said how to get one.
fn no_request(args: &Args, bytes: &[u8], error: &RequestError) -> anyhow::Error {
    let file = args.request.display();
    let next = "docs/operations.md#capturing-a-request says how to get one";
    match request::instead(bytes) {
        Some(what) => anyhow::anyhow!("{file}: not an HTTP/1.1 request: {what}; {next}"),
        None => anyhow::anyhow!("{file}: {error}; {next}"),
    }
}

fn print(verdict: &Verdict, format: Format, output: &mut Output) -> anyhow::Result<()> {
    match format {
        Format::Json => output.json(&verdict.to_json()),
        Format::Text => {
            output.bytes(verdict.to_string().as_bytes());
            Ok(())
        }
    }
}

/// What explains a refusal: by the engine, by the forms of `secrets`, by the unit of `--now`, and by a `--url` without
/// the query that was called.
fn explain<'s>(
    case: &Case<'_>,
    question: &Question<'_>,
    secrets: impl Iterator<Item = &'s [u8]>,
) -> Vec<Hint> {
    if let Some(hint) = query_meant(case, question) {
        return vec![hint];
    }
    if let Some((meant, hint)) = moment_meant(case) {
        let meant = Case {
            now: meant,
            ..*case
        };
        let more = hints::search(&meant);
        return [hint].into_iter().chain(more).collect();
    }
    let mut hints = hints::search(case);
    let is_told = |hint: &Hint| hint.code.contains("secret") || hint.code.starts_with("timestamp");
    if !hints.iter().any(is_told) {
        hints.extend(secret::explain(case, secrets));
    }
    hints
}

/// The moment of `--now` in milliseconds, where the signature is right and only the time was not.
fn moment_meant(case: &Case<'_>) -> Option<(UnixTime, Hint)> {
    let written = case.now.secs();
    let meant = UnixTime::from_millis(written);
    let then = Case {
        now: meant,
        ..*case
    };
    (written >= MILLIS_MIN && is_right(&then)).then(|| {
        let message = format!(
            "`--now {written}` is in milliseconds, where it has seconds: it was meant to be {meant}"
        );
        let code = "now_unit";
        (meant, Hint { code, message })
    })
}

/// The query of the captured request, where the signature is right for `--url` with it.
fn query_meant(case: &Case<'_>, question: &Question<'_>) -> Option<Hint> {
    let given = question.url.as_ref()?;
    let (_, query) = question.request.target.split_once('?')?;
    if given.target.contains('?') {
        return None;
    }
    let url = SenderUrl {
        origin: Arc::clone(&given.origin),
        target: format!("{}?{query}", given.target).into(),
    };
    let message = Message {
        url: &url,
        ..case.message
    };
    let meant = Case { message, ..*case };
    is_right(&meant).then(|| Hint {
        code: "url_form",
        message: "the signature matches for `--url` with the query of the captured request; give it as the sender \
                  called it, query and all"
            .to_owned(),
    })
}

/// A number from here on is no time in seconds that anybody means: it is past the year 5000.
const MILLIS_MIN: i64 = 100_000_000_000;

/// Whether the signature of a case is right, whatever its time.
fn is_right(case: &Case<'_>) -> bool {
    KeySet::new(case.keys.to_vec()).is_some_and(|keys| {
        let judged = case.scheme.verify(&case.message, &keys, case.now);
        judged.err().is_none_or(|error| is_untimely(&error))
    })
}

/// Whether a signature is right, and only its time is not.
fn is_untimely(error: &SignatureError) -> bool {
    matches!(
        error.reason,
        Reason::TimestampAhead | Reason::TimestampStale
    )
}

/// A capture that is not whole explains many a mismatch.
fn length_note(request: &Captured) -> Option<String> {
    let declared = request
        .headers
        .get(http::header::CONTENT_LENGTH)?
        .to_str()
        .ok()?;
    let declared: usize = declared.parse().ok()?;
    let found = request.body.len();
    (declared != found).then(|| {
        format!("warning: Content-Length is {declared}, but {found} bytes follow the headers")
    })
}

impl Question<'_> {
    /// The URL that the sender called, as far as the request tells: over https, unless it says else.
    fn sender_url(&self) -> anyhow::Result<SenderUrl> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let target = &self.request.target;
        if !target.starts_with('/') {
            return url::parse(target);
        }
        let host = self.request.headers.get(http::header::HOST);
        let host = host
            .and_then(|host| host.to_str().ok())
            .filter(|host| !host.is_empty());
        Ok(SenderUrl {
            origin: format!("https://{}", host.unwrap_or("localhost")).into(),
            target: target.as_str().into(),
        })
    }
}
