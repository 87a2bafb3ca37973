//! Bodies that are signed as they read decoded.

use super::{Content, SignatureError, malformed};

/// Most that a decoded body may grow over the encoded one.
const DECODED_RATIO_MAX: usize = 10;

/// Decodes gzip, bounded: a body that grows more than tenfold is refused (SECURITY DS-16).
pub(super) fn gunzip(body: &Content) -> Result<Content, SignatureError> {
    use std::io::Read;
    let bytes = body.joined();
    let most = bytes.len().saturating_mul(DECODED_RATIO_MAX).max(64 * 1024);
    let mut decoded = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let mut decoder = flate2::read::MultiGzDecoder::new(&*bytes).take(limit + 1);
    match decoder.read_to_end(&mut decoded) {
        Ok(count) if count <= most => Ok(decoded.into()),
        Ok(_) => Err(malformed(
            "the body grows more than tenfold when it is decoded",
        )),
        Err(_) => Err(malformed("the body is not the gzip that it says it is")),
    }
}
