//! Which route takes a request.

use std::sync::Arc;

use hookward::route::auth::AuthPolicy;
use hookward::route::matcher::{
    Found, HostPattern, PathPattern, RouteMatch, RouteTable, normalize_host,
};
use hookward::route::policy::{BodyPolicy, ForwardPolicy, Mode, Sources};
use hookward::route::{BODY_SIZE_MAX_DEFAULT, Route, UpstreamRef};
use http::Method;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "- /hooks/github G\nh.example /hooks/{name} P\n*.example /hooks/{*rest} GP\n\nh.example /hooks/github G\nx.example /hooks/ P\n- /hooks/a/b G\n",
        "- / G\n- /{a} G\n- /{a}/b P\n- /a/{*r} GP\n- /a/{b}/c G\n\n- /a/b G\n- /a G\n- // P\n- /a/b/c G\n",
        "h /a G\nh /a P\nH. /a O\n- /a G\n- /{x} P\n- /{*y} O\n\nh /a O\nh /b O\n- /%61 P\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// SECURITY Z-04: the order of the file does not matter, and the most specific pattern wins.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (patterns, requests) = text.split_once("\n\n").unwrap_or((text, ""));
    let routes: Vec<Arc<Route>> = patterns
        .lines()
        .take(24)
        .enumerate()
        .filter_map(|(index, line)| route(index, line))
        .map(Arc::new)
        .collect();
    let mut backwards = routes.clone();
    backwards.reverse();
    let (table, other) = match (
        RouteTable::build(routes.clone()),
        RouteTable::build(backwards),
    ) {
        (Ok(table), Ok(other)) => (table, other),
        (Err(_), Err(_)) => return,
        (one, two) => panic!("a conflict depends on the order: {one:?} and {two:?}"),
    };
    for request in requests.lines().take(64) {
        let mut words = request.split(' ');
        let (Some(host), Some(path), Some(method)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let host = normalize_host(host);
        for method in methods(method) {
            let found = name(&table.find(&host, path, &method));
            assert_eq!(
                found,
                name(&other.find(&host, path, &method)),
                "the order matters"
            );
            assert_eq!(
                found,
                plainly(&routes, &host, path, &method),
                "{host} {path} {method}"
            );
        }
        let _masked = table.mask_unmatched(path);
    }
}

fn methods(letters: &str) -> Vec<Method> {
    let method = |letter| match letter {
        'G' => Some(Method::GET),
        'P' => Some(Method::POST),
        'O' => Some(Method::OPTIONS),
        _ => None,
    };
    letters.chars().filter_map(method).collect()
}

fn route(index: usize, line: &str) -> Option<Route> {
    let mut words = line.split(' ');
    let host = match words.next()? {
        "-" => HostPattern::Any,
        host => HostPattern::parse(host).ok()?,
    };
    let path = PathPattern::parse(words.next()?).ok()?;
    let methods = methods(words.next()?);
    if methods.is_empty() {
        return None;
    }
    Some(Route {
        name: format!("r{index}").into(),
        matches: RouteMatch {
            host,
            path,
            methods,
            handshakes: Vec::new(),
        },
        mode: Mode::Enforce,
        sources: Sources::default(),
        quotas: Box::default(),
        body: BodyPolicy {
            size_max: BODY_SIZE_MAX_DEFAULT,
            content_types: None,
            well_formed: false,
        },
        auth: AuthPolicy::Open,
        replay: None,
        upstream: UpstreamRef::Echo,
        forward: ForwardPolicy::default(),
        reject_status: None,
        answers: Arc::default(),
    })
}

fn name(found: &Found<'_>) -> Option<String> {
    match found {
        Found::Route(route) => Some(route.name.to_string()),
        Found::MethodNotAllowed(_) => Some("no such method".to_owned()),
        Found::Nothing => None,
    }
}

/// The same by looking at every route: the lowest rank wins, then the method is asked for.
fn plainly(routes: &[Arc<Route>], host: &str, path: &str, method: &Method) -> Option<String> {
    let ranked = routes
        .iter()
        .filter_map(|route| Some((rank(route, host, path)?, route)));
    let ranked: Vec<_> = ranked.collect();
    let best = ranked.iter().map(|(rank, _)| rank).min()?;
    let mut best = ranked.iter().filter(|(rank, _)| rank == best);
    let taken = best.find(|(_, route)| route.matches.takes(method));
    Some(taken.map_or("no such method".to_owned(), |(_, route)| {
        route.name.to_string()
    }))
}

/// How special the match is, from the left; `None` where there is none.
fn rank(route: &Route, host: &str, path: &str) -> Option<Vec<u8>> {
    let mut rank = vec![match &route.matches.host {
        HostPattern::Exact(own) => (**own == *host).then_some(0)?,
        HostPattern::Wildcard(suffix) => {
            let label = host.strip_suffix(&**suffix)?;
            (!label.contains('.')).then_some(1)?
        }
        HostPattern::Any => 2,
    }];
    let pattern: Vec<&str> = route
        .matches
        .path
        .as_str()
        .strip_prefix('/')?
        .split('/')
        .collect();
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    for (index, own) in pattern.iter().enumerate() {
        let segment = *segments.get(index)?;
        if own.starts_with("{*") {
            rank.push(2);
            return Some(rank);
        }
        if own.starts_with('{') {
            (!segment.is_empty()).then_some(())?;
            rank.push(1);
        } else {
            (*own == segment).then_some(())?;
            rank.push(0);
        }
    }
    (pattern.len() == segments.len()).then_some(rank)
}
