//! Where a provider publishes its keys, and which places a request may name.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Uri};

use super::locate::Pointer;
use super::{SignatureError, malformed};

/// Where keys come from, beside the configuration.
#[derive(Clone, Debug)]
pub struct KeySource {
    /// A fixed URL.
    pub url: Option<String>,
    /// The header field that names the URL of a certificate.
    pub header: Option<HeaderName>,
    /// Hosts that such a URL may name; `*` stands for one label.
    pub hosts: Vec<String>,
    /// Names of which a fetched certificate must be valid for one.
    pub certificate_names: Vec<String>,
    /// Where the PEM stands, in an answer that is JSON.
    pub(super) json: Option<Pointer>,
}

impl KeySource {
    /// The URL to fetch keys for a request from, where one is named. A URL that is not https, or not
    /// on a host of the provider, refuses the request (SECURITY ).
    pub fn url_for(&self, headers: &HeaderMap) -> Result<Option<Arc<str>>, SignatureError> {
        let Some(name) = &self.header else {
            return Ok(self.url.as_deref().map(Into::into));
        };
        let mut fields = headers.get_all(name).iter();
        let Some(field) = fields.next() else {
            return Ok(None);
        };
        if fields.next().is_some() {
            return Err(malformed("the URL of the certificate stands twice"));
        }
        let foreign = malformed("the URL of the certificate is not one of the provider's");
        let text = field.to_str().map_err(|_bad| foreign)?;
        if is_of_hosts(text, &self.hosts) {
            Ok(Some(text.into()))
        } else {
            Err(foreign)
        }
    }

    /// The PEM in an answer.
    pub fn pem<'a>(&self, answer: &'a [u8]) -> Option<std::borrow::Cow<'a, [u8]>> {
        match &self.json {
            None => Some(answer.into()),
            Some(pointer) => pointer
                .read(answer)
                .ok()
                .flatten()
                .map(|text| text.into_bytes().into()),
        }
    }
}

/// Whether `url` is https on one of `hosts`, without userinfo, port, query or fragment.
pub(super) fn is_of_hosts(url: &str, hosts: &[String]) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let Some(authority) = uri.authority() else {
        return false;
    };
    let plain = authority.as_str() == authority.host() && !url.contains(['#', '?', '@', '\\']);
    uri.scheme_str() == Some("https")
        && plain
        && hosts
            .iter()
            .any(|pattern| matches(pattern, authority.host()))
}

/// `*` stands for one label, wherever it stands; `*.` at the start for one or more.
fn matches(pattern: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    if let Some(suffix) = pattern.strip_prefix('*') {
        return host
            .strip_suffix(suffix)
            .is_some_and(|rest| !rest.is_empty());
    }
    let (mut wanted, mut own) = (pattern.split('.'), host.split('.'));
    loop {
        match (wanted.next(), own.next()) {
            (None, None) => return true,
            (Some("*"), Some(label)) if !label.is_empty() => {}
            (Some(wanted), Some(label)) if wanted == label => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_provider_s_hosts_count() {
        // SECURITY
        let hosts = ["*.paypal.com".to_owned(), "sns.*.amazonaws.com".to_owned()];
        for good in [
            "https://api.paypal.com/v1/cert",
            "https://api.sandbox.paypal.com/c",
            "https://sns.eu-west-1.amazonaws.com/x.pem",
        ] {
            assert!(is_of_hosts(good, &hosts), "{good}");
        }
        for bad in [
            "http://api.paypal.com/c",
            "https://paypal.com/c",
            "https://api.paypal.com.evil.example/c",
            "https://evil.example/api.paypal.com",
            "https://api.paypal.com:8443/c",
            "https://u@api.paypal.com/c",
            "https://api.paypal.com/c?x",
            "https://evilpaypal.com/c",
            "https://sns.a.b.amazonaws.com/x.pem",
            "https://bucket.s3.amazonaws.com/x.pem",
            "api.paypal.com/c",
            "",
        ] {
            assert!(!is_of_hosts(bad, &hosts), "{bad}");
        }
    }
}
