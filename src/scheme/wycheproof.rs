//! Published vectors of what goes wrong in cryptographic libraries (SECURITY ).

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::Deserialize;

use super::primitive::{Hash, Mac, same_tag};
use super::public_key::{PublicKey, SignatureAlgorithm};

#[derive(Deserialize)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    key: String,
    #[serde(default)]
    tag_bits: usize,
    tests: Vec<Vec<serde_json::Value>>,
}

macro_rules! vectors {
    ($name:literal) => {
        serde_json::from_str::<File>(include_str!(concat!(
            "../../tests/vectors/wycheproof/",
            $name,
            ".json"
        )))
        .unwrap()
    };
}

fn bytes(value: &serde_json::Value) -> Vec<u8> {
    BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// How many cases of each result held: result → (held, refused).
type Tally = BTreeMap<String, (usize, usize)>;

fn count(tally: &mut Tally, test: &[serde_json::Value], holds: bool) {
    let result = test[1].as_str().unwrap();
    assert!(!(holds && result == "invalid"), "accepted case {}", test[0]);
    let (held, refused) = tally.entry(result.to_owned()).or_default();
    *(if holds { held } else { refused }) += 1;
}

/// Runs each message whole and cut in three.
fn run(file: &File, algorithm: SignatureAlgorithm) -> Tally {
    let mut tally = Tally::new();
    for group in &file.groups {
        let key = BASE64.decode(group.key.as_bytes()).unwrap();
        let key = match PublicKey::parse_all(&key).as_deref() {
            Ok([key]) => key.clone(),
            Ok(_) => unreachable!("one key was written"),
            Err(why) => {
                assert!(why.contains("exponent"), "{why}");
                group
                    .tests
                    .iter()
                    .for_each(|test| count(&mut tally, test, false));
                continue;
            }
        };
        for test in &group.tests {
            let (message, signature) = (bytes(&test[2]), bytes(&test[3]));
            let holds = key.verify(algorithm, &[&message], &signature);
            let (start, rest) = message.split_at(message.len() / 3);
            let parts = [start, b"", rest];
            assert_eq!(key.verify(algorithm, &parts, &signature), holds);
            count(&mut tally, test, holds);
        }
    }
    tally
}

/// Results and how many held and were refused.
fn tally(rows: &[(&str, usize, usize)]) -> Tally {
    rows.iter()
        .map(|(result, held, refused)| ((*result).to_owned(), (*held, *refused)))
        .collect()
}

/// Tags of the whole length, and shortened ones.
fn run_hmac(file: &File, hash: Hash) -> (Tally, Tally) {
    let (mut whole, mut short) = (Tally::new(), Tally::new());
    for group in &file.groups {
        let is_whole = group.tag_bits == hash.tag_bytes() * 8;
        for test in &group.tests {
            let (message, tag, key) = (bytes(&test[2]), bytes(&test[3]), bytes(&test[4]));
            let mut mac = Mac::new(hash, &key);
            mac.update(&message);
            let holds = same_tag(&mac.finish(), &tag);
            count(if is_whole { &mut whole } else { &mut short }, test, holds);
        }
    }
    (whole, short)
}

#[test]
fn hmac_holds_for_whole_tags_only() {
    let whole = tally(&[("valid", 33, 0), ("invalid", 0, 54)]);
    let short = tally(&[("valid", 0, 33), ("invalid", 0, 54)]);
    let short_sha1 = tally(&[("valid", 0, 33), ("invalid", 0, 50)]);
    let file = vectors!("hmac_sha1");
    assert_eq!(run_hmac(&file, Hash::Sha1), (whole.clone(), short_sha1));
    for (file, hash) in [
        (vectors!("hmac_sha256"), Hash::Sha256),
        (vectors!("hmac_sha384"), Hash::Sha384),
        (vectors!("hmac_sha512"), Hash::Sha512),
    ] {
        let expected = (whole.clone(), short.clone());
        assert_eq!(run_hmac(&file, hash), expected, "{hash:?}");
    }
}

#[test]
fn ed25519() {
    let file = vectors!("ed25519");
    let expected = tally(&[("valid", 88, 0), ("invalid", 0, 63)]);
    assert_eq!(run(&file, SignatureAlgorithm::Ed25519), expected);
}

#[test]
fn ecdsa() {
    use SignatureAlgorithm as A;
    let cases = [
        (
            vectors!("ecdsa_secp256r1_sha256"),
            A::EcdsaP256Sha256,
            174,
            310,
        ),
        (
            vectors!("ecdsa_secp256r1_sha256_p1363"),
            A::EcdsaP256Sha256Raw,
            173,
            89,
        ),
        (
            vectors!("ecdsa_secp384r1_sha384"),
            A::EcdsaP384Sha384,
            194,
            310,
        ),
        (
            vectors!("ecdsa_secp384r1_sha384_p1363"),
            A::EcdsaP384Sha384Raw,
            193,
            87,
        ),
    ];
    for (file, algorithm, valid, invalid) in cases {
        let expected = tally(&[("valid", valid, 0), ("invalid", 0, invalid)]);
        assert_eq!(run(&file, algorithm), expected, "{algorithm:?}");
    }
}

/// The one `acceptable` case leaves out the digest's NULL parameters; the refused `valid` ones have
/// the public exponent 3.
#[test]
fn rsa_pkcs1() {
    use SignatureAlgorithm as A;
    let cases = [
        (vectors!("rsa_signature_2048_sha256"), A::RsaSha256, 2, 249),
        (vectors!("rsa_signature_2048_sha384"), A::RsaSha384, 0, 250),
        (vectors!("rsa_signature_2048_sha512"), A::RsaSha512, 1, 250),
        (vectors!("rsa_signature_3072_sha256"), A::RsaSha256, 1, 250),
    ];
    for (file, algorithm, exponent_3, invalid) in cases {
        let expected = tally(&[
            ("valid", 7, exponent_3),
            ("acceptable", 0, 1),
            ("invalid", 0, invalid),
        ]);
        assert_eq!(run(&file, algorithm), expected, "{algorithm:?}");
    }
}

#[test]
fn rsa_pss() {
    use SignatureAlgorithm as A;
    let cases = [
        (
            vectors!("rsa_pss_2048_sha256_mgf1_32"),
            A::RsaPssSha256,
            63,
            45,
        ),
        (
            vectors!("rsa_pss_2048_sha384_mgf1_48"),
            A::RsaPssSha384,
            95,
            46,
        ),
        (
            vectors!("rsa_pss_4096_sha512_mgf1_64"),
            A::RsaPssSha512,
            132,
            47,
        ),
    ];
    for (file, algorithm, valid, invalid) in cases {
        let expected = tally(&[("valid", valid, 0), ("invalid", 0, invalid)]);
        assert_eq!(run(&file, algorithm), expected, "{algorithm:?}");
    }
}

/// What is right under other parameters is wrong under the scheme's: another salt, another mask.
#[test]
fn rsa_pss_has_one_salt_and_one_mask() {
    for mut file in [
        vectors!("rsa_pss_2048_sha256_mgf1_0"),
        vectors!("rsa_pss_2048_sha256_mgf1sha1_20"),
    ] {
        for group in &mut file.groups {
            group.tests.retain(|test| test[1] == "valid");
        }
        let refused: usize = file.groups.iter().map(|group| group.tests.len()).sum();
        assert!(refused > 60);
        assert_eq!(
            run(&file, SignatureAlgorithm::RsaPssSha256),
            tally(&[("valid", 0, refused)])
        );
    }
}

/// No vector verifies as anything but what it was made as.
#[test]
fn algorithms_do_not_stand_in_for_each_other() {
    use SignatureAlgorithm as A;
    let mut file = vectors!("rsa_signature_2048_sha256");
    for group in &mut file.groups {
        group.tests.retain(|test| test[1] == "valid");
    }
    for other in [
        A::Ed25519,
        A::EcdsaP256Sha256,
        A::RsaSha1,
        A::RsaSha384,
        A::RsaSha512,
        A::RsaPssSha256,
    ] {
        assert_eq!(run(&file, other), tally(&[("valid", 0, 9)]), "{other:?}");
    }
}
