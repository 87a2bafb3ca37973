//! By the whole policy of a route: the stages of the gateway, without its sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, bail};
use http::Request;

use super::verdict::{Answered, Verdict};
use super::{Question, explain};
use crate::config::Config;
use crate::gateway::connection::{Connection, TlsFacts};
use crate::gateway::handshake::{self, Question as Asked};
use crate::gateway::head::{self, Head};
use crate::gateway::password::Passwords;
use crate::gateway::rejection::Rejection;
use crate::gateway::select::loggable_path;
use crate::gateway::verify::{self, Presented, Proof};
use crate::gateway::well_formed::Syntax;
use crate::gateway::{admit, promise};
use crate::problem::suggest;
use crate::reason::Reason;
use crate::route::Route;
use crate::route::auth::{AuthPolicy, Check, SignatureCheck};
use crate::route::matcher::Found;
use crate::route::policy::Mode;
use crate::scheme::SenderUrl;
use crate::scheme::hints::{Case, Foreign};
use crate::scheme::keys::Key;
use crate::scheme::trace::{StepResult, Trace};
use crate::settings::ListenerSettings;

pub(super) fn judge(
    name: &str,
    config: &Config,
    question: &Question<'_>,
) -> anyhow::Result<Verdict> {
    let routes = config.routes.routes();
    let Some(route) = routes.iter().find(|route| *route.name == *name) else {
        let known = suggest(name, routes.iter().map(|route| &*route.name));
        let names: Vec<_> = routes.iter().map(|route| &*route.name).take(20).collect();
        let hint = match known {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("there are `{}`", names.join("`, `")),
        };
        bail!("there is no route `{name}`; {hint}");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let mut judge = Judge {
        route,
        config,
        question,
        passwords: Passwords::new().context("the system has no randomness")?,
        verdict: Verdict::default(),
    };
    if let Err(rejection) = runtime.block_on(judge.stages()) {
        judge.verdict.refusal = Some(rejection.reason);
        // As in the log: where one check fails, nothing is proved and no event is known.
        judge.verdict.key_id = None;
        judge.verdict.event_id = None;
    }
    Ok(judge.verdict)
}

/// One request on its way through the stages.
struct Judge<'a> {
    route: &'a Arc<Route>,
    config: &'a Config,
    question: &'a Question<'a>,
    passwords: Passwords,
    verdict: Verdict,
}

