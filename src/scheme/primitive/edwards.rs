//! Points of edwards25519 that no honest signer has (SECURITY A-37).
//!
//! The library checks that `s` is below the group's order and that `R` is the point which the
//! equation gives. It takes keys of small order, under which one signature is of every content, and
//! keys in a second spelling; these are refused here.

/// Whether a key or the first half of a signature is a point in its only spelling and of large
/// order.
pub(super) fn is_honest(point: &[u8; 32]) -> bool {
    is_canonical(point) && !is_small_order(point)
}

/// Whether a signature's `R` is such a point.
pub(super) fn starts_honest(signature: &[u8]) -> bool {
    signature.first_chunk::<32>().is_some_and(is_honest)
}

/// p - 1 of edwards25519, little-endian; also the `y` of the point of order 2.
const P_MINUS_1: [u8; 32] = {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xec;
    bytes[31] = 0x7f;
    bytes
};

/// Whether `y` is below the field's prime: its only spelling.
fn is_canonical(point: &[u8; 32]) -> bool {
    y_of(point).iter().rev().le(P_MINUS_1.iter().rev())
}

/// Whether eight times the point is the neutral element: `y` is 0, 1, -1 or that of order 8.
fn is_small_order(point: &[u8; 32]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let y = y_of(point);
    let is_0_or_1 = matches!(y, [0 | 1, rest @ ..] if rest.iter().all(|byte| *byte == 0));
    is_0_or_1 || y == P_MINUS_1 || ORDER_8.contains(&y)
}

/// The point without the sign of `x`.
fn y_of(point: &[u8; 32]) -> [u8; 32] {
    let mut y = *point;
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    y
}
