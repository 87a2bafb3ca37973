//! By a preset and the secrets of the command line.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};

use super::verdict::Verdict;
use super::{KeyArgs, Question, explain};
use crate::cli::sign::{ProviderArgs, bind, catalog, read_key, unknown};
use crate::config::Environment;
use crate::scheme::catalog::{Catalog, Selected};
use crate::scheme::hints::{Case, Sibling};
use crate::scheme::keys::{Key, KeySet};
use crate::scheme::trace::{StepResult, Trace};
use crate::scheme::{KeyKind, Message, Params, Scheme};
use crate::secret::Secret;

pub(super) fn judge(
    name: &str,
    args: &ProviderArgs,
    keys: &KeyArgs,
    question: &Question<'_>,
    env: &Environment,
) -> anyhow::Result<Verdict> {
    let catalog = catalog(args)?;
    let selected = catalog
        .find(name)
        .map_err(|error| unknown(error, &catalog))?;
    let params = args.params();
    let scheme = bind(&selected, &params)?;
    let written = Written::read(keys, env)?;
    let Keys { keys, unusable } = written.keys(&scheme, name)?;
    let url = question.sender_url()?;
    let message = Message {
        method: &question.request.method,
        url: &url,
        headers: &question.request.headers,
        body: &question.body,
    };
    let mut trace = Trace::on();
    let judged = scheme.verify_traced(&message, &keys, question.now, &mut trace);
    let provider = selected.preset.spec.provider.get().cloned();
    let mut verdict = Verdict {
        provider,
        ..Verdict::default()
    };
    verdict.trace(trace.into_steps());
    let result = if judged.is_ok() {
        StepResult::Skipped
    } else {
        StepResult::Failed
    };
    for why in unusable {
        verdict.step("secret", result, why);
    }
    match judged {
        Ok(evidence) => {
            verdict.key_id = evidence.key_id.map(|id| id.to_string());
            verdict.event_id = evidence.event_id.as_deref().map(str::to_owned);
        }
        Err(error) => {
            verdict.refusal = Some(error.reason);
            let siblings = siblings(&catalog, &selected, &params, &written);
            let case = Case {
                scheme: &scheme,
                message,
                keys: keys.all(),
                written: &written.secrets,
                others: &[],
                siblings: &siblings,
                now: question.now,
            };
            let secrets = written.secrets.iter().map(Secret::expose);
            verdict.hints = explain(&case, question, secrets);
        }
    }
    Ok(verdict)
}

/// Keys as the operator wrote them.
struct Written {
    secrets: Vec<Secret>,
    public_keys: Vec<Secret>,
}

impl Written {
    /// An empty `value:` is a secret that verifies nothing.
    fn read(args: &KeyArgs, env: &Environment) -> anyhow::Result<Self> {
        let secret = |reference: &String| match reference.as_str() {
            "value:" => Ok(Secret::new(Vec::new())),
            _ => read_key("--secret", reference, env),
        };
        let public_key = |reference: &String| read_key("--public-key", reference, env);
        Ok(Self {
            secrets: args.secrets.iter().map(secret).collect::<Result<_, _>>()?,
            public_keys: args
                .public_keys
                .iter()
                .map(public_key)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Decoded as the scheme wants them; ids count from 1, in the order of the command line.
    fn keys(&self, scheme: &Scheme, name: &str) -> anyhow::Result<Keys> {
        let kind = scheme.key_kind();
        let takes_secrets = kind == KeyKind::Secret || scheme.takes_secrets_too();
        let takes_public = kind == KeyKind::Public;
        let is_given = (!self.secrets.is_empty(), !self.public_keys.is_empty());
        if is_given != (takes_secrets, takes_public) {
            bail!(match (takes_secrets, takes_public) {
                (false, false) => format!("`{name}` takes no keys"),
                (true, false) => format!("`{name}` is verified with `--secret`"),
                (false, true) => format!("`{name}` is verified with `--public-key`"),
                (true, true) => format!("`{name}` is verified with `--public-key` and `--secret`"),
            });
        }
        let mut keys = Vec::new();
        let mut unusable = Vec::new();
        for (index, written) in self.secrets.iter().enumerate() {
            let decoded = if written.is_empty() {
                Err("the secret is empty".to_owned())
            } else {
                scheme.secret_key(id(index), written.expose(), None)
            };
            match decoded {
                Ok(key) => keys.push(key),
                Err(why) => unusable.push(format!("`--secret` number {}: {why}", index + 1)),
            }
        }
        for (index, written) in self.public_keys.iter().enumerate() {
            let decoded = scheme.public_keys(&id(index), written.expose(), None);
            keys.extend(decoded.map_err(|why| anyhow!("--public-key {}: {why}", index + 1))?);
        }
        if keys.is_empty() {
            // The scheme needs no key, or was given none that it can read. A random one matches nothing.
            keys.push(Key::secret("none".into(), unknown_secret()?, None));
        }
        let keys = KeySet::new(keys).ok_or_else(|| anyhow!("`{name}` has no key"))?;
        Ok(Keys { keys, unusable })
    }
}

/// What came of the keys as written.
struct Keys {
    keys: KeySet,
    /// What is wrong with secrets that are not of the scheme's form. No request is signed by them, so
    /// a request is judged without them: a wrong secret is an answer, not a wrong question.
    unusable: Vec<String>,
}

fn id(index: usize) -> Arc<str> {
    (index + 1).to_string().into()
}

/// A secret that nobody has signed with.
fn unknown_secret() -> anyhow::Result<Secret> {
    let mut bytes = vec![0; 32];
    getrandom::fill(&mut bytes).context("the system has no randomness")?;
    Ok(Secret::new(bytes))
}

/// The preset's other schemes, as far as the same keys fit them.
fn siblings(
    catalog: &Catalog,
    selected: &Selected,
    params: &Params,
    written: &Written,
) -> Vec<Sibling> {
    let Some(provider) = selected.preset.spec.provider.get() else {
        return Vec::new();
    };
    let ids = selected.preset.schemes().map(|(id, _)| id);
    let others = ids.filter(|id| *id != selected.scheme_id());
    let bound = others.filter_map(|id| {
        let name = format!("{provider}/{id}");
        let scheme = catalog.find(&name).ok()?.bind(params, None).ok()?;
        let Keys { keys, .. } = written.keys(&scheme, &name).ok()?;
        Some(Sibling { name, scheme, keys })
    });
    bound.collect()
}
