//! From what a preset says about handshakes and answers to what is done.

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Answers, BodyForm, Enrolment, Handshake, ProofForm, ReplyForm, Target};
use crate::document::At;
use crate::problem::Problem;
use crate::scheme::Params;
use crate::scheme::charset::Charset;
use crate::scheme::compile::{Compiler, get};
use crate::scheme::locate::Location;
use crate::scheme::spec::{
    AnswersSpec, EnrolmentSpec, FetchSpec, HandshakeSpec, Ordered, ProofSpec, ReplySpec,
};
use crate::scheme::template::{Repeated, Template};

/// Media types that no browser takes for a page.
const MEDIA_TYPES: [&str; 2] = ["application/json", "text/plain"];

/// Compiles the handshakes of a preset. One that needs a param which was left out is not offered.
pub(in crate::scheme) fn handshakes(
    specs: &Ordered<HandshakeSpec>,
    params: &Params,
) -> Result<Vec<Handshake>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut handshakes = Vec::new();
    for (name, at) in &specs.0 {
        let Some(spec) = at.get().filter(|spec| is_possible(spec, params)) else {
            continue;
        };
        let mut compiler = Compiler::new(params);
        handshakes.extend(compiler.handshake(name, at, spec, params));
        problems.append(&mut compiler.problems);
    }
    if problems.is_empty() {
        Ok(handshakes)
    } else {
        Err(problems)
    }
}

/// Compiles the answers of a preset.
pub(in crate::scheme) fn answers(
    at: &At<AnswersSpec>,
    params: &Params,
) -> Result<Answers, Vec<Problem>> {
    let mut compiler = Compiler::new(params);
    let answers = at.get().map(|spec| compiler.answers(spec));
    if compiler.problems.is_empty() {
        Ok(answers.unwrap_or_default())
    } else {
        Err(compiler.problems)
    }
}

/// Whether every param that its answer is made of has a value.
fn is_possible(spec: &HandshakeSpec, params: &Params) -> bool {
    let reply = spec.reply.get();
    let headers = reply.and_then(|reply| get(&reply.headers));
    let json = reply.and_then(|reply| get(&reply.json));
    let text = reply.and_then(|reply| get(&reply.text));
    let mappings = [get(&spec.texts), headers, json].into_iter().flatten();
    let texts = mappings.flat_map(|all| all.iter().map(|(_, text)| text));
    texts.chain(text).all(|text| {
        let mut names = text.split("{param:").skip(1);
        names.all(|rest| {
            let name = rest.split(['}', '|', '?']).next().unwrap_or_default();
            params.contains_key(name)
        })
    })
}

