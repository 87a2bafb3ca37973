use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, date_time_ymd,
};

use super::*;
use crate::scheme::public_key::{PrivateKey, SignatureAlgorithm};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000); // January 2027
const LEAF_OID: [u64; 8] = [1, 2, 840, 113_635, 100, 6, 11, 1];
const INTERMEDIATE_OID: [u64; 8] = [1, 2, 840, 113_635, 100, 6, 2, 1];

fn rules() -> ChainRules {
    ChainRules {
        leaf_oid: Some("1.2.840.113635.100.6.11.1".to_owned()),
        intermediate_oid: Some("1.2.840.113635.100.6.2.1".to_owned()),
    }
}

fn params(name: &str, is_ca: IsCa, oid: Option<&[u64]>) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = is_ca;
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2028, 1, 1);
    params.custom_extensions = oid
        .map(|oid| CustomExtension::from_oid_content(oid, vec![5, 0]))
        .into_iter()
        .collect();
    params
}

fn root_params() -> CertificateParams {
    params(
        "root.example",
        IsCa::Ca(BasicConstraints::Unconstrained),
        None,
    )
}

fn intermediate_params() -> CertificateParams {
    let ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params("intermediate.example", ca, Some(&INTERMEDIATE_OID))
}

fn leaf_params() -> CertificateParams {
    params("leaf.example", IsCa::ExplicitNoCa, Some(&LEAF_OID))
}

struct Made {
    /// Leaf, intermediate, root.
    chain: Vec<Vec<u8>>,
    leaf: KeyPair,
}

/// A chain of these certificates under new keys.
fn made(root: CertificateParams, middle: CertificateParams, leaf: &CertificateParams) -> Made {
    let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
    let [root_key, middle_key, leaf_key] = keys;
    let root_der = root.self_signed(&root_key).unwrap().der().to_vec();
    let root = Issuer::new(root, root_key);
    let middle_der = middle.signed_by(&middle_key, &root).unwrap().der().to_vec();
    let middle = Issuer::new(middle, middle_key);
    let leaf_der = leaf.signed_by(&leaf_key, &middle).unwrap().der().to_vec();
    Made {
        chain: vec![leaf_der, middle_der, root_der],
        leaf: leaf_key,
    }
}

fn good() -> Made {
    made(root_params(), intermediate_params(), &leaf_params())
}

fn pinned(key: PublicKey) -> KeySet {
    KeySet::new(vec![Key::public("root".into(), key, None)]).unwrap()
}

fn pinned_root(made: &Made) -> KeySet {
    pinned(PublicKey::from_certificate(&made.chain[2]).unwrap())
}

fn judge(chain: &[Vec<u8>], roots: &KeySet) -> Result<(), &'static str> {
    leaf_key(chain, roots, &rules(), NOW)
        .map(|_| ())
        .map_err(|error| error.detail)
}

#[test]
fn a_whole_chain_gives_the_leafs_key() {
    let made = good();
    let roots = pinned_root(&made);
    let vouched = leaf_key(&made.chain, &roots, &rules(), NOW).unwrap();
    assert_eq!(&*vouched.root.id, "root");
    let key = PrivateKey::parse(&made.leaf.serialize_der()).unwrap();
    assert_eq!(*key.public(), vouched.leaf);
    let algorithm = SignatureAlgorithm::EcdsaP256Sha256Raw;
    let signature = key.sign(algorithm, &[b"content"]).unwrap();
    assert!(vouched.leaf.verify(algorithm, &[b"content"], &signature));
}

#[test]
fn a_root_may_be_pinned_by_its_key_alone() {
    let made = good();
    let certificate = PublicKey::from_certificate(&made.chain[2]).unwrap();
    let [key] = PublicKey::parse_all(certificate.spki())
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!(judge(&made.chain, &pinned(key)), Ok(()));
}

#[test]
fn another_root_vouches_for_nothing() {
    let (made, other) = (good(), good());
    assert_eq!(judge(&made.chain, &pinned_root(&other)), Err(NO_ROOT));
    // The pinned root is public: to append it proves nothing.
    let mut chain = made.chain.clone();
    chain[2].clone_from(&other.chain[2]);
    assert!(judge(&chain, &pinned_root(&other)).is_err());
    let mut chain = made.chain.clone();
    chain[1..].clone_from_slice(&other.chain[1..]);
    assert!(judge(&chain, &pinned_root(&other)).is_err());
}

#[test]
fn a_chain_is_exactly_leaf_intermediate_and_root() {
    let made = good();
    let roots = pinned_root(&made);
    let [leaf, middle, root] = made.chain.clone().try_into().unwrap();
    for chain in [
        vec![],
        vec![leaf.clone()],
        vec![leaf.clone(), middle.clone()],
        vec![leaf.clone(), root.clone()],
        vec![leaf.clone(), middle.clone(), root.clone(), root.clone()],
        vec![middle.clone(), leaf.clone(), root.clone()],
        vec![root.clone(), middle.clone(), leaf.clone()],
        vec![leaf.clone(), leaf.clone(), root.clone()],
        vec![middle.clone(), middle.clone(), root.clone()],
        vec![leaf.clone(), middle.clone(), b"0".to_vec()],
        vec![
            leaf.clone(),
            middle.clone(),
            [root.as_slice(), &[0]].concat(),
        ],
    ] {
        assert!(judge(&chain, &roots).is_err(), "{}", chain.len());
    }
}

