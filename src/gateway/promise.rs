//! Stage: what the head promises of the body: its size, its media type and its encoding.

use http::{HeaderMap, header};

use super::rejection::Rejection;
use super::well_formed::Syntax;
use crate::reason::Reason;
use crate::route::policy::BodyPolicy;

/// All of it. The media type is asked of deliveries only.
pub fn body(
    policy: &BodyPolicy,
    headers: &HeaderMap,
    could_be_handshake: bool,
) -> Result<(), Rejection> {
    declared_size(policy, headers)?;
    if could_be_handshake {
        Ok(())
    } else {
        content_type(policy, headers)
    }
}

/// `Content-Length` against `max_size`.
pub fn declared_size(policy: &BodyPolicy, headers: &HeaderMap) -> Result<(), Rejection> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    if declared
        .and_then(|text| text.parse().ok())
        .is_some_and(|n: u64| n > policy.size_max.0)
    {
        return Err(Rejection::new(
            Reason::BodyTooLarge,
            "Content-Length is above `max_size`",
        ));
    }
    Ok(())
}

/// `content_types`, and no encoding where the text itself is judged.
pub fn content_type(policy: &BodyPolicy, headers: &HeaderMap) -> Result<(), Rejection> {
    let media_type = media_type(headers);
    if let Some(accepted) = &policy.content_types {
        let known = media_type.is_some_and(|media_type| {
            accepted
                .iter()
                .any(|own| own.eq_ignore_ascii_case(media_type))
        });
        if !known {
            let detail = "the content type is not one of `content_types`";
            return Err(Rejection::new(Reason::ContentTypeUnsupported, detail));
        }
    }
    if policy.well_formed
        && headers
            .get_all(header::CONTENT_TYPE)
            .iter()
            .nth(1)
            .is_some()
    {
        let detail = "there is more than one Content-Type, and the body would be judged by none";
        return Err(Rejection::new(Reason::ContentTypeUnsupported, detail));
    }
    let judged = policy.well_formed && media_type.and_then(Syntax::of).is_some();
    if judged && headers.contains_key(header::CONTENT_ENCODING) {
        let detail = "an encoded body cannot be judged for well-formedness";
        return Err(Rejection::new(Reason::ContentEncodingUnsupported, detail));
    }
    Ok(())
}

/// The media type of a request as it is written, without parameters. Several fields count as none.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(header::CONTENT_TYPE).iter();
    let field = fields.next()?.to_str().ok()?;
    if fields.next().is_some() {
        return None;
    }
    let media_type = field.split(';').next().unwrap_or_default().trim();
    (!media_type.is_empty()).then_some(media_type)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::units::ByteSize;

    fn policy() -> BodyPolicy {
        BodyPolicy {
            size_max: ByteSize(10),
            content_types: Some(vec!["application/json".into()]),
            well_formed: true,
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn declared_sizes() {
        // SECURITY SM-14, DS-11
        assert!(declared_size(&policy(), &headers(&[("content-length", "10")])).is_ok());
        for length in ["11", "18446744073709551613"] {
            let refused =
                declared_size(&policy(), &headers(&[("content-length", length)])).unwrap_err();
            assert_eq!(refused.reason, Reason::BodyTooLarge);
        }
    }

    #[test]
    fn content_types() {
        let judge = |fields| content_type(&policy(), &headers(fields)).map_err(|r| r.reason);
        assert_eq!(
            judge(&[("content-type", "Application/JSON; charset=utf-8")]),
            Ok(())
        );
        let unsupported = Err(Reason::ContentTypeUnsupported);
        assert_eq!(judge(&[]), unsupported);
        assert_eq!(judge(&[("content-type", "text/json")]), unsupported);
        let twice = [
            ("content-type", "application/json"),
            ("content-type", "application/json"),
        ];
        assert_eq!(judge(&twice), unsupported);
        // Nor is one judged for its syntax that could be of two kinds.
        let any = BodyPolicy {
            content_types: None,
            ..policy()
        };
        let judged = content_type(&any, &headers(&twice)).map_err(|r| r.reason);
        assert_eq!(judged, unsupported);
        let encoded = [
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
        ];
        assert_eq!(judge(&encoded), Err(Reason::ContentEncodingUnsupported));
    }
}
