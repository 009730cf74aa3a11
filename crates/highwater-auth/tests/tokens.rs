//! Tokens that are admitted, and everything else that is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    clippy::cast_possible_truncation
)]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use highwater_auth::{
    Access, Audience, Claims, KeyError, KeyPair, KeySet, MAX_TOKEN, Refused, Revoked, SigningKey, Timestamp,
    unverified,
};
use proptest::prelude::*;
use serde_json::json;

const NOW: Timestamp = Timestamp(1_800_000_000);

/// The key pair of RFC 8037, appendix A.
const RFC_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
const RFC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
const RFC_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
/// Its example, whose payload is no JSON.
const RFC_TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

fn alice() -> Claims {
    let mut claims = Claims::new("alice", NOW);
    claims.expires = Some(NOW.after(Duration::from_secs(3600)));
    claims.grant.databases.push("team/*".parse().unwrap());
    claims.grant.access.insert(Access::Read);
    claims
}

fn verify(keys: &KeySet, token: &str) -> Result<Claims, Refused> {
    keys.verify(token, NOW, Audience::None)
}

/// A token of any header and claims, signed by whatever signs.
fn forged(header: &serde_json::Value, claims: &serde_json::Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign(message.as_bytes())))
}

fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    move |message| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
    }
}

#[test]
fn a_token_says_what_it_was_made_with() {
    let pair = KeyPair::generate().unwrap();
    let secret = SigningKey::generate_secret().unwrap();
    for (private, public) in [(&pair.private, &pair.public), (&secret, &secret.checks())] {
        let token = private.sign(&alice()).unwrap();
        let claims = verify(public, token.reveal()).unwrap();
        assert_eq!(claims.subject.as_deref(), Some("alice"));
        assert_eq!(claims.grant, alice().grant);
        assert!(claims.id.unwrap().len() == 32);
        let seen = unverified(token.reveal()).unwrap();
        assert_eq!(seen.algorithm, private.algorithm());
        // What was written to a file and read back is the same key.
        let again = SigningKey::parse(private.reveal()).unwrap();
        verify(public, again.sign(&alice()).unwrap().reveal()).unwrap();
    }
    verify(&KeySet::parse(&pair.public_text).unwrap(), pair.private.sign(&alice()).unwrap().reveal())
        .unwrap();
}

#[test]
fn keys_and_signatures_are_those_of_the_standard() {
    let public = KeySet::parse(RFC_PUBLIC).unwrap();
    // Its signature is right: only after that the payload is looked at.
    let refused = verify(&public, RFC_TOKEN);
    assert!(matches!(refused, Err(Refused::Claims { .. })), "{refused:?}");
    let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": RFC_X, "kid": "a", "use": "sig"}]});
    let jwks = KeySet::parse(&jwks.to_string()).unwrap();
    assert!(matches!(verify(&jwks, RFC_TOKEN), Err(Refused::Claims { .. })));
    let private = SigningKey::parse(RFC_PRIVATE).unwrap();
    verify(&public, private.sign(&alice()).unwrap().reveal()).unwrap();
    let as_private = KeySet::parse(RFC_PRIVATE).unwrap();
    assert!(as_private.holds_private() && !public.holds_private());
    verify(&as_private, private.sign(&alice()).unwrap().reveal()).unwrap();
}

#[test]
fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let claims = serde_json::to_value(alice()).unwrap();
    let header = |alg: &str| json!({"alg": alg, "typ": "JWT"});
    let public = KeySet::parse(RFC_PUBLIC).unwrap();
    for none in ["none", "None", "NONE", ""] {
        let token = forged(&header(none), &claims, |_| Vec::new());
        assert_eq!(verify(&public, &token), Err(Refused::NotAToken), "{none}");
    }
    // A public key is no secret, in whatever form it is taken for one.
    let raw = URL_SAFE_NO_PAD.decode(RFC_X).unwrap();
    for secret in [RFC_PUBLIC.as_bytes(), RFC_PUBLIC.trim().as_bytes(), &raw, RFC_X.as_bytes(), b""] {
        for alg in ["HS256", "EdDSA", "HS384", "HS512"] {
            let token = forged(&header(alg), &claims, hs256(secret));
            assert_eq!(verify(&public, &token), Err(Refused::Signature), "{alg}");
        }
    }
    // Nor is a secret of another algorithm's.
    let secret = SigningKey::generate_secret().unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(secret.reveal().trim().strip_prefix("hs256:").unwrap()).unwrap();
    verify(&secret.checks(), &forged(&header("HS256"), &claims, hs256(&bytes))).unwrap();
    for alg in ["HS384", "HS512", "EdDSA", "RS256", "ES256"] {
        let token = forged(&header(alg), &claims, hs256(&bytes));
        assert_eq!(verify(&secret.checks(), &token), Err(Refused::Signature), "{alg}");
    }
}

