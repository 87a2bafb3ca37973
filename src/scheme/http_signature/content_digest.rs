//! `Content-Digest` (RFC 9530): the body as the head of its request has it.

use http::{HeaderMap, HeaderName};

use crate::reason::Reason;
use crate::scheme::primitive::Digest;
use crate::scheme::protocol::malformed;
use crate::scheme::structured::{Dictionary, Member};
use crate::scheme::{Content, SignatureError};

/// The field.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Digests of a body, by the algorithms that count (RFC 9530 section 5).
#[derive(Debug, Default)]
pub(super) struct Digests {
    sha256: Option<Vec<u8>>,
    sha512: Option<Vec<u8>>,
}

impl Digests {
    /// Those that the head of a request names.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, SignatureError> {
        let fields = Dictionary::of_field(headers, &CONTENT_DIGEST).map_err(malformed)?;
        Self::read(&fields.ok_or(malformed("there is no `Content-Digest`"))?)
    }

    /// Other algorithms are insecure or unknown and decide nothing; one that counts must be there.
    fn read(fields: &Dictionary) -> Result<Self, SignatureError> {
        let digest = |name| match fields.get(name) {
            None => Ok(None),
            Some(Member::Item(item)) if item.as_bytes().is_some() => {
                Ok(item.as_bytes().map(<[u8]>::to_vec))
            }
            Some(_) => Err(malformed("a digest is not a byte sequence")),
        };
        let digests = Self {
            sha256: digest("sha-256")?,
            sha512: digest("sha-512")?,
        };
        if digests.sha256.is_none() && digests.sha512.is_none() {
            return Err(malformed(
                "`Content-Digest` has neither sha-256 nor sha-512",
            ));
        }
        Ok(digests)
    }

    /// How many there are, when all of them are of this body.
    pub(super) fn check(&self, body: &Content) -> Result<usize, SignatureError> {
        let frames = || body.frames().iter().map(|frame| &**frame);
        let mut matching = 0;
        if let Some(expected) = &self.sha256 {
            matching += Self::same(expected, &Digest::Sha256.of(frames()))?;
        }
        if let Some(expected) = &self.sha512 {
            matching += Self::same(expected, &Digest::Sha512.of(frames()))?;
        }
        Ok(matching)
    }

    fn same(expected: &[u8], found: &[u8]) -> Result<usize, SignatureError> {
        if expected == found {
            Ok(1)
        } else {
            let detail = "`Content-Digest` is not of this body";
            Err(SignatureError::new(Reason::SignatureMismatch, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_rfc_9530() {
        // RFC 9530 appendix D: the JSON that its examples send, and its identity encoding.
        let body = Content::from(b"{\"hello\": \"world\"}\n".to_vec());
        let check = |field: &str| {
            let fields = Dictionary::parse(field.as_bytes()).map_err(malformed)?;
            Digests::read(&fields)?.check(&body)
        };
        let sha256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        let sha512 = "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCs\
                      yRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:";
        assert_eq!(check(sha256), Ok(1));
        assert_eq!(check(&format!("{sha256}, {sha512}")), Ok(2));
        assert_eq!(check(&format!("md5=:AAAA:, crc=1, {sha512}")), Ok(1));
        let other = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        for (field, expected) in [
            (other.to_owned(), Reason::SignatureMismatch),
            (format!("{sha512}, {other}"), Reason::SignatureMismatch),
            (format!("{sha256}, {sha256}"), Reason::SignatureMalformed),
            ("md5=:AAAA:".to_owned(), Reason::SignatureMalformed),
            ("sha-256=abc".to_owned(), Reason::SignatureMalformed),
            (
                "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:;x".to_owned(),
                Reason::SignatureMalformed,
            ),
            (
                "sha-256=:RK/0qy18MlBSVnWg:".to_owned(),
                Reason::SignatureMismatch,
            ),
            (String::new(), Reason::SignatureMalformed),
        ] {
            assert_eq!(
                check(&field).map_err(|error| error.reason),
                Err(expected),
                "{field}"
            );
        }
    }
}
