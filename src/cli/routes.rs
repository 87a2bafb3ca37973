//! `hookward routes test`: which route takes a request, and why.

use std::sync::Arc;

use anyhow::bail;
use clap::Subcommand;
use http::{Method, Uri};

use super::config_file::ConfigArgs;
use super::output::Output;
use super::{ExitStatus, url};
use crate::config::Environment;
use crate::gateway::head;
use crate::gateway::rejection::Rejection;
use crate::reason::Reason;
use crate::route::Route;
use crate::route::matcher::{Found, HostPattern, RouteTable, normalize_host};

/// Ask the route table
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Test(Test),
}

/// Say which route takes a request, and why
///
/// Prints the winning route's name first. Exits 0 when a route takes the request, 1 when none does or
/// the URL is refused for every route, 2 when it could not be told.
#[derive(Debug, clap::Args)]
struct Test {
    /// Request method
    #[arg(value_name = "METHOD")]
    method: Method,
    /// URL, or a path alone for routes of any host
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    file: ConfigArgs,
}

pub(super) fn run(
    args: &Args,
    env: &Environment,
    output: &mut Output,
) -> anyhow::Result<ExitStatus> {
    let Verb::Test(test) = &args.verb;
    let asked = Asked::parse(&test.method, &test.url)?;
    let config = test.file.load(env, output)?;
    if let Err((code, why)) = judge(&asked) {
        output.note(format_args!("{code}: {why}, so no route is asked"));
        return Ok(ExitStatus::No);
    }
    Ok(answer(&asked, &config.routes, output))
}

/// The request in question.
struct Asked {
    method: Method,
    /// As written; `None` for a path alone.
    authority: Option<String>,
    host: String,
    /// Path and query.
    target: String,
    path: String,
}

impl Asked {
    fn parse(method: &Method, text: &str) -> anyhow::Result<Self> {
        let (authority, target) = if text.starts_with('/') {
            (None, text.to_owned())
        } else {
            let url = url::parse(text)?;
            let authority = url::authority(&url).to_owned();
            (Some(authority), url::target(&url).into_owned())
        };
        let host = authority.as_deref().map(host_of).unwrap_or_default();
        let target = target.split('#').next().unwrap_or("/").to_owned();
        let path = target.split('?').next().unwrap_or("/").to_owned();
        if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
            bail!("`{text}` holds white space");
        }
        Ok(Self {
            method: method.clone(),
            authority,
            host,
            target,
            path,
        })
    }
}

/// What a listener thinks of host and target before it looks for a route: the reason's code and why.
fn judge(asked: &Asked) -> Result<(), (&'static str, &'static str)> {
    let said = |rejection: Rejection| (rejection.reason.code(), rejection.detail);
    if let Some(authority) = &asked.authority {
        head::admit_host(authority).map_err(said)?;
    }
    let malformed = (Reason::MalformedRequest.code(), "the target is not a URI");
    let uri = asked.target.parse::<Uri>().map_err(|_bad| malformed)?;
    head::target(&uri).map(drop).map_err(said)
}

/// As routes compare it: without port.
fn host_of(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    normalize_host(host)
}

fn answer(asked: &Asked, routes: &RouteTable, output: &mut Output) -> ExitStatus {
    match routes.find(&asked.host, &asked.path, &asked.method) {
        Found::Route(winner) => {
            output.line(&winner.name);
            output.line(format_args!("  {}", pattern(winner)));
            if winner.matches.handshakes.contains(&asked.method) {
                output.line("  for handshakes of its presets only");
            }
            for other in routes
                .routes()
                .iter()
                .filter(|other| !Arc::ptr_eq(other, winner))
            {
                let why =
                    why_not(other, asked).unwrap_or_else(|| less_specific(other, winner, asked));
                output.line(format_args!("  not {}: {why}", other.name));
            }
            ExitStatus::Success
        }
        Found::MethodNotAllowed(leaf) => {
            for route in leaf {
                output.note(format_args!(
                    "method_not_allowed: route `{}` takes this path, but only {}",
                    route.name,
                    methods(route)
                ));
            }
            ExitStatus::No
        }
        Found::Nothing => {
            output.note("route_not_found: no route takes this host and path");
            for route in routes.routes() {
                let why = why_not(route, asked).unwrap_or_default();
                output.note(format_args!("  not {}: {why}", route.name));
            }
            ExitStatus::No
        }
    }
}

/// The pattern as the configuration has it.
fn pattern(route: &Route) -> String {
    format!(
        "{} {}{}",
        methods(route),
        host(&route.matches.host),
        route.matches.path.as_str()
    )
}