#[test]
fn a_key_within_the_token_is_not_asked() {
    let attacker = KeyPair::generate().unwrap();
    let x = attacker.public_text.lines().nth(1).unwrap();
    let token = attacker.private.sign(&alice()).unwrap();
    let claims = token.reveal().split('.').nth(1).unwrap();
    let header =
        json!({"alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}, "jku": "http://127.0.0.1/"});
    let header = URL_SAFE_NO_PAD.encode(header.to_string());
    let public = KeySet::parse(RFC_PUBLIC).unwrap();
    let token = format!("{header}.{claims}.{}", token.reveal().rsplit('.').next().unwrap());
    assert_eq!(verify(&public, &token), Err(Refused::Signature));
}

#[test]
fn what_must_be_understood_and_is_not_is_refused() {
    let secret = vec![7; 32];
    let keys = KeySet::parse(&format!("hs256:{}", URL_SAFE_NO_PAD.encode(&secret))).unwrap();
    let claims = serde_json::to_value(alice()).unwrap();
    let header = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    assert_eq!(verify(&keys, &forged(&header, &claims, hs256(&secret))), Err(Refused::NotAToken));
}

#[test]
fn every_changed_character_of_a_token_is_noticed() {
    let pair = KeyPair::generate().unwrap();
    let token = pair.private.sign(&alice()).unwrap();
    for at in 0..token.reveal().len() {
        let mut changed = token.reveal().as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(verify(&pair.public, &changed).is_err(), "{at}");
    }
    let other = KeyPair::generate().unwrap();
    assert_eq!(verify(&other.public, token.reveal()), Err(Refused::Signature));
}

#[test]
fn a_token_is_valid_from_its_beginning_to_its_end_with_a_little_patience() {
    let pair = KeyPair::generate().unwrap();
    let at = |claims: &Claims, now: u64| {
        let token = pair.private.sign(claims).unwrap();
        pair.public.verify(token.reveal(), Timestamp(now), Audience::None).map(drop)
    };
    let mut claims = alice();
    let end = claims.expires.unwrap().0;
    assert_eq!(at(&claims, NOW.0 - 61), Err(Refused::NotYet));
    assert_eq!(at(&claims, NOW.0 - 60), Ok(()));
    assert_eq!(at(&claims, end + 9), Ok(()));
    assert_eq!(at(&claims, end + 10), Err(Refused::Expired));
    claims.not_before = Some(Timestamp(NOW.0 + 100));
    assert_eq!(at(&claims, NOW.0 + 39), Err(Refused::NotYet));
    assert_eq!(at(&claims, NOW.0 + 40), Ok(()));
    claims.expires = None;
    assert_eq!(at(&claims, u64::MAX), Ok(()));
}

#[test]
fn odd_claims_are_refused_and_never_guessed_at() {
    let secret = vec![7; 32];
    let keys = KeySet::parse(&format!("hs256:{}", URL_SAFE_NO_PAD.encode(&secret))).unwrap();
    let check = |claims: serde_json::Value| {
        verify(&keys, &forged(&json!({"alg": "HS256"}), &claims, hs256(&secret))).map(drop)
    };
    assert_eq!(check(json!({"sub": "a"})), Ok(()));
    assert_eq!(check(json!({"exp": NOW.0 as f64 + 0.5})), Ok(()));
    assert_eq!(check(json!({"exp": 0})), Err(Refused::Expired));
    for claims in [
        json!({"exp": null}),
        json!({"exp": "2999999999"}),
        json!({"exp": -1}),
        json!({"exp": 1e300}),
        json!({"nbf": []}),
        json!({"sub": 7}),
        json!({"jti": null}),
        json!({"aud": 7}),
        json!({"highwater": null}),
        json!({"highwater": {"databases": ["*"], "access": ["everything"]}}),
        json!([]),
        json!("x"),
    ] {
        assert!(matches!(check(claims.clone()), Err(Refused::Claims { .. })), "{claims}");
    }
}

#[test]
fn a_token_is_for_the_server_that_it_names() {
    let pair = KeyPair::generate().unwrap();
    let check = |names: &[&str], audience: Audience<'_>| {
        let mut claims = alice();
        claims.audience = names.iter().map(|name| (*name).to_owned()).collect();
        pair.public.verify(pair.private.sign(&claims).unwrap().reveal(), NOW, audience).map(drop)
    };
    assert_eq!(check(&[], Audience::None), Ok(()));
    assert_eq!(check(&["a", "b"], Audience::Named("b")), Ok(()));
    assert_eq!(check(&["a"], Audience::Any), Ok(()));
    assert_eq!(check(&["a"], Audience::None), Err(Refused::Audience));
    assert_eq!(check(&["a"], Audience::Named("b")), Err(Refused::Audience));
    assert_eq!(check(&[], Audience::Named("b")), Err(Refused::Audience));
}

#[test]
fn keys_are_rotated_by_having_both_in_the_file() {
    let (old, new, other) =
        (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let both = KeySet::parse(&format!("# old and new\n{}{}", old.public_text, new.public_text)).unwrap();
    assert_eq!(both.count(), 2);
    for pair in [&old, &new] {
        verify(&both, pair.private.sign(&alice()).unwrap().reveal()).unwrap();
    }
    assert_eq!(verify(&both, other.private.sign(&alice()).unwrap().reveal()), Err(Refused::Signature));
}

#[test]
fn a_jwks_is_read_by_what_its_keys_are_for() {
    let secret = vec![7; 32];
    let k = URL_SAFE_NO_PAD.encode(&secret);
    let ed = |more: serde_json::Value| {
        let mut key = json!({"kty": "OKP", "crv": "Ed25519", "x": RFC_X});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    };
    let parse = |keys: serde_json::Value| KeySet::parse(&json!({ "keys": keys }).to_string());
    let rsa = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "r"});
    let both = parse(json!([rsa, ed(json!({"kid": "e"})), {"kty": "oct", "k": k, "kid": "s"}])).unwrap();
    assert_eq!(both.count(), 2);
    let token = |kid: &str| {
        let header = json!({"alg": "HS256", "kid": kid});
        forged(&header, &serde_json::to_value(alice()).unwrap(), hs256(&secret))
    };
    verify(&both, &token("s")).unwrap();
    // The name of another key is the name of another key.
    for kid in ["e", "r", "", "S"] {
        assert_eq!(verify(&both, &token(kid)), Err(Refused::Signature), "{kid}");
    }
    for unusable in
        [json!([]), json!([rsa]), json!([ed(json!({"use": "enc"}))]), json!([ed(json!({"alg": "HS256"}))])]
    {
        assert_eq!(parse(unusable).unwrap_err(), KeyError::NoneUsable);
    }
    assert!(matches!(parse(json!([{"kty": "oct", "k": "c2hvcnQ"}])), Err(KeyError::Short { .. })));
    assert!(matches!(parse(json!([ed(json!({"x": "AA"}))])), Err(KeyError::NotEd25519 { .. })));
    let secret_in_the_wrong_place = format!("{{\"keys\": [{{\"kty\": {k:?}}}, {{\"kty\": [{k:?}]}}]}}");
    let error = KeySet::parse(&secret_in_the_wrong_place).unwrap_err();
    assert!(matches!(error, KeyError::Jwks { .. }) && !error.to_string().contains(&k), "{error}");
}