impl Judge<'_> {
    /// The stages in the gateway's order; the first that refuses ends it.
    async fn stages(&mut self) -> Result<(), Rejection> {
        let parsed = self.head();
        let route = Arc::clone(self.route);
        let head = self.note("head", parsed, |head| {
            // The query and a token in the path are secrets.
            format!("{} {}", head.method, loggable_path(&route, head.path()))
        })?;
        let taken = self.select(&head);
        self.note("route", taken, |detail| (*detail).to_owned())?;
        self.source()?;
        let url = self.sender_url(&head);
        let asked = handshake::find(presented(&head, &route, &url), &self.question.body);
        if asked.is_none() {
            self.note_if_failed("method", self.method(&head))?;
            self.refused_by_head(&head, &url).await?;
        }
        let without = asked.map(Asked::check);
        self.checks(&head, &url, Stage::Head, without).await?;
        self.body(&head, asked.is_some())?;
        self.checks(&head, &url, Stage::Body, without).await?;
        if let Some(asked) = asked {
            self.handshake(asked, &head, &url)?;
        }
        self.not_judged();
        Ok(())
    }

    fn head(&self) -> Result<Head, Rejection> {
        let request = self.question.request;
        let malformed = |detail| Rejection::new(Reason::MalformedRequest, detail);
        let built = Request::builder()
            .method(request.method.clone())
            .uri(&*request.target)
            .body(());
        let built = built.map_err(|_ill_formed| malformed("the target is not a URI"))?;
        let mut parts = built.into_parts().0;
        parts.headers.clone_from(&request.headers);
        let peer = self
            .question
            .client_ip
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        // Without a URL that says otherwise, senders are taken to call over https, unless nobody can.
        let listeners = &self.config.listeners;
        let is_plain = listeners.iter().any(ListenerSettings::takes_plain_http)
            && !listeners.iter().any(ListenerSettings::takes_tls);
        let tls = (!is_plain).then_some(TlsFacts {
            certificate: None,
            client: None,
        });
        let peer = SocketAddr::new(peer, 0);
        let connection = Connection::new(peer, "offline".into(), tls);
        head::parse(&mut parts, &connection)
    }

    /// Whether the route is the one that takes the request.
    fn select(&self, head: &Head) -> Result<&'static str, Rejection> {
        let not_found = |detail| Err(Rejection::new(Reason::RouteNotFound, detail));
        match self
            .config
            .routes
            .find(&head.host.name, head.path(), &head.method)
        {
            Found::Route(found) if Arc::ptr_eq(found, self.route) => {
                Ok("host, path and method lead to this route")
            }
            Found::Route(_) => {
                not_found("another route takes this request; `hookward routes test` says which")
            }
            Found::MethodNotAllowed(routes)
                if routes.iter().any(|route| Arc::ptr_eq(route, self.route)) =>
            {
                let detail = "the route does not take this method";
                Err(Rejection::new(Reason::MethodNotAllowed, detail))
            }
            Found::MethodNotAllowed(_) | Found::Nothing => {
                not_found("the route does not take this host and path")
            }
        }
    }

    /// Refuses a method that the route takes for handshakes only.
    fn method(&self, head: &Head) -> Result<(), Rejection> {
        if self.route.matches.methods.contains(&head.method) {
            return Ok(());
        }
        let detail = "the route takes this method for handshakes only, and this is none";
        Err(Rejection::new(Reason::MethodNotAllowed, detail))
    }

    /// What the gateway refuses before it reads the body, with the steps that explain it. A client certificate is
    /// not in the capture, so that routes that ask for one are not judged by this.
    async fn refused_by_head(&mut self, head: &Head, url: &SenderUrl) -> Result<(), Rejection> {
        let route = Arc::clone(self.route);
        let AuthPolicy::All(checks) = &route.auth else {
            return Ok(());
        };
        let is_certificate = |check: &Check| matches!(check, Check::ClientCert(_));
        let asks_for_one = |check: &Check| match check {
            Check::Any(choices) => choices.iter().any(is_certificate),
            check => is_certificate(check),
        };
        if checks.iter().any(asks_for_one) {
            return Ok(());
        }
        let presented = presented(head, &route, url);
        let judged = verify::from_head(presented, &self.passwords, self.question.now).await;
        let Err(refusal) = judged else {
            return Ok(());
        };
        if refusal.is_of_signature() {
            self.promised(head, false)?;
        }
        for check in checks {
            let judged = match check {
                Check::Any(choices) => self.any(choices, head, url).await,
                check => self.one(check, head, url).await,
            };
            if judged.is_err_and(|own| own.reason == refusal.reason) {
                break;
            }
        }
        Err(refusal)
    }

    fn source(&mut self) -> Result<(), Rejection> {
        let sources = &self.route.sources;
        if sources.allow.is_none() && sources.deny.is_empty() {
            return Ok(());
        }
        let Some(client) = self.question.client_ip else {
            self.verdict.step(
                "source",
                StepResult::Skipped,
                "not judged without `--client-ip`",
            );
            return Ok(());
        };
        let judged = admit::source(sources, client);
        self.note("source", judged, |()| format!("{client} may call"))
    }

    /// What the head says of the body.
    fn promised(&mut self, head: &Head, is_handshake: bool) -> Result<(), Rejection> {
        let policy = &self.route.body;
        let declared = promise::declared_size(policy, &head.headers);
        self.note_if_failed("body_size", declared)?;
        if !is_handshake {
            let typed = promise::content_type(policy, &head.headers);
            self.note_if_failed("content_type", typed)?;
        }
        Ok(())
    }

    fn body(&mut self, head: &Head, is_handshake: bool) -> Result<(), Rejection> {
        self.promised(head, is_handshake)?;
        let (policy, content) = (&self.route.body, &self.question.body);
        let size = content.len();
        let fits = if size as u64 > policy.size_max.0 {
            Err(Rejection::new(
                Reason::BodyTooLarge,
                "the body is larger than `max_size`",
            ))
        } else {
            Ok(())
        };
        self.note("body_size", fits, |()| {
            format!("{size} of at most {} bytes", policy.size_max.0)
        })?;
        let syntax = promise::media_type(&head.headers).and_then(Syntax::of);
        if let Some(syntax) = syntax.filter(|_| policy.well_formed) {
            let judged = syntax.check(&content.contiguous());
            let judged = judged.map_err(|detail| Rejection::new(Reason::BodyMalformed, detail));
            self.note("body_syntax", judged, |()| {
                "the body is well-formed".to_owned()
            })?;
        }
        Ok(())
    }

    /// Checks by the head alone come before the body is looked at, the others after; all but the one
    /// that a handshake belongs to.
    async fn checks(
        &mut self,
        head: &Head,
        url: &SenderUrl,
        stage: Stage,
        without: Option<&SignatureCheck>,
    ) -> Result<(), Rejection> {
        let route = Arc::clone(self.route);
        let AuthPolicy::All(checks) = &route.auth else {
            if stage == Stage::Head {
                self.verdict
                    .step("verify", StepResult::Skipped, "the route verifies nothing");
            }
            return Ok(());
        };
        let is_left_out = |check: &Check| without.is_some_and(|without| check.holds(without));
        let due = checks.iter().filter(|check| Stage::of(check) == stage);
        for check in due.filter(|check| !is_left_out(check)) {
            match check {
                Check::Any(choices) => self.any(choices, head, url).await?,
                check => self.one(check, head, url).await?,
            }
        }
        Ok(())
    }

    /// One of `choices` must hold. A client certificate, which the capture does not show, is no
    /// reason to let a request pass that fails all the others.
    async fn any(
        &mut self,
        choices: &[Check],
        head: &Head,
        url: &SenderUrl,
    ) -> Result<(), Rejection> {
        let mut refusals = Vec::new();
        for choice in choices {
            match self.one(choice, head, url).await {
                Ok(()) if matches!(choice, Check::ClientCert(_)) => {}
                Ok(()) => {
                    self.verdict.hints.clear();
                    return Ok(());
                }
                Err(refusal) => refusals.push(Err(refusal)),
            }
        }
        if refusals.is_empty() {
            return Ok(());
        }
        verify::first_that_holds(refusals).map(|_| ())
    }

    async fn one(&mut self, check: &Check, head: &Head, url: &SenderUrl) -> Result<(), Rejection> {
        let proof = match check {
            Check::ClientCert(_) => {
                let detail = "a client certificate cannot be judged offline";
                self.verdict
                    .step("client_cert", StepResult::Skipped, detail);
                return Ok(());
            }
            Check::Signature(check) => return self.signature(check, head, url),
            Check::Any(_) | Check::Basic(_) | Check::Token(_) => {
                let presented = presented(head, self.route, url);
                verify::head_alone(check, presented, &self.passwords, self.question.now).await
            }
        };
        let step = match check {
            Check::Basic(_) => "basic",
            Check::Token(_) => "token",
            Check::Any(_) => "any",
            Check::ClientCert(_) => "client_cert",
            Check::Signature(_) => "signature",
        };
        let proof = self.note(step, proof, |proof| match &proof.key_id {
            Some(id) => format!("proved by `{id}`"),
            None => "proved".to_owned(),
        })?;
        let Proof { key_id, .. } = proof;
        let key_id = key_id.map(|id| id.to_string());
        self.verdict.key_id = self.verdict.key_id.take().or(key_id);
        Ok(())
    }

    fn signature(
        &mut self,
        check: &SignatureCheck,
        head: &Head,
        url: &SenderUrl,
    ) -> Result<(), Rejection> {
        let now = self.question.now;
        let message = presented(head, self.route, url).message(&self.question.body);
        if check.needs_fetch() {
            let detail =
                "the keys are fetched while serving; pin them with `public_keys` to judge offline";
            self.verdict.step("keys", StepResult::Failed, detail);
            return Err(Rejection::new(Reason::KeyUnavailable, detail));
        }
        let mut trace = Trace::on();
        let judged = check
            .scheme
            .verify_traced(&message, &check.keys, now, &mut trace);
        let verdict = &mut self.verdict;
        verdict.trace(trace.into_steps());
        verdict.provider = verdict
            .provider
            .take()
            .or_else(|| check.provider.as_ref().map(|own| own.name().to_owned()));
        match judged {
            Ok(evidence) => {
                let key_id = evidence.key_id.map(|id| id.to_string());
                verdict.key_id = key_id.or(verdict.key_id.take());
                verdict.event_id = verdict
                    .event_id
                    .take()
                    .or(evidence.event_id.as_deref().map(str::to_owned));
                Ok(())
            }
            Err(error) => {
                let others = foreign_keys(self.config, self.route);
                let case = Case {
                    scheme: &check.scheme,
                    message,
                    keys: check.keys.all(),
                    written: &[],
                    others: &others,
                    siblings: &[],
                    now,
                };
                let secrets = check.keys.all().iter().filter_map(Key::secret_bytes);
                verdict.hints.extend(explain(&case, self.question, secrets));
                Err(error.into())
            }
        }
    }

    /// A provider's question whether the URL is ours: judged, and answered, but told to nobody.
    fn handshake(
        &mut self,
        asked: Asked<'_>,
        head: &Head,
        url: &SenderUrl,
    ) -> Result<(), Rejection> {
        let (check, handshake) = (asked.check(), asked.handshake());
        if handshake.needs_signature() {
            self.signature(check, head, url)?;
        }
        let provider = check.provider.as_ref().map(|own| own.name().to_owned());
        self.verdict.provider = self.verdict.provider.take().or(provider);
        let message = presented(head, self.route, url).message(&self.question.body);
        let reply = handshake.answer(&message, &check.scheme, &check.keys, self.question.now);
        let name = handshake.name();
        let reply = self.note("handshake", reply.map_err(Rejection::from), |_| {
            format!("`{name}`, answered by the gateway; the app does not see it")
        })?;
        if reply.fetch.is_some() {
            let detail = "the URL to confirm at is called while serving";
            self.verdict.step("confirm", StepResult::Skipped, detail);
        }
        if reply.enrolled.is_some() {
            let detail = "the secret that it brings is taken while serving";
            self.verdict.step("enrolment", StepResult::Skipped, detail);
        }
        let name = name.to_owned();
        self.verdict.answered = Some(Answered { name, reply });
        Ok(())
    }

    /// What depends on other requests.
    fn not_judged(&mut self) {
        if !self.route.quotas.is_empty() {
            let detail = "limits depend on other requests";
            self.verdict
                .step("rate_limits", StepResult::Skipped, detail);
        }
        if self.route.replay.is_some() && self.verdict.answered.is_none() {
            let detail = "whether it came before is not known offline";
            self.verdict.step("replay", StepResult::Skipped, detail);
        }
        if self.route.mode == Mode::Observe {
            let detail = "`mode: observe` forwards what it would reject";
            self.verdict.step("mode", StepResult::Skipped, detail);
        }
    }

    /// As the gateway sees it: by `--url`, else by the `public_url` of a listener, else by Host.
    fn sender_url(&self, head: &Head) -> SenderUrl {
        if let Some(url) = &self.question.url {
            return url.clone();
        }
        let mut public = self
            .config
            .listeners
            .iter()
            .filter_map(|l| l.public_url.as_ref());
        let origin = public.next().map(|url| url.origin().into());
        head::sender_url(head, origin.as_ref())
    }

    fn note<T>(
        &mut self,
        step: &'static str,
        judged: Result<T, Rejection>,
        detail: impl FnOnce(&T) -> String,
    ) -> Result<T, Rejection> {
        match &judged {
            Ok(value) => self.verdict.step(step, StepResult::Ok, detail(value)),
            Err(rejection) => self
                .verdict
                .step(step, StepResult::Failed, rejection.detail),
        }
        judged
    }

    /// For stages that say nothing when they have nothing to say.
    fn note_if_failed(
        &mut self,
        step: &'static str,
        judged: Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        if let Err(rejection) = &judged {
            self.verdict
                .step(step, StepResult::Failed, rejection.detail);
        }
        judged
    }
}

