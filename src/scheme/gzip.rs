//! Bodies that are signed as they read decoded.

use super::{Content, SignatureError, malformed};

/// Most that a decoded body may grow over the encoded one.
const DECODED_RATIO_MAX: usize = 10;

/// Decodes gzip, bounded: a body that grows more than tenfold is refused (SECURITY DS-16). So is one of several
/// members: senders write one, and some readers stop behind it.
pub(super) fn gunzip(body: &Content) -> Result<Content, SignatureError> {
    use std::io::Read;
    let bytes = body.joined();
    let most = bytes.len().saturating_mul(DECODED_RATIO_MAX).max(64 * 1024);
    let mut decoded = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let mut rest = &*bytes;
    let decoder = flate2::bufread::GzDecoder::new(&mut rest);
    if decoder.take(limit + 1).read_to_end(&mut decoded).is_err() {
        return Err(malformed("the body is not the gzip that it says it is"));
    }
    if decoded.len() > most {
        return Err(malformed(
            "the body grows more than tenfold when it is decoded",
        ));
    }
    if !rest.is_empty() {
        return Err(malformed("something follows the gzip of the body"));
    }
    Ok(decoded.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn member(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn one_member_is_a_body_and_several_are_none() {
        // SECURITY DS-16, DS-30
        let read = |body: Vec<u8>| gunzip(&body.into()).map(|decoded| decoded.joined().to_vec());
        assert_eq!(read(member(b"hello")).unwrap(), b"hello");
        let two = [member(b"hel"), member(b"lo")].concat();
        assert!(read(two).is_err());
        assert!(read([member(b"hello"), b"x".to_vec()].concat()).is_err());
        assert_eq!(read(member(b"")).unwrap(), b"");
        assert!(read(member(b"").repeat(2)).is_err());
        assert!(read(member(&vec![0; 1 << 20])).is_err());
        assert!(read(b"no gzip".to_vec()).is_err());
    }
}
