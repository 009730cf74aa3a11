//! Batons: what the server tells a client to send with its next batch. A client keeps one only within
//! a sync, and sends the next batch with the generation it began with: the baton says where it belongs.
//!
//! It is no secret and no capability: it names a place in a database that the token must allow anyway.

use std::fmt;

use highwater_ltx::{FrameNo, Generation, Place};

/// Where the next batch belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Baton {
    /// After this place of the log.
    Log(Place),
    /// After this frame of a branch.
    Branch(Place),
    /// Anywhere: the client begins again.
    Again,
}

impl Baton {
    /// Reads one; `None` for what this server never made.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "again" {
            return Some(Self::Again);
        }
        let mut parts = text.splitn(3, '.');
        let (kind, generation, frame) = (parts.next()?, parts.next()?, parts.next()?);
        let place =
            Place { generation: Generation(generation.parse().ok()?), frame: FrameNo(frame.parse().ok()?) };
        match kind {
            "log" => Some(Self::Log(place)),
            "branch" => Some(Self::Branch(place)),
            _ => None,
        }
    }
}

impl fmt::Display for Baton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(place) => write!(f, "log.{}.{}", place.generation, place.frame),
            Self::Branch(place) => write!(f, "branch.{}.{}", place.generation, place.frame),
            Self::Again => f.write_str("again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batons_come_back_as_they_were_and_others_are_none() {
        let place = Place { generation: Generation(7), frame: FrameNo(130) };
        for baton in [Baton::Log(place), Baton::Branch(place), Baton::Again] {
            let text = baton.to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'));
            assert_eq!(Baton::parse(&text), Some(baton));
        }
        for text in ["", "log", "log.1", "log.1.x", "log.1.2.3", "other.1.2", "log.-1.2", "log.99999999999.1"]
        {
            assert_eq!(Baton::parse(text), None, "{text}");
        }
    }
}
