//! What a token says.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Grant, Timestamp};

/// The claims of a token. Other claims may stand in it and mean nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// `sub`: whom the token was made for.
    #[serde(rename = "sub", default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `exp`: when it ends. Without it, it never does.
    #[serde(rename = "exp", default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// `nbf`: when it begins.
    #[serde(rename = "nbf", default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// `iat`: when it was made.
    #[serde(rename = "iat", default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub issued: Option<Timestamp>,
    /// `jti`: its name, by which it can be revoked.
    #[serde(rename = "jti", default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `aud`: which servers it is for; one name or several.
    #[serde(
        rename = "aud",
        default,
        deserialize_with = "one_or_many",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub audience: Vec<String>,
    /// `highwater`: what it allows.
    #[serde(rename = "highwater", default)]
    pub grant: Grant,
}

impl Claims {
    /// Claims for somebody that allow nothing yet, with a fresh name and no end.
    #[must_use]
    pub fn new(subject: &str, now: Timestamp) -> Self {
        Self {
            subject: Some(subject.to_owned()),
            expires: None,
            not_before: None,
            issued: Some(now),
            id: Some(fresh_id()),
            audience: Vec::new(),
            grant: Grant::default(),
        }
    }
}

/// 128 random bits as hex digits.
fn fresh_id() -> String {
    let mut bytes = [0; 16];
    // The generator of AWS-LC stops the process rather than fail.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// A claim that is there has a value: `null` does not count as absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    OneOrMany::deserialize(deserializer).map(|names| match names {
        OneOrMany::One(name) => vec![name],
        OneOrMany::Many(names) => names,
    })
}