#[test]
fn no_bit_of_the_leaf_may_change() {
    let made = good();
    let roots = pinned_root(&made);
    for at in 0..made.chain[0].len() {
        let mut chain = made.chain.clone();
        chain[0][at] ^= 1;
        assert!(judge(&chain, &roots).is_err(), "{at}");
    }
}

#[test]
fn both_extensions_must_be_there() {
    let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
    let leaf = params("leaf.example", IsCa::ExplicitNoCa, None);
    let made_without = made(root_params(), intermediate_params(), &leaf);
    let why = judge(&made_without.chain, &pinned_root(&made_without));
    assert_eq!(why, Err("the leaf is made for something else"));
    let middle = params("intermediate.example", ca(), None);
    let made_without = made(root_params(), middle, &leaf_params());
    let why = judge(&made_without.chain, &pinned_root(&made_without));
    assert_eq!(why, Err("the intermediate is made for something else"));
}

#[test]
fn every_certificate_is_within_its_validity() {
    let ended = |mut params: CertificateParams| {
        params.not_after = date_time_ymd(2026, 6, 1);
        params
    };
    let early = |mut params: CertificateParams| {
        params.not_before = date_time_ymd(2027, 6, 1);
        params
    };
    for made in [
        made(ended(root_params()), intermediate_params(), &leaf_params()),
        made(root_params(), ended(intermediate_params()), &leaf_params()),
        made(root_params(), intermediate_params(), &ended(leaf_params())),
        made(early(root_params()), intermediate_params(), &leaf_params()),
        made(root_params(), early(intermediate_params()), &leaf_params()),
        made(root_params(), intermediate_params(), &early(leaf_params())),
    ] {
        assert!(judge(&made.chain, &pinned_root(&made)).is_err());
    }
}

#[test]
fn only_an_authority_vouches() {
    let middle = params(
        "middle.example",
        IsCa::ExplicitNoCa,
        Some(&INTERMEDIATE_OID),
    );
    let made_by_leaf = made(root_params(), middle, &leaf_params());
    let why = judge(&made_by_leaf.chain, &pinned_root(&made_by_leaf));
    assert_eq!(why, Err("a certificate that is not an authority's vouches"));
    let leaf = params(
        "leaf.example",
        IsCa::Ca(BasicConstraints::Unconstrained),
        Some(&LEAF_OID),
    );
    let made_of_ca = made(root_params(), intermediate_params(), &leaf);
    let why = judge(&made_of_ca.chain, &pinned_root(&made_of_ca));
    assert_eq!(why, Err("the leaf is an authority"));
}

/// A leaf straight from the root, with any intermediate of the same root beside it.
#[test]
fn the_intermediate_is_not_decoration() {
    let [root_key, middle_key, leaf_key] = [(); 3].map(|()| KeyPair::generate().unwrap());
    let root_der = root_params().self_signed(&root_key).unwrap().der().to_vec();
    let root = Issuer::new(root_params(), root_key);
    let middle = intermediate_params().signed_by(&middle_key, &root).unwrap();
    let leaf = leaf_params().signed_by(&leaf_key, &root).unwrap();
    let chain = [leaf.der().to_vec(), middle.der().to_vec(), root_der.clone()];
    let roots = pinned(PublicKey::from_certificate(&root_der).unwrap());
    assert_eq!(
        judge(&chain, &roots),
        Err("the leaf is not from the intermediate")
    );
}

fn server_params() -> CertificateParams {
    let mut params = leaf_params();
    params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
    params
}

/// SECURITY A-35.
#[test]
fn a_fetched_certificate_is_for_its_name_and_time() {
    let made = made(root_params(), intermediate_params(), &server_params());
    let roots = [anchor(&made.chain[2]).unwrap()];
    let judge = |chain: &[Vec<u8>], name, now| {
        certificate_valid_for(chain, name, &roots, now).map(|key| key.names().to_vec())
    };
    let names = vec!["leaf.example".to_owned()];
    assert_eq!(
        judge(&made.chain[..2], "leaf.example", NOW),
        Ok(names.clone())
    );
    assert_eq!(judge(&made.chain, "LEAF.example", NOW), Ok(names));
    for name in [
        "example",
        "a.leaf.example",
        "leaf.example.org",
        "",
        "127.0.0.1",
        "*",
    ] {
        assert!(judge(&made.chain, name, NOW).is_err(), "{name}");
    }
    for now in [
        UnixTime::from_secs(1_700_000_000),
        UnixTime::from_secs(1_900_000_000),
    ] {
        assert!(judge(&made.chain, "leaf.example", now).is_err());
    }
    assert!(judge(&made.chain[..1], "leaf.example", NOW).is_err());
    assert!(judge(&[], "leaf.example", NOW).is_err());
    let many = vec![made.chain[0].clone(); MAX_FETCHED + 1];
    assert!(judge(&many, "leaf.example", NOW).is_err());
    let none = certificate_valid_for(&made.chain, "leaf.example", &[], NOW);
    assert_eq!(none.unwrap_err(), NO_ROOT);
}

#[test]
fn a_fetched_certificate_is_a_servers_and_not_self_signed() {
    let mut client = leaf_params();
    client.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth);
    let made = made(root_params(), intermediate_params(), &client);
    let roots = [anchor(&made.chain[2]).unwrap()];
    let why = certificate_valid_for(&made.chain, "leaf.example", &roots, NOW);
    assert_eq!(why.unwrap_err(), "the leaf is made for something else");
    let key = KeyPair::generate().unwrap();
    let alone = server_params().self_signed(&key).unwrap().der().to_vec();
    assert!(certificate_valid_for(&[alone], "leaf.example", &roots, NOW).is_err());
}
