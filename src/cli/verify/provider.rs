//! By a preset and the secrets of the command line.

use anyhow::bail;

use super::Question;
use super::verdict::Verdict;
use crate::cli::sign::{ProviderArgs, bind, catalog, unknown};
use crate::config::{self, Environment};
use crate::scheme::catalog::{Catalog, Selected};
use crate::scheme::hints::{self, Case, Sibling};
use crate::scheme::keys::{Key, KeySet};
use crate::scheme::trace::Trace;
use crate::scheme::{KeyKind, Message, Params, Scheme};
use crate::secret::Secret;

pub(super) fn judge(
    name: &str,
    args: &ProviderArgs,
    public_keys: &[String],
    question: &Question<'_>,
    env: &Environment,
) -> anyhow::Result<Verdict> {
    let catalog = catalog(args)?;
    let selected = catalog.find(name).map_err(unknown)?;
    let params = args.params();
    let scheme = bind(&selected, &params)?;
    let written = Written {
        secrets: args.secrets(env)?,
        public_keys: read_all(public_keys, env)?,
    };
    let keys = written.keys(&scheme, name)?;
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
        steps: trace.into_steps(),
        ..Verdict::default()
    };
    match judged {
        Ok(evidence) => {
            verdict.key_id = evidence.key_id.map(|id| id.to_string());
            verdict.event_id = evidence.event_id;
        }
        Err(error) => {
            verdict.refusal = Some(error.reason);
            let siblings = siblings(&catalog, &selected, &params, &written);
            verdict.hints = hints::search(&Case {
                scheme: &scheme,
                message,
                keys: keys.all(),
                written: &written.secrets,
                others: &[],
                siblings: &siblings,
                now: question.now,
            });
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
    /// Decoded as the scheme wants them; ids count from 1, in the order of the command line.
    fn keys(&self, scheme: &Scheme, name: &str) -> anyhow::Result<KeySet> {
        let (kind, given, unwanted) = match scheme.key_kind() {
            KeyKind::Secret => ("--secret", &self.secrets, &self.public_keys),
            KeyKind::Public => ("--public-key", &self.public_keys, &self.secrets),
            KeyKind::None => {
                return no_keys();
            }
        };
        if given.is_empty() || !unwanted.is_empty() {
            bail!("`{name}` is verified with `{kind}`");
        }
        let mut keys = Vec::new();
        for (index, written) in given.iter().enumerate() {
            let id = (index + 1).to_string();
            match self.decode(scheme, &id, written) {
                Ok(decoded) => keys.extend(decoded),
                Err(message) => bail!("{kind} {id}: {message}"),
            }
        }
        KeySet::new(keys).ok_or_else(|| anyhow::anyhow!("`{kind}` holds no key"))
    }

    #[expect(clippy::unused_self, reason = "reads as a sentence")]
    fn decode(&self, scheme: &Scheme, id: &str, written: &Secret) -> Result<Vec<Key>, String> {
        match scheme.key_kind() {
            KeyKind::Public => Err("public keys are not available in this build".to_owned()),
            KeyKind::Secret | KeyKind::None => scheme
                .secret_key(id.into(), written.expose(), None)
                .map(|key| vec![key]),
        }
    }
}

/// A set for schemes without keys: they never look at it.
fn no_keys() -> anyhow::Result<KeySet> {
    let unused = Key::secret("none".into(), Secret::new(Vec::new()), None);
    KeySet::new(vec![unused]).ok_or_else(|| anyhow::anyhow!("a set of one key is not empty"))
}

fn read_all(references: &[String], env: &Environment) -> anyhow::Result<Vec<Secret>> {
    let read = |reference: &String| {
        config::secret(reference, env, crate::cli::config_file::working_folder())
            .map_err(|message| anyhow::anyhow!("--public-key: {message}"))
    };
    references.iter().map(read).collect()
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
        let keys = written.keys(&scheme, &name).ok()?;
        Some(Sibling { name, scheme, keys })
    });
    bound.collect()
}
