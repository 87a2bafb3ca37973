//! Password hashes as operators write them: Argon2id and bcrypt, with a cost that one request may
//! cause.

use argon2::{ARGON2ID_IDENT, Argon2, Params, PasswordHash, PasswordHasher};

use crate::route::auth::Password;

/// Most memory that one Argon2id check may take, in KiB: 256 MiB.
const ARGON2_MEMORY_MAX: u32 = 256 << 10;

/// Most passes over it.
const ARGON2_PASSES_MAX: u32 = 10;

/// Most lanes; more only cost.
const ARGON2_LANES_MAX: u32 = 16;

/// Highest bcrypt cost: about a second.
const BCRYPT_COST_MAX: u32 = 14;

/// Hashes a password as Argon2id with a fresh salt, in PHC format. Fails when the system has no
/// randomness, or for more than 4 GiB of password.
pub fn hash_password(password: &[u8]) -> Result<String, String> {
    Argon2::default()
        .hash_password(password)
        .map(|hash| hash.to_string())
        .map_err(|error| format!("cannot hash the password: {error}"))
}

/// Reads a hash from a configuration or an htpasswd file. The message never repeats the hash.
pub fn validate_hash(hash: &str) -> Result<Password, String> {
    if hash.starts_with("$argon2") {
        argon2id(hash).map(|()| Password::Argon2(hash.to_owned()))
    } else if hash.starts_with("$2") {
        bcrypt(hash).map(|()| Password::Bcrypt(hash.to_owned()))
    } else {
        Err(
            "not an Argon2id (`$argon2id$...`) or bcrypt (`$2y$...`) hash; make one with \
             `hookward hash-password` or `htpasswd -B`"
                .to_owned(),
        )
    }
}

fn argon2id(hash: &str) -> Result<(), String> {
    let hash = PasswordHash::new(hash).map_err(|error| format!("not an Argon2 hash: {error}"))?;
    if hash.algorithm != ARGON2ID_IDENT {
        return Err(format!(
            "`{}` is not accepted, only `argon2id`",
            hash.algorithm
        ));
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("the Argon2id hash has no salt or no output; it is cut off".to_owned());
    }
    let params = Params::try_from(&hash)
        .map_err(|error| format!("the Argon2id parameters are out of range: {error}"))?;
    for (name, value, most) in [
        ("m", params.m_cost(), ARGON2_MEMORY_MAX),
        ("t", params.t_cost(), ARGON2_PASSES_MAX),
        ("p", params.p_cost(), ARGON2_LANES_MAX),
    ] {
        if value > most {
            return Err(format!("the Argon2id cost {name}={value} is above {most}"));
        }
    }
    Ok(())
}

fn bcrypt(hash: &str) -> Result<(), String> {
    if hash.starts_with("$2x$") {
        return Err("`$2x$` marks hashes of a faulty bcrypt; hash the password again".to_owned());
    }
    let parts: bcrypt::HashParts = hash
        .parse()
        .map_err(|_bad: bcrypt::BcryptError| "not a bcrypt hash".to_owned())?;
    match parts.get_cost() {
        4..=BCRYPT_COST_MAX => Ok(()),
        cost => Err(format!(
            "the bcrypt cost {cost} is not within 4 and {BCRYPT_COST_MAX}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT_AND_OUTPUT: &str =
        "c29tZXNhbHRzb21lc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

    #[test]
    fn what_is_made_is_accepted() {
        let hash = hash_password(b"correct horse").unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(matches!(validate_hash(&hash), Ok(Password::Argon2(_))));
        assert_ne!(hash, hash_password(b"correct horse").unwrap());
        let hash = bcrypt::hash("correct horse", 4).unwrap();
        assert!(matches!(validate_hash(&hash), Ok(Password::Bcrypt(_))));
    }

    #[test]
    fn what_is_dear_weak_or_broken_is_not() {
        for (params, part) in [
            ("argon2id$v=19$m=1048576,t=2,p=1", "m=1048576"),
            ("argon2id$v=19$m=19456,t=11,p=1", "t=11"),
            ("argon2id$v=19$m=19456,t=2,p=17", "p=17"),
            ("argon2i$v=19$m=19456,t=2,p=1", "argon2i"),
            ("argon2id$v=19$m=1,t=2,p=1", "parameters"),
        ] {
            let error = validate_hash(&format!("${params}${SALT_AND_OUTPUT}")).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let bcrypt = bcrypt::hash("p", 4).unwrap();
        for hash in [
            "",
            "plain",
            "{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
            "$apr1$abcdefgh$0123456789012345678901",
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$",
            &bcrypt.replace("$04$", "$15$"),
            &bcrypt.replace("$04$", "$03$"),
            &bcrypt.replace("$2b$", "$2x$"),
            bcrypt.strip_suffix(|_: char| true).unwrap(),
            "$2y$é",
        ] {
            assert!(validate_hash(hash).is_err(), "{hash}");
        }
    }
}
