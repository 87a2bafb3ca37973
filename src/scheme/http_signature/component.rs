//! What a signature may cover: fields of the request and what is derived from it (RFC 9421
//! section 2).

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;

use http::{HeaderMap, HeaderName};

use crate::scheme::protocol::malformed;
use crate::scheme::structured::{Bare, Item};
use crate::scheme::{Message, SenderUrl, SignatureError, locate};

/// One thing that a signature may cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Component {
    Authority,
    Field(HeaderName),
    Method,
    Path,
    Query,
    /// By the name as it is written in the identifier: percent-encoded.
    QueryParam(String),
    RequestTarget,
    Scheme,
    TargetUri,
}

impl Component {
    /// As the operator writes it: `@method`, `content-digest`, `@query-param;name="id"`.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let quoted = match text.split_once(';') {
            _ if text.starts_with('"') => text.to_owned(),
            Some((name, parameters)) => format!("\"{name}\";{parameters}"),
            None => format!("\"{text}\""),
        };
        Self::from_item(&Item::parse(quoted.as_bytes())?)
    }

    pub(super) fn from_item(item: &Item) -> Result<Self, &'static str> {
        let Bare::Text(name) = &item.value else {
            return Err("a component is named by a string");
        };
        if name == "@query-param" {
            return match item.parameters.as_slice() {
                [(key, Bare::Text(name))] if key == "name" => Ok(Self::QueryParam(name.clone())),
                _ => Err("`@query-param` has one parameter, `name`"),
            };
        }
        if !item.parameters.is_empty() {
            // `sf`, `key`, `bs`, `tr` and `req`: none is needed where fields reach us as they were
            // sent, and each is one more way to say the same.
            return Err("parameters of components are not supported");
        }
        Ok(match name.as_str() {
            "@authority" => Self::Authority,
            "@method" => Self::Method,
            "@path" => Self::Path,
            "@query" => Self::Query,
            "@request-target" => Self::RequestTarget,
            "@scheme" => Self::Scheme,
            "@target-uri" => Self::TargetUri,
            name => {
                let field = HeaderName::from_bytes(name.as_bytes());
                let field = field.or(Err("a component is not known"))?;
                if field.as_str() != name {
                    return Err("names of fields are written in lower case");
                }
                Self::Field(field)
            }
        })
    }

    /// Whether who signs this signs `required` with it.
    pub(super) fn covers(&self, required: &Self) -> bool {
        self == required
            || match self {
                Self::TargetUri => matches!(
                    required,
                    Self::Authority
                        | Self::Path
                        | Self::Query
                        | Self::QueryParam(_)
                        | Self::RequestTarget
                        | Self::Scheme
                ),
                Self::RequestTarget => {
                    matches!(required, Self::Path | Self::Query | Self::QueryParam(_))
                }
                Self::Query => matches!(required, Self::QueryParam(_)),
                _ => false,
            }
    }

    /// Whether it is made of the URL, its query aside.
    pub(super) fn is_of_url(&self) -> bool {
        match self {
            Self::Authority | Self::Path | Self::RequestTarget | Self::Scheme | Self::TargetUri => {
                true
            }
            Self::Field(name) => name == http::header::HOST,
            Self::Method | Self::Query | Self::QueryParam(_) => false,
        }
    }

    pub(super) fn value<'m>(
        &self,
        message: &Message<'m>,
        params: &QueryParams<'m>,
    ) -> Result<String, SignatureError> {
        let url = message.url;
        let (path, query) = match url.target.split_once('?') {
            Some((path, query)) => (path, query),
            None => (&*url.target, ""),
        };
        Ok(match self {
            Self::Authority => authority(url).1,
            Self::Field(_) => self.value_of_field(message.headers)?,
            Self::Method => message.method.as_str().to_owned(),
            Self::Path => path.to_owned(),
            Self::Query => format!("?{query}"),
            Self::QueryParam(name) => params.only(query, name)?,
            Self::RequestTarget => url.target.to_string(),
            Self::Scheme => authority(url).0,
            Self::TargetUri => {
                let (scheme, authority) = authority(url);
                format!("{scheme}://{authority}{}", url.target)
            }
        })
    }

    /// The lines of a field as one value (RFC 9421 section 2.1).
    pub(super) fn value_of_field(&self, headers: &HeaderMap) -> Result<String, SignatureError> {
        let Self::Field(name) = self else {
            return Ok(String::new());
        };
        let mut lines = Vec::new();
        for line in headers.get_all(name) {
            let line = line.to_str();
            let line = line.or(Err(malformed("a covered field is not ASCII")))?;
            lines.push(line.trim_matches([' ', '\t']));
        }
        if lines.is_empty() {
            return Err(malformed("a covered field is not in the request"));
        }
        Ok(lines.join(", "))
    }
}

