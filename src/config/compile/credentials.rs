//! Secrets of a scheme that are something else: another credential, or the secret of another scheme.

use super::Compiler;
use super::keys::WrittenList;
use super::signature::Ready;
use crate::document::Place;
use crate::scheme::KeyKind;

/// How credentials begin that sign no webhooks, and what they are.
const CREDENTIALS: &[(&str, &str)] = &[
    ("AIza", "an API key of Google"),
    ("AKIA", "the id of an access key of AWS"),
    ("SG.", "an API key of SendGrid"),
    ("ghp_", "an access token of GitHub"),
    ("gho_", "an access token of GitHub"),
    ("ghs_", "an access token of GitHub"),
    ("ghu_", "an access token of GitHub"),
    ("github_pat_", "an access token of GitHub"),
    ("glpat-", "an access token of GitLab"),
    ("pk_live_", "a publishable API key"),
    ("pk_test_", "a publishable API key"),
    ("rk_live_", "a restricted API key"),
    ("rk_test_", "a restricted API key"),
    ("shpat_", "an access token of Shopify"),
    ("shpca_", "an access token of Shopify"),
    ("shppa_", "an access token of Shopify"),
    ("sk_live_", "a secret API key"),
    ("sk_test_", "a secret API key"),
    ("whpk_", "a public key"),
    ("whsk_", "a private key"),
    ("xapp-", "a token of a Slack app"),
    ("xoxa-", "a token of a Slack app"),
    ("xoxb-", "a token of a Slack app"),
    ("xoxp-", "a token of a Slack user"),
];
/// Letters of a prefix, without what tells one of its kinds from another.
const PREFIX_ENDS: &[char] = &['_', '-', '.'];

impl Compiler<'_, '_> {
    /// Warns of secrets that are another credential of the provider's: no signature is made with one. Some providers do
    /// sign with an API key; their presets say so.
    pub(super) fn credentials(&mut self, ready: &Ready, list: &WrittenList) {
        if !ready.scheme.is_signed() {
            return;
        }
        for key in &list.keys {
            let Some((prefix, what)) = credential(key.bytes.expose()) else {
                continue;
            };
            let family = prefix.split_inclusive(PREFIX_ENDS).next().unwrap_or(prefix);
            let is_meant = |preset: &str| preset.contains(family);
            if ready.about_secret().is_some_and(is_meant) {
                continue;
            }
            let message = format!(
                "this looks like {what} (`{prefix}…`), and not like the secret that webhooks are signed with"
            );
            let hint = match &ready.provider {
                Some(name) => format!("`hookward providers show {name}` says where that is found"),
                None => "look for the signing secret of the webhook".to_owned(),
            };
            self.warn(&key.place, message, hint.as_str());
        }
    }

    /// Reports a secret that is not of the scheme's form, and names the scheme of the preset that takes it as a token.
    pub(super) fn undecodable(
        &mut self,
        ready: &Ready,
        secret: &[u8],
        place: &Place,
        message: String,
    ) {
        let hint = self.scheme_that_takes(ready, secret);
        let hint = hint.map(|name| format!("`provider: {name}` takes a secret of this form"));
        self.error(place, message, hint.as_deref());
    }

    fn scheme_that_takes(&self, ready: &Ready, secret: &[u8]) -> Option<String> {
        let provider = ready.provider.as_deref()?;
        let preset = self.catalog.preset(provider).ok()?;
        let names = preset.schemes().map(|(id, _)| format!("{provider}/{id}"));
        let takes = |name: &String| {
            let selected = self.catalog.find(name).ok()?;
            let scheme = selected.bind(&ready.params, None).ok()?;
            let takes = scheme.key_kind() == KeyKind::Secret && scheme.challenge() == "Bearer";
            let key = scheme.secret_key("tried".into(), secret, None);
            (takes && key.is_ok()).then_some(())
        };
        names.into_iter().find(|name| takes(name).is_some())
    }
}

fn credential(secret: &[u8]) -> Option<(&'static str, &'static str)> {
    let text = std::str::from_utf8(secret).ok()?.trim();
    let is_account = |rest: &str| rest.len() == 32 && rest.bytes().all(|c| c.is_ascii_hexdigit());
    if text.strip_prefix("AC").is_some_and(is_account) {
        return Some(("AC", "the SID of a Twilio account"));
    }
    let known = CREDENTIALS.iter();
    let mut known = known.filter(|(prefix, _)| text.starts_with(prefix));
    known.next().copied()
}
