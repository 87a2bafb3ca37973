//! `hookward send`: signs a request and delivers it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use data_encoding::BASE64;

use super::output::Output;
use super::sign::RequestArgs;
use super::{ExitStatus, url};
use crate::config::Environment;
use crate::scheme::sign::Draft;
use crate::units::Span;

mod client;

use client::{Answer, Trust};

/// Sign a request as a provider would, and deliver it
///
/// Prints the status and the body of the answer. User and password of a URL are sent as Basic
/// credentials. Exits 0 on a 2xx status, 1 on another, 2 when
/// there was no answer.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    request: RequestArgs,
    /// Where to deliver it
    #[arg(long, value_name = "URL")]
    to: String,
    /// The URL that the provider would call, where it is not where the request is delivered: it is
    /// signed, and gives `Host` [default: the same as --to]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Trust the certificates of this file, and those that they signed, instead of the system's
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Accept any certificate
    #[arg(long, conflicts_with = "cacert")]
    insecure: bool,
    /// How long to wait for the whole answer
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: Span,
}

pub(super) fn run(
    args: &Args,
    env: &Environment,
    output: &mut Output,
) -> anyhow::Result<ExitStatus> {
    let to = url::parse(&args.to)?;
    let called = args.url.as_deref().map(url::parse).transpose()?;
    let url = called.clone().unwrap_or_else(|| to.clone());
    let mut signed = args.request.sign(Some(url), env, output)?;
    let user = called.as_ref().and_then(url::user_information);
    if let Some(user) = user.or_else(|| url::user_information(&to)) {
        authorize(&mut signed, &user);
    }
    if called.is_some() {
        // The provider's query, which may hold the signature, at the path where it is delivered.
        let query = signed
            .url
            .target
            .find('?')
            .and_then(|mark| signed.url.target.get(mark..));
        let target = url::target(&to);
        let path = target.split('?').next().unwrap_or("/");
        let target = format!("{path}{}", query.unwrap_or_default());
        let mut names = signed.headers.iter().map(|(name, _)| name);
        if !names.any(|name| name.eq_ignore_ascii_case("host")) {
            let host = url::authority(&signed.url).to_owned();
            signed.headers.push(("Host".to_owned(), host));
        }
        signed.url.origin = to.origin;
        signed.url.target = target.into();
    }
    let trust = match (&args.cacert, args.insecure) {
        (Some(file), _) => Trust::These(client::authorities(file)?),
        (None, true) => Trust::Anyone,
        (None, false) => Trust::System,
    };
    let Answer { status, body, cut } = deliver(signed, &trust, args.timeout.0)
        .with_context(|| format!("cannot deliver to {}", url::shown(&args.to)))?;
    output.line(status);
    output.bytes(&body);
    if !body.is_empty() && !body.ends_with(b"\n") {
        output.bytes(b"\n");
    }
    if let Some(most) = cut {
        output.note(format_args!(
            "warning: the body of the answer is longer than {most} and is cut there"
        ));
    }
    Ok(if status.is_success() {
        ExitStatus::Success
    } else {
        ExitStatus::No
    })
}

/// As curl does: user and password of the URL are Basic credentials, unless others are given.
fn authorize(signed: &mut Draft, user: &[u8]) {
    let mut names = signed.headers.iter().map(|(name, _)| name);
    if !names.any(|name| name.eq_ignore_ascii_case("authorization")) {
        let value = format!("Basic {}", BASE64.encode(user));
        signed.headers.push(("Authorization".to_owned(), value));
    }
}

fn deliver(signed: Draft, trust: &Trust, timeout: Duration) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(timeout, client::deliver(signed, trust)).await;
        answer.with_context(|| format!("no answer within {}", Span(timeout)))?
    })
}
