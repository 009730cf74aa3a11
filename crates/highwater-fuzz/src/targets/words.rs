//! Names, positions, URLs, tokens and keys.

use highwater_auth::{
    Audience, Claims, KeyPair, KeySet, Pattern, Revoked, SigningKey, Timestamp, unverified,
};
use highwater_ltx::{DeviceId, Place, Position, StateHash};
use highwater_wire::{DbName, LocateRequest, MergePolicy, QueryRequest, Remote};

use crate::{both, seen};

/// Everything that is parsed from a word.
#[must_use]
pub fn names(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let name = text.parse::<DbName>();
    if let Ok(name) = &name {
        // What is a name stays one, and stays within its folder.
        assert_eq!(name.as_str().parse::<DbName>().as_ref(), Ok(name));
        assert!(
            name.segments().all(|segment| !segment.is_empty() && segment != ".." && !segment.contains('\\'))
        );
    }
    let remote = text.parse::<Remote>();
    if let Ok(remote) = &remote {
        assert!(remote.as_str().parse::<Remote>().is_ok(), "{remote:?}");
        let _ = (remote.request(Some("sync")), remote.last_segment());
    }
    let position = text.parse::<Position>();
    if let Ok(position) = &position {
        assert_eq!(position.to_string().parse::<Position>().as_ref(), Ok(position));
    }
    let words =
        (text.parse::<Place>().is_ok(), text.parse::<StateHash>().is_ok(), text.parse::<DeviceId>().is_ok());
    let more = (text.parse::<MergePolicy>().is_ok(), text.parse::<Pattern>().map(|_| ()).is_ok());
    let located = LocateRequest::decode(data).map(|request| {
        assert_eq!(LocateRequest::decode(&request.encode()).as_ref(), Ok(&request));
    });
    let query = serde_json::from_slice::<QueryRequest>(data).is_ok();
    both(
        both(seen(name.is_ok()), seen(remote.is_ok())),
        both(seen((position.is_ok(), words, more, query)), seen(located)),
    )
}

/// Words of each kind.
#[must_use]
pub fn all_names() -> Vec<Vec<u8>> {
    let locate = [&b"HWLOCA01\0\0\x02\0\0\0\0\x03"[..], &[7; 16], &[1], &[9; 48]].concat();
    let differing = [&b"HWLOCA01\0\0\x02\0\0\0\0\x03"[..], &[7; 16], &[2], &[0, 0, 0, 2], &[9; 16]].concat();
    let mut all = vec![locate, differing];
    let words = [
        "team/app",
        "a",
        "http://127.0.0.1:8080/team/app",
        "https://example.org/app?x=1",
        "1/33/0123456789abcdef0123456789abcdef",
        "1/33",
        "0123456789abcdef0123456789abcdef",
        "team/*",
        "first-push-wins",
        r#"{"sql":"SELECT 1","params":[1,null,"x",{"blob":"AA=="}]}"#,
    ];
    all.extend(words.map(|word| word.as_bytes().to_vec()));
    all
}

/// Tokens, keys, and lists of what was taken back.
#[must_use]
pub fn tokens(data: &[u8]) -> u64 {
    use std::sync::OnceLock;
    static PAIR: OnceLock<(KeyPair, KeySet)> = OnceLock::new();
    let (pair, secret) = PAIR.get_or_init(|| {
        let secret = SigningKey::parse(SECRET).unwrap();
        (KeyPair::generate().unwrap(), secret.checks())
    });
    let text = String::from_utf8_lossy(data);
    let now = Timestamp::now();
    // Nobody can have made a token of a key that was made just now.
    let verified = pair.public.verify(&text, now, Audience::Any).is_ok();
    assert!(!verified, "a forged token is accepted");
    let known = secret.verify(&text, now, Audience::None).map(|_| ());
    let seen_through = unverified(&text).map(|_| ());
    let keys = KeySet::parse(&text).map(|keys| (keys.count(), keys.holds_private()));
    let signing = SigningKey::parse(&text).map(|key| key.sign(&Claims::new("x", now)).is_ok());
    let revoked = Revoked::parse(&text).map(|_| ());
    both(
        both(seen(verified), seen(known)),
        both(seen((seen_through, keys.is_ok())), seen((signing.is_ok(), revoked.is_ok()))),
    )
}

/// The secret of the samples.
const SECRET: &str = "hs256:bm90IGEgc2VjcmV0LCBvbmx5IGEgc2FtcGxlIG9mIG9uZQ";

/// Tokens of a known secret, and keys of each kind.
#[must_use]
pub fn all_tokens() -> Vec<Vec<u8>> {
    let now = Timestamp::now();
    let pair = KeyPair::generate().unwrap();
    let claims = Claims::new("alice", now);
    let mut all: Vec<Vec<u8>> = vec![SECRET.into(), b"# gone\nalice\n0123\n".to_vec()];
    let secret = SigningKey::parse(SECRET).unwrap();
    for key in [&secret, &pair.private] {
        all.push(key.sign(&claims).unwrap().reveal().as_bytes().to_vec());
        all.push(key.reveal().as_bytes().to_vec());
    }
    all.push(b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.".to_vec());
    all.push(
        br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#
            .to_vec(),
    );
    all
}