#[test]
fn what_is_no_key_is_never_taken_for_a_secret() {
    let bare = RFC_PUBLIC.lines().nth(1).unwrap();
    for text in ["", "secret", bare, "hs256:", "hs256:!!", "\u{0}", "-----BEGIN"] {
        assert!(KeySet::parse(text).is_err(), "{text:?}");
        assert!(SigningKey::parse(text).is_err(), "{text:?}");
    }
    assert_eq!(KeySet::parse("hs256:c2hvcnQ").unwrap_err(), KeyError::Short { min: 32 });
    assert_eq!(SigningKey::parse(RFC_PUBLIC).unwrap_err(), KeyError::OnlyPublic);
    let rsa = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert!(matches!(KeySet::parse(rsa), Err(KeyError::Kind { .. })));
    let cut = &RFC_PUBLIC[..RFC_PUBLIC.len() - 40];
    assert!(matches!(KeySet::parse(cut), Err(KeyError::NotEd25519 { .. })));
}

#[test]
fn neither_keys_nor_tokens_are_shown() {
    let secret = SigningKey::generate_secret().unwrap();
    let token = secret.sign(&alice()).unwrap();
    let shown = format!("{secret:?} {:?} {token:?}", secret.checks());
    let pair = KeyPair::generate().unwrap();
    let shown = format!("{shown} {pair:?}");
    assert!(!shown.contains(secret.reveal().trim().strip_prefix("hs256:").unwrap()));
    assert!(!shown.contains(token.reveal()));
    assert!(!shown.contains(pair.private.reveal().lines().nth(1).unwrap()), "{shown}");
}