/// A request as checks see it, of which the capture shows no certificate.
fn presented<'a>(head: &'a Head, route: &'a Route, url: &'a SenderUrl) -> Presented<'a> {
    Presented {
        head,
        route,
        url,
        client: None,
        fetched: None,
    }
}

/// When a check is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Body,
}

impl Stage {
    fn of(check: &Check) -> Self {
        let needs_body = |check: &Check| matches!(check, Check::Signature(_));
        match check {
            Check::Any(choices) if choices.iter().any(needs_body) => Self::Body,
            Check::Signature(_) => Self::Body,
            Check::Any(_) | Check::Basic(_) | Check::ClientCert(_) | Check::Token(_) => Self::Head,
        }
    }
}

/// Keys of the other routes' signatures: a request is often sent to the wrong one.
fn foreign_keys(config: &Config, route: &Arc<Route>) -> Vec<Foreign> {
    let others = config
        .routes
        .routes()
        .iter()
        .filter(|other| !Arc::ptr_eq(other, route));
    let keys = others.flat_map(|other| {
        let signatures = other.auth.signatures();
        let keys = signatures.flat_map(|check| check.keys.all().iter().cloned());
        keys.map(|key| Foreign {
            owner: format!("route `{}`", other.name),
            key,
        })
        .collect::<Vec<_>>()
    });
    keys.collect()
}