/// The identifier as it stands in the signature base.
impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.item().fmt(f)
    }
}

impl Component {
    /// The identifier as it stands in `Signature-Input`.
    pub(super) fn item(&self) -> Item {
        let name = match self {
            Self::Authority => "@authority",
            Self::Field(name) => name.as_str(),
            Self::Method => "@method",
            Self::Path => "@path",
            Self::Query => "@query",
            Self::QueryParam(_) => "@query-param",
            Self::RequestTarget => "@request-target",
            Self::Scheme => "@scheme",
            Self::TargetUri => "@target-uri",
        };
        let parameters = match self {
            Self::QueryParam(name) => vec![("name".to_owned(), Bare::Text(name.clone()))],
            _ => Vec::new(),
        };
        Item {
            value: Bare::Text(name.to_owned()),
            parameters,
        }
    }
}

/// Scheme and authority in their normal form (RFC 9110 section 4.2.3): lower case, without a
/// default port.
pub(super) fn authority(url: &SenderUrl) -> (String, String) {
    let origin = url.origin.to_ascii_lowercase();
    let (scheme, authority) = origin.split_once("://").unwrap_or(("", &origin));
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    (scheme.to_owned(), authority.to_owned())
}

/// The fields of a query by their name as a signature writes it: read when the first of them is asked for, and
/// once, for a request may cover many and have many (SECURITY DS-33).
#[derive(Debug, Default)]
pub(super) struct QueryParams<'q>(OnceCell<HashMap<String, Vec<&'q str>>>);

impl<'q> QueryParams<'q> {
    /// The only value of a field, decoded and encoded anew (RFC 9421 section 2.2.8).
    fn only(&self, query: &'q str, name: &str) -> Result<String, SignatureError> {
        let encoded = |text| encode(&locate::decode(text));
        if self.0.get().is_none() {
            let fields = locate::fields(query).map_err(|_many| malformed(locate::TOO_MANY))?;
            let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
            for (name, value) in fields {
                by_name.entry(encoded(name)).or_default().push(value);
            }
            // It was empty a moment ago.
            drop(self.0.set(by_name));
        }
        match self
            .0
            .get()
            .and_then(|by_name| by_name.get(name))
            .map(Vec::as_slice)
        {
            Some([value]) => Ok(encoded(value)),
            Some(_) => Err(malformed("a covered query field stands twice")),
            None => Err(malformed("a covered query field is not in the request")),
        }
    }
}