#[test]
fn a_revoked_name_or_subject_is_found_and_nothing_else() {
    let list = "# lost on the train\njti-1  # bob's telephone\n\nsub:carol\nsub:dave # left\n";
    let list = Revoked::parse(list).unwrap();
    assert_eq!(list.count(), 3);
    let claims = |id: &str, subject: &str| Claims { id: Some(id.to_owned()), ..Claims::new(subject, NOW) };
    assert!(list.names(&claims("jti-1", "bob")));
    assert!(list.names(&claims("x", "carol")));
    assert!(list.names(&claims("x", "dave")));
    for (id, subject) in
        [("jti-2", "bob"), ("carol", "x"), ("sub:carol", "x"), ("x", "jti-1"), ("x", "Carol")]
    {
        assert!(!list.names(&claims(id, subject)), "{id} {subject}");
    }
    let token = SigningKey::generate_secret().unwrap().sign(&alice()).unwrap();
    let error = Revoked::parse(&format!("a\n{}\n", token.reveal())).unwrap_err();
    assert_eq!(error.line, 2);
    assert!(!error.to_string().contains(token.reveal()));
    assert!(Revoked::parse("sub:").is_err());
}

#[test]
fn a_huge_token_is_refused_before_it_is_parsed() {
    let keys = KeySet::parse(RFC_PUBLIC).unwrap();
    let token = format!("{}.e30.AA", "A".repeat(MAX_TOKEN));
    assert_eq!(verify(&keys, &token), Err(Refused::TooLong { max: MAX_TOKEN }));
    let deep = URL_SAFE_NO_PAD.encode(format!("{}1{}", "[".repeat(2000), "]".repeat(2000)));
    assert!(verify(&keys, &format!("{deep}.{deep}.AA")).is_err());
}

proptest! {
    #[test]
    fn nothing_random_is_a_token(text in "\\PC{0,200}", parts in "[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,90}") {
        let keys = KeySet::parse(RFC_PUBLIC).unwrap();
        prop_assert!(verify(&keys, &text).is_err());
        prop_assert!(verify(&keys, &parts).is_err());
        let _ = unverified(&text);
        let _ = unverified(&parts);
    }

    #[test]
    fn no_file_of_keys_makes_it_panic(text in "\\PC{0,200}", inner in "[A-Za-z0-9+/=]{0,100}") {
        let _ = KeySet::parse(&text);
        let _ = KeySet::parse(&format!("-----BEGIN PUBLIC KEY-----\n{inner}\n-----END PUBLIC KEY-----"));
        let _ = SigningKey::parse(&format!("-----BEGIN PRIVATE KEY-----\n{inner}\n-----END PRIVATE KEY-----"));
        let _ = Revoked::parse(&text);
    }
}
