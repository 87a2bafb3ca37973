//! What `{SOURCE|FILTER}` can do to a value: digests, encodings, escapes.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

use crate::scheme::primitive::{Digest, Hash, Mac};

#[derive(Clone, Copy, Debug)]
pub(super) enum Filter {
    Base64,
    Base64url,
    Crc32,
    Digest(Digest),
    EncodeUri,
    EncodeUriComponent,
    FormEncode,
    Hex,
    HexUpper,
    Hmac(Hash),
    JsonString,
    Lower,
    PercentDecode,
    Trim,
    Upper,
    UrlEncode,
}

impl Filter {
    pub(super) fn parse(word: &str) -> Result<Self, String> {
        Ok(match word {
            "base64" => Self::Base64,
            "base64url" => Self::Base64url,
            "crc32" => Self::Crc32,
            "encode_uri" => Self::EncodeUri,
            "encode_uri_component" => Self::EncodeUriComponent,
            "form_encode" => Self::FormEncode,
            "hex" => Self::Hex,
            "hex_upper" => Self::HexUpper,
            "hmac_sha1" => Self::Hmac(Hash::Sha1),
            "hmac_sha256" => Self::Hmac(Hash::Sha256),
            "hmac_sha512" => Self::Hmac(Hash::Sha512),
            "json_string" => Self::JsonString,
            "lower" => Self::Lower,
            "percent_decode" => Self::PercentDecode,
            "trim" => Self::Trim,
            "upper" => Self::Upper,
            "url_encode" => Self::UrlEncode,
            _ => match Digest::named(word) {
                Some(digest) => Self::Digest(digest),
                None => return Err(format!("there is no filter `{word}`")),
            },
        })
    }

    pub(super) fn apply_all(filters: &[Self], bytes: Vec<u8>, secret: Option<&[u8]>) -> Vec<u8> {
        filters
            .iter()
            .fold(bytes, |bytes, filter| filter.apply(&bytes, secret))
    }

    fn apply(self, bytes: &[u8], secret: Option<&[u8]>) -> Vec<u8> {
        match self {
            Self::Base64 => BASE64.encode(bytes).into_bytes(),
            Self::Base64url => BASE64URL_NOPAD.encode(bytes).into_bytes(),
            Self::Crc32 => crc32(bytes).to_string().into_bytes(),
            Self::Digest(digest) => digest.of([bytes]),
            Self::EncodeUri => percent_encode(bytes, URI).to_string().into_bytes(),
            Self::EncodeUriComponent => percent_encode(bytes, URI_COMPONENT)
                .to_string()
                .into_bytes(),
            Self::FormEncode => form_encode(bytes).into_bytes(),
            Self::Hex => HEXLOWER.encode(bytes).into_bytes(),
            Self::HexUpper => HEXUPPER.encode(bytes).into_bytes(),
            Self::Hmac(hash) => {
                let mut mac = Mac::new(hash, secret.unwrap_or_default());
                mac.update(bytes);
                mac.finish().into_vec()
            }
            Self::JsonString => {
                let text = String::from_utf8_lossy(bytes);
                serde_json::Value::from(text.as_ref())
                    .to_string()
                    .into_bytes()
            }
            Self::Lower => bytes.to_ascii_lowercase(),
            Self::PercentDecode => percent_decode(bytes).collect(),
            Self::Trim => bytes.trim_ascii().to_vec(),
            Self::Upper => bytes.to_ascii_uppercase(),
            Self::UrlEncode => url_encode(bytes).into_bytes(),
        }
    }
}

/// CRC-32 as zip and `PayPal` compute it (polynomial 0xEDB88320, reflected).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// RFC 3986 2.3: everything but unreserved characters is escaped.
const RFC3986: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// `application/x-www-form-urlencoded` (WHATWG URL 5.2), a blank handled apart.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'*')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_');

/// `encodeURIComponent` of ECMAScript: RFC 2396 counted further marks as unreserved.
const URI_COMPONENT: &AsciiSet = &RFC3986
    .remove(b'!')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*');

/// `encodeURI` of ECMAScript: what parts of a URL are made of, and what separates them, is left.
const URI: &AsciiSet = &URI_COMPONENT
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'?')
    .remove(b'@');

/// RFC 3986 escapes.
pub(in crate::scheme) fn url_encode(bytes: &[u8]) -> String {
    percent_encode(bytes, RFC3986).to_string()
}

/// Form escapes, `+` for a blank.
pub(in crate::scheme) fn form_encode(bytes: &[u8]) -> String {
    percent_encode(bytes, FORM).to_string().replace("%20", "+")
}