impl Compiler<'_> {
    fn handshake(
        &mut self,
        name: &str,
        at: &At<HandshakeSpec>,
        spec: &HandshakeSpec,
        params: &Params,
    ) -> Option<Handshake> {
        if let Some(texts) = get(&spec.texts) {
            self.all_texts(texts);
        }
        let when = self.when(&spec.when);
        let Some(method) = when.method.clone() else {
            self.error(at, "a handshake needs `when: { method: ... }`");
            return None;
        };
        let proof = self.proof_form(at, &spec.proof, params);
        let charset = self.charsets(spec.charset.as_ref());
        let refuse_status = spec.refuse_status.as_ref().and_then(|at| self.status(at));
        let reply = self.reply(&spec.reply);
        let is_pinned = |place: &Location| proof.require.iter().any(|own| own.place == *place);
        let mut repeated = Vec::new();
        for text in reply.templates() {
            text.repeats(false, &mut repeated);
        }
        self.guard(&spec.reply, &repeated, &charset, &is_pinned);
        let fetch = spec.fetch.as_ref().and_then(|at| self.target(at));
        if fetch.is_some() && !proof.signature {
            self.error(
                at,
                "a URL is only called once `proof: { signature: true }` held",
            );
        }
        Some(Handshake {
            name: name.into(),
            method,
            when,
            charset,
            refuse_status,
            fetch,
            reply: ReplyForm {
                is_signed: repeated.iter().any(|own| own.is_signed),
                ..reply
            },
            proof,
            verify_token: None,
            keeper: None,
        })
    }

    fn proof_form(
        &mut self,
        handshake: &At<HandshakeSpec>,
        at: &At<ProofSpec>,
        params: &Params,
    ) -> ProofForm {
        let Some(spec) = at.get() else {
            if at.place().is_none() {
                self.error(
                    handshake,
                    "a handshake needs `proof`: what proves it, or `none: true`",
                );
            }
            return ProofForm::default();
        };
        let token = spec.token_query.as_ref().and_then(|at| self.text(at));
        let requires = get(&spec.require).into_iter().flatten();
        let proof = ProofForm {
            signature: get(&spec.signature).copied().unwrap_or_default(),
            token: token.map(|name| Location::Query(name.into())),
            require: requires.filter_map(|at| self.require(at)).collect(),
            enrolment: spec
                .enrolment
                .as_ref()
                .and_then(|at| self.enrolment(at, params)),
        };
        let none = get(&spec.none).copied().unwrap_or_default();
        let any = proof.signature
            || proof.token.is_some()
            || spec.require.is_some()
            || spec.enrolment.is_some();
        if any == none {
            self.error(
                at,
                "say what proves it: `signature`, `token_query`, `require`, `enrolment`, or `none: true` alone",
            );
        }
        proof
    }

    fn enrolment(&mut self, at: &At<EnrolmentSpec>, params: &Params) -> Option<Enrolment> {
        let spec = at.get()?;
        let header = spec.header.as_ref().and_then(|at| self.header(at));
        let json = spec.json.as_ref().and_then(|at| self.pointer(at));
        let place = header.map(Location::Header).or(json.map(Location::Json));
        if place.is_none() {
            self.error(at, "say where the secret stands: `header` or `json`");
        }
        Some(Enrolment {
            place: place?,
            is_signed: get(&spec.signed).copied().unwrap_or(true),
            is_always_answered: get(&spec.answered_when_closed).copied().unwrap_or_default(),
            is_open: params.get("enrolment_window_open") == Some(&serde_json::Value::Bool(true)),
        })
    }

    fn status(&mut self, at: &At<u16>) -> Option<StatusCode> {
        let status = *at.get()?;
        let known = StatusCode::from_u16(status)
            .ok()
            .filter(|_| (200..600).contains(&status));
        if known.is_none() {
            self.error(at, format!("{status} is not a status of an answer"));
        }
        known
    }

    fn charsets(&mut self, at: Option<&At<Ordered<String>>>) -> Vec<(Location, Charset)> {
        let all = at.and_then(At::get).map(|all| all.0.as_slice());
        let mut charsets = Vec::new();
        for (source, at) in all.unwrap_or_default() {
            let Some(pattern) = at.get() else { continue };
            let place = Template::parse(&format!("{{{source}}}"), self);
            let place = place.ok().and_then(|own| own.place().cloned());
            match (place, Charset::parse(pattern)) {
                (Some(place), Ok(charset)) => charsets.push((place, charset)),
                (None, _) => self.error(
                    at,
                    format!("`{source}` is not a place of one value; write `query:NAME`, `header:NAME` or `json:/POINTER`"),
                ),
                (_, Err(message)) => self.error(at, message),
            }
        }
        charsets
    }

    fn reply(&mut self, at: &At<ReplySpec>) -> ReplyForm {
        let mut reply = ReplyForm {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: BodyForm::Empty,
            is_signed: false,
        };
        let Some(spec) = at.get() else {
            return reply;
        };
        if let Some(status) = spec.status.as_ref().and_then(|at| self.status(at)) {
            reply.status = status;
        }
        reply.headers = self.fields_of(spec.headers.as_ref());
        match (&spec.text, get(&spec.json)) {
            (Some(_), Some(_)) => self.error(at, "an answer is either `text` or `json`"),
            (Some(text), None) => {
                reply.body = self.template(text).map_or(BodyForm::Empty, BodyForm::Text);
            }
            (None, Some(members)) => {
                let members = members
                    .0
                    .iter()
                    .filter_map(|(name, at)| self.template(at).map(|text| (name.clone(), text)));
                reply.body = BodyForm::Json(members.collect());
            }
            (None, None) => {}
        }
        reply
    }

    fn fields_of(&mut self, at: Option<&At<Ordered<String>>>) -> Vec<(HeaderName, Template)> {
        let all = at.and_then(At::get).map(|all| all.0.as_slice());
        let mut fields = Vec::new();
        for (name, at) in all.unwrap_or_default() {
            let Ok(name) = name.parse::<HeaderName>() else {
                self.error(at, format!("`{name}` is not a header name"));
                continue;
            };
            let Some(template) = self.template(at) else {
                continue;
            };
            let is_plain = template
                .literal()
                .is_some_and(|text| MEDIA_TYPES.contains(&text));
            if name == CONTENT_TYPE && !is_plain {
                self.error(at, format!("an answer can be {}", MEDIA_TYPES.join(" or ")));
            }
            fields.push((name, template));
        }
        fields
    }

    /// Refuses an answer that would repeat what nothing bounds, or sign what could be signed content
    /// (SECURITY ).
    fn guard<T>(
        &mut self,
        at: &At<T>,
        repeated: &[Repeated<'_>],
        charset: &[(Location, Charset)],
        is_pinned: &dyn Fn(&Location) -> bool,
    ) {
        for Repeated { place, is_signed } in repeated {
            let Some(place) = place else {
                self.error(
                    at,
                    "an answer repeats single values only: `{query:NAME}`, `{json:/POINTER}` ...",
                );
                continue;
            };
            let bound = charset.iter().find(|(own, _)| own == *place);
            match bound {
                Some((_, charset)) if *is_signed && !charset.is_token() => self.error(
                    at,
                    "what goes into an HMAC must be letters, digits, `-` and `_` only by its `charset`, or it could be signed content",
                ),
                Some(_) => {}
                None if is_pinned(place) && !is_signed => {}
                None => self.error(at, "every value that an answer repeats needs a `charset`"),
            }
        }
    }

    fn target(&mut self, at: &At<FetchSpec>) -> Option<Target> {
        let spec = at.get()?;
        let mut hosts = Vec::new();
        for at in spec.hosts.get().into_iter().flatten() {
            let Some(host) = at.get() else { continue };
            let labels: Vec<String> = host.split('.').map(str::to_owned).collect();
            let fixed = labels
                .iter()
                .rev()
                .take_while(|label| *label != "*")
                .count();
            if fixed < 2 || labels.iter().any(String::is_empty) {
                self.error(
                    at,
                    "write a host whose last two labels are fixed: `sns.*.example.org`",
                );
            }
            hosts.push(labels);
        }
        if hosts.is_empty() {
            self.error(at, "`fetch` needs `hosts`: which hosts the URL may name");
        }
        Some(Target {
            pointer: self.pointer(&spec.json)?,
            hosts,
        })
    }

    fn answers(&mut self, spec: &AnswersSpec) -> Answers {
        let charset = self.charsets(spec.charset.as_ref());
        let headers = self.fields_of(spec.headers.as_ref());
        let mut repeated = Vec::new();
        for (_, text) in &headers {
            text.repeats(false, &mut repeated);
        }
        let is_signed = repeated.iter().any(|own| own.is_signed);
        if let Some(at) = &spec.headers {
            self.guard(at, &repeated, &charset, &|_| false);
        }
        let media_type = spec.accept_type.as_ref().map(|at| {
            let value = at.get().and_then(|text| HeaderValue::from_str(text).ok());
            if value.is_none() {
                self.error(at, "not a media type");
            }
            value
        });
        let media_type = media_type.flatten();
        let media_type = media_type.unwrap_or(HeaderValue::from_static("text/plain"));
        Answers {
            reject_status: spec.reject_status.as_ref().and_then(|at| self.status(at)),
            reject_empty: get(&spec.reject_empty).copied().unwrap_or_default(),
            accept_status: spec.accept_status.as_ref().and_then(|at| self.status(at)),
            accept_body: get(&spec.accept_body).map(|body| (media_type, body.clone())),
            headers,
            charset,
            is_signed,
        }
    }
}