fn methods(route: &Route) -> String {
    let methods = route.matches.all_methods().map(Method::as_str);
    methods.collect::<Vec<_>>().join(", ")
}

fn host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Any => "(any host) ".to_owned(),
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Wildcard(suffix) => format!("*{suffix}"),
    }
}

fn named_host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Any => "any host".to_owned(),
        HostPattern::Exact(_) | HostPattern::Wildcard(_) => format!("`{}`", host(pattern)),
    }
}

/// What keeps a route from the request; `None` when it would take it.
fn why_not(route: &Route, asked: &Asked) -> Option<String> {
    let suffix = asked.host.find('.').and_then(|dot| asked.host.get(dot..));
    let takes_host = match &route.matches.host {
        HostPattern::Any => true,
        HostPattern::Exact(host) => **host == *asked.host,
        HostPattern::Wildcard(wanted) => suffix == Some(wanted),
    };
    if !takes_host {
        let wanted = host(&route.matches.host);
        return Some(match asked.host.as_str() {
            "" => format!("it takes host `{wanted}` only, and none was given"),
            own => format!("host `{own}` is not `{wanted}`"),
        });
    }
    if let Some(why) = path_differs(route.matches.path.as_str(), &asked.path) {
        return Some(why);
    }
    (!route.matches.takes(&asked.method))
        .then(|| format!("it takes {}, not {}", methods(route), asked.method))
}

/// The first segment at which a path leaves a pattern.
fn path_differs(pattern: &str, path: &str) -> Option<String> {
    let mut wanted = pattern.split('/').skip(1);
    let mut found = path.split('/').skip(1);
    for number in 1_usize.. {
        match (wanted.next(), found.next()) {
            (None, None) => return None,
            (Some(rest), Some(_)) if rest.starts_with("{*") => return None,
            (None, Some(found)) => {
                return Some(format!(
                    "`{pattern}` ends before segment {number}, `{found}`"
                ));
            }
            (Some(wanted), None) => {
                return Some(format!("the path ends before segment {number}, `{wanted}`"));
            }
            (Some(wanted), Some(found)) => {
                let matches = if wanted.starts_with('{') {
                    !found.is_empty()
                } else {
                    wanted == found
                };
                if !matches {
                    return Some(format!("segment {number} is `{found}`, not `{wanted}`"));
                }
            }
        }
    }
    None
}

/// Where a route that would take the request gives way to the winner.
fn less_specific(other: &Route, winner: &Route, asked: &Asked) -> String {
    let (own, better) = (&other.matches.host, &winner.matches.host);
    if own != better {
        return format!(
            "{} is less specific than {}, and hosts come first",
            named_host(own),
            named_host(better)
        );
    }
    let segments = |route: &Route| {
        let path = route.matches.path.as_str();
        path.split('/')
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let pairs = segments(other).into_iter().zip(segments(winner));
    let differs = |(own, better): &(String, String)| kind(own) != kind(better);
    match pairs.enumerate().find(|(_, pair)| differs(pair)) {
        Some((index, (own, better))) => {
            format!("at segment {} `{own}` gives way to `{better}`", index + 1)
        }
        None => format!("it does not lead to `{}` first", asked.path),
    }
}

/// A literal comes before `{name}`, and that before `{*rest}`.
fn kind(segment: &str) -> u8 {
    match segment {
        rest if rest.starts_with("{*") => 2,
        name if name.starts_with('{') => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_path_leaves_a_pattern() {
        assert_eq!(path_differs("/a/{b}", "/a/x"), None);
        assert_eq!(path_differs("/a/{*r}", "/a/"), None);
        assert_eq!(
            path_differs("/a/b", "/a/c").unwrap(),
            "segment 2 is `c`, not `b`"
        );
        assert_eq!(
            path_differs("/a/{b}", "/a/").unwrap(),
            "segment 2 is ``, not `{b}`"
        );
        assert_eq!(
            path_differs("/a", "/a/b").unwrap(),
            "`/a` ends before segment 2, `b`"
        );
        assert_eq!(
            path_differs("/a/b", "/a").unwrap(),
            "the path ends before segment 2, `b`"
        );
    }

    #[test]
    fn hosts_are_compared_without_port() {
        assert_eq!(host_of("Hooks.Example.org:8443"), "hooks.example.org");
        assert_eq!(host_of("[::1]:443"), "[::1]");
        assert_eq!(host_of("[::1]"), "[::1]");
    }
}