/// Percent-encoding with the set of `application/x-www-form-urlencoded`.
fn encode(bytes: &[u8]) -> String {
    const SET: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'*')
        .remove(b'-')
        .remove(b'.')
        .remove(b'_');
    percent_encoding::percent_encode(bytes, SET).to_string()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::scheme::protocol::tests::Case;
    use crate::scheme::sign::Draft;

    fn url(origin: &str, target: &str) -> SenderUrl {
        SenderUrl {
            origin: origin.into(),
            target: target.into(),
        }
    }

    fn case(url: &SenderUrl, headers: &[(&str, &str)]) -> Case {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Case::of(&Draft {
            method: Method::POST,
            url: url.clone(),
            headers: headers.collect(),
            body: Vec::new(),
        })
    }

    #[test]
    fn derived_components() {
        // RFC 9421 section 2.2, with the examples given there.
        let value = |component: &str, url: &SenderUrl| {
            let case = case(url, &[]);
            let component = Component::parse(component).unwrap();
            component.value(&case.message(), &QueryParams::default())
        };
        let example = url(
            "https://WWW.Example.com:443",
            "/path?param=value&foo=bar&baz=bat%2Dman",
        );
        for (component, expected) in [
            ("@method", "POST"),
            (
                "@target-uri",
                "https://www.example.com/path?param=value&foo=bar&baz=bat%2Dman",
            ),
            ("@authority", "www.example.com"),
            ("@scheme", "https"),
            ("@request-target", "/path?param=value&foo=bar&baz=bat%2Dman"),
            ("@path", "/path"),
            ("@query", "?param=value&foo=bar&baz=bat%2Dman"),
            (r#"@query-param;name="baz""#, "bat-man"),
        ] {
            assert_eq!(
                value(component, &example).as_deref(),
                Ok(expected),
                "{component}"
            );
        }
        let parameters = url(
            "http://www.example.com:80",
            "/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace\
             &fa%C3%A7ade%22%3A%20=something&twice=1&twice=2",
        );
        for (component, expected) in [
            (
                r#"@query-param;name="var""#,
                "this%20is%20a%20big%0Amultiline%20value",
            ),
            (r#"@query-param;name="bar""#, "with%20plus%20whitespace"),
            (r#"@query-param;name="fa%C3%A7ade%22%3A%20""#, "something"),
            ("@authority", "www.example.com"),
        ] {
            assert_eq!(
                value(component, &parameters).as_deref(),
                Ok(expected),
                "{component}"
            );
        }
        for component in [
            r#"@query-param;name="twice""#,
            r#"@query-param;name="absent""#,
        ] {
            assert!(value(component, &parameters).is_err(), "{component}");
        }
        let bare = url("https://example.com:8443", "/path");
        assert_eq!(value("@query", &bare).as_deref(), Ok("?"));
        assert_eq!(
            value("@authority", &bare).as_deref(),
            Ok("example.com:8443")
        );
        let empty = url("https://example.com", "/path?queryString=");
        assert_eq!(
            value(r#"@query-param;name="queryString""#, &empty).as_deref(),
            Ok("")
        );
    }

    #[test]
    fn lines_of_a_field_are_one_value() {
        // RFC 9421 section 2.1.
        let fields = [
            ("X-OWS-Header", "   Leading and trailing whitespace.   "),
            ("Cache-Control", "max-age=60"),
            ("Cache-Control", "   must-revalidate"),
            ("X-Empty-Header", ""),
        ];
        let case = case(&url("https://example.com", "/"), &fields);
        let value = |name| {
            let component = Component::parse(name).unwrap();
            component.value(&case.message(), &QueryParams::default())
        };
        for (name, expected) in [
            ("x-ows-header", "Leading and trailing whitespace."),
            ("cache-control", "max-age=60, must-revalidate"),
            ("x-empty-header", ""),
        ] {
            assert_eq!(value(name).as_deref(), Ok(expected));
        }
        assert!(value("x-absent").is_err());
    }

    #[test]
    fn covering_more_covers_less() {
        let covers = |covered: &str, required: &str| {
            Component::parse(covered)
                .unwrap()
                .covers(&Component::parse(required).unwrap())
        };
        for required in [
            "@authority",
            "@path",
            "@query",
            "@request-target",
            "@scheme",
        ] {
            assert!(covers("@target-uri", required), "{required}");
        }
        assert!(covers("@request-target", "@path"));
        assert!(covers("@query", "@query-param;name=\"a\""));
        for (covered, required) in [
            ("@request-target", "@authority"),
            ("@path", "@query"),
            ("@query-param;name=\"a\"", "@query-param;name=\"b\""),
            ("@target-uri", "@method"),
            ("host", "@authority"),
        ] {
            assert!(!covers(covered, required), "{covered} {required}");
        }
    }
}