impl ReplyForm {
    fn templates(&self) -> impl Iterator<Item = &Template> {
        let (text, members) = match &self.body {
            BodyForm::Empty => (None, [].as_slice()),
            BodyForm::Text(text) => (Some(text), [].as_slice()),
            BodyForm::Json(members) => (None, members.as_slice()),
        };
        let headers = self.headers.iter().map(|(_, text)| text);
        headers
            .chain(text)
            .chain(members.iter().map(|(_, text)| text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scheme::catalog::Catalog;

    /// What is wrong with a preset that has this handshake.
    fn mistakes(handshake: &str) -> Vec<String> {
        let preset = format!(
            "provider: x\ntitle: X\ncategory: x\nconfidence: high\nsources: [x]\nsecret: x\n\
             schemes:\n  s: {{ algorithm: token, signature: {{ header: X-Token }} }}\n\
             handshakes:\n  h: {{ {handshake} }}\n"
        );
        match Catalog::built_in().add("x.yaml", &preset) {
            Ok(()) => Vec::new(),
            Err(report) => report
                .problems()
                .iter()
                .map(|problem| problem.message.clone())
                .collect(),
        }
    }

    #[test]
    fn an_answer_that_could_sign_an_event_does_not_load() {
        // SECURITY A-46
        let signing = |charset: &str| {
            mistakes(&format!(
                "when: {{ method: GET, query: q }}, proof: {{ none: true }}, charset: {{ \"query:q\": \"{charset}\" }}, \
                 reply: {{ text: \"{{query:q|hmac_sha256|hex}}\" }}"
            ))
        };
        assert_eq!(signing("[A-Za-z0-9_-]{1,128}"), Vec::<String>::new());
        for wide in ["[ -~]{1,64}", "[a-z.]{1,64}", "[0-9]{1,9}:[0-9]{1,9}"] {
            assert!(
                signing(wide).concat().contains("could be signed content"),
                "{wide}"
            );
        }
        let signed = "when: { method: POST, json: /q }, proof: { signature: true }, reply: { json: { a: \"{json:/q|hmac_sha1|hex}\" } }";
        assert!(mistakes(signed).concat().contains("needs a `charset`"));
        let whole = "when: { method: POST }, proof: { signature: true }, reply: { text: \"{body|hmac_sha256|hex}\" }";
        assert!(mistakes(whole).concat().contains("single values only"));
        let secret = "when: { method: GET }, proof: { none: true }, reply: { text: \"{secret}\" }";
        assert!(mistakes(secret).concat().contains("single values only"));
    }

    #[test]
    fn an_answer_that_repeats_without_bounds_does_not_load() {
        // SECURITY A-47
        let echo = "when: { method: GET, query: q }, proof: { none: true }, reply: { text: \"{query:q}\" }";
        assert!(mistakes(echo).concat().contains("needs a `charset`"));
        let page = "when: { method: GET }, proof: { none: true }, reply: { headers: { Content-Type: text/html }, text: hi }";
        assert!(
            mistakes(page)
                .concat()
                .contains("application/json or text/plain")
        );
        let pinned = "when: { method: GET, header: X }, proof: { require: [{ header: X, equals: one }] }, reply: { headers: { X: \"{header:X}\" } }";
        assert_eq!(mistakes(pinned), Vec::<String>::new());
    }

    #[test]
    fn what_proves_it_is_said() {
        let reply = "reply: { status: 200 }";
        let with =
            |proof: &str| mistakes(&format!("when: {{ method: GET }}, {proof} {reply}")).concat();
        assert!(with("").contains("needs `proof`"));
        assert!(with("proof: {},").contains("say what proves it"));
        assert!(with("proof: { none: true, signature: true },").contains("say what proves it"));
        assert!(with("proof: { enrolment: {} },").contains("where the secret stands"));
        let no_method = "when: { query: q }, proof: { none: true }, reply: { status: 200 }";
        assert!(mistakes(no_method).concat().contains("method"));
        let fetch = "when: { method: POST }, proof: { none: true }, fetch: { json: /u, hosts: [sns.example.org] }, reply: {}";
        assert!(
            mistakes(fetch)
                .concat()
                .contains("once `proof: { signature: true }` held")
        );
        let wide = "when: { method: POST }, proof: { signature: true }, fetch: { json: /u, hosts: [\"*.org\"] }, reply: {}";
        assert!(mistakes(wide).concat().contains("last two labels"));
    }

    #[test]
    fn one_whose_answer_lacks_a_param_is_not_offered() {
        let ebay = Catalog::built_in().find("ebay").unwrap();
        let mut params = Params::from([("key_id".to_owned(), json!("k"))]);
        assert!(ebay.handshakes(&params).unwrap().is_empty());
        params.insert("verification_token".to_owned(), json!("t"));
        params.insert("endpoint".to_owned(), json!("https://example.org/"));
        assert_eq!(ebay.handshakes(&params).unwrap().len(), 1);
    }
}
