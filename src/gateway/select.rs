//! Stage: which route takes the request.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderValue, header};

use super::head::Head;
use super::rejection::Rejection;
use super::snapshot::{RouteState, Snapshot};
use crate::reason::Reason;
use crate::route::Route;
use crate::route::auth::{Check, TokenLocation};
use crate::route::matcher::Found;

/// Why no route takes a request, and the route that would if its method were another: none where
/// several would.
pub type Unrouted<'s> = (Rejection, Option<&'s Arc<RouteState>>);

/// Finds the route, or says what is missing.
pub fn select<'s>(
    snapshot: &'s Snapshot,
    head: &Head,
) -> Result<&'s Arc<RouteState>, Unrouted<'s>> {
    match snapshot
        .routes
        .find(&head.host.name, head.path(), &head.method)
    {
        Found::Route(route) => snapshot.state(route).ok_or_else(|| {
            let rejection = Rejection::new(Reason::Internal, "a route has no state");
            (rejection, None)
        }),
        Found::MethodNotAllowed(routes) => {
            let only = match routes {
                [route] => snapshot.state(route),
                _ => None,
            };
            let routes = routes.iter().map(|route| &**route);
            Err((method_not_allowed(routes), only))
        }
        Found::Nothing => {
            let rejection = Rejection::new(Reason::RouteNotFound, "no route matches");
            Err((rejection, None))
        }
    }
}

/// The refusal of a method that none of `routes` takes, or not for such a request.
pub fn method_not_allowed<'r>(routes: impl IntoIterator<Item = &'r Route>) -> Rejection {
    let routes = routes.into_iter();
    let methods = routes.flat_map(|route| route.matches.all_methods());
    let mut methods: Vec<&str> = methods.map(http::Method::as_str).collect();
    methods.sort_unstable();
    let mut rejection = Rejection::new(Reason::MethodNotAllowed, "no route takes this method here");
    let methods = HeaderValue::from_str(&methods.join(", "));
    let allow = methods.map(|methods| Arc::new((header::ALLOW, methods)));
    rejection.fields.extend(allow);
    rejection
}

/// The path as it may be logged under `route`: tokens in it are masked.
pub fn loggable_path<'p>(route: &Route, path: &'p str) -> Cow<'p, str> {
    let tokens = route.auth.checks().filter_map(|check| match check {
        Check::Token(token) => match &token.location {
            TokenLocation::Path(name) => Some(name),
            TokenLocation::Bearer | TokenLocation::Header(_) | TokenLocation::Query(_) => None,
        },
        Check::Any(_) | Check::Basic(_) | Check::ClientCert(_) | Check::Signature(_) => None,
    });
    tokens.fold(Cow::Borrowed(path), |path, name| {
        Cow::Owned(route.matches.path.mask(name, &path))
    })
}
