//! Sessions: what a handshake hands out and a stream or a configuration fetch is opened with, once, on any instance.
//!
//! A session id holds everything itself, sealed under a key that all instances share ([`sealed`]); which ids were used is the only
//! thing instances must tell each other ([`used`]).

pub mod agreement;
pub mod sealed;
pub mod used;

use std::fmt;

use flagmint_schemas::ids::EnvironmentId;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use self::sealed::Sealer;
use crate::directory::KeyHash;
use crate::limits::{SEALED_ID_BYTES_MAX, SESSION_LIFETIME};

const PREFIX: &str = "fm_asl_";
const VERSION: u8 = 1;
const KEY_AT: usize = 1;
const ENVIRONMENT_AT: usize = KEY_AT + 32;
const EXPIRY_AT: usize = ENVIRONMENT_AT + 16;
const MAC_KEY_AT: usize = EXPIRY_AT + 8;

/// The key that authenticates everything sent under a session. Erased from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct MacKey(Zeroizing<[u8; 32]>);

impl MacKey {
    /// Takes over a key.
    #[must_use]
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey")
    }
}

/// What a session id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The SDK key that asked for it: it must be usable when the session is, too.
    pub key: KeyHash,
    /// The environment of that key.
    pub environment: EnvironmentId,
    /// Set if the handshake had a client's public key.
    pub mac_key: Option<MacKey>,
    /// Unused, it ends then: microseconds since the epoch.
    pub expires_us: i64,
}

/// Seals and opens session ids.
#[derive(Debug, Clone)]
pub struct Sessions {
    sealer: Sealer,
}

impl Sessions {
    /// Under the secret that all instances share.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { sealer: Sealer::new(secret, "flagmint-session-v1") }
    }

    /// The id of a new session, good for [`SESSION_LIFETIME`] from `now_us`.
    #[must_use]
    pub fn issue(&self, key: KeyHash, environment: EnvironmentId, mac_key: Option<MacKey>, now_us: i64) -> String {
        let lifetime_us = i64::try_from(SESSION_LIFETIME.as_micros()).expect("a minute");
        let session = Session { key, environment, mac_key, expires_us: now_us.saturating_add(lifetime_us) };
        format!("{PREFIX}{}", self.sealer.seal(&session.to_bytes()))
    }

    /// The session with this id, unless it is not ours, altered, or expired at `now_us`.
    #[must_use]
    pub fn open(&self, id: &str, now_us: i64) -> Option<Session> {
        let sealed = id.strip_prefix(PREFIX).filter(|sealed| sealed.len() <= SEALED_ID_BYTES_MAX)?;
        let bytes = self.sealer.open(sealed)?;
        Session::from_bytes(&bytes).filter(|session| now_us < session.expires_us)
    }
}

/// Under what a session id is remembered as used. Base64 has no two texts for one id here, so equal ids have equal hashes.
#[must_use]
pub fn id_hash(id: &str) -> [u8; 32] {
    Sha256::digest(id.as_bytes()).into()
}

impl Session {
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAC_KEY_AT + 32));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(self.environment.0.as_bytes());
        bytes.extend_from_slice(&self.expires_us.to_be_bytes());
        if let Some(mac_key) = &self.mac_key {
            bytes.extend_from_slice(mac_key.as_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mac_key = match bytes.get(MAC_KEY_AT..)? {
            [] => None,
            key => Some(MacKey::new(Zeroizing::new(key.try_into().ok()?))),
        };
        (bytes[0] == VERSION).then_some(())?;
        Some(Self {
            key: bytes[KEY_AT..ENVIRONMENT_AT].try_into().ok()?,
            environment: EnvironmentId(Uuid::from_slice(&bytes[ENVIRONMENT_AT..EXPIRY_AT]).ok()?),
            mac_key,
            expires_us: i64::from_be_bytes(bytes[EXPIRY_AT..MAC_KEY_AT].try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVIRONMENT: EnvironmentId = EnvironmentId(Uuid::from_u128(3));

    fn mac_key() -> MacKey {
        MacKey::new(Zeroizing::new([9; 32]))
    }

    #[test]
    fn a_session_is_good_on_every_instance_with_the_secret_until_it_expires() {
        let (here, there) = (Sessions::new(&[1; 32]), Sessions::new(&[1; 32]));
        for mac_key in [None, Some(mac_key())] {
            let id = here.issue([7; 32], ENVIRONMENT, mac_key.clone(), 1_000);
            let session = there.open(&id, 1_000).expect("a good session");
            assert_eq!(session, Session { key: [7; 32], environment: ENVIRONMENT, mac_key, expires_us: 60_001_000 });
            assert!(there.open(&id, 60_000_999).is_some());
            assert!(there.open(&id, 60_001_000).is_none(), "expired");
            assert!(Sessions::new(&[2; 32]).open(&id, 1_000).is_none(), "another secret");
        }
    }

    #[test]
    fn nothing_but_an_id_as_issued_opens() {
        let sessions = Sessions::new(&[1; 32]);
        let id = sessions.issue([7; 32], ENVIRONMENT, Some(mac_key()), 0);
        assert_ne!(id, sessions.issue([7; 32], ENVIRONMENT, Some(mac_key()), 0), "ids are unguessable");
        for position in 0..id.len() {
            let mut altered = id.clone().into_bytes();
            altered[position] = if altered[position] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("ASCII");
            assert!(sessions.open(&altered, 0).is_none(), "altered at {position}");
        }
        let padded = format!("{id}=");
        let truncated = &id[..id.len() - 1];
        for bad in ["", "fm_asl_", "fm_asl_AAAA", "\u{e9}", &padded, truncated, &id[1..], &"x".repeat(100_000)] {
            assert!(sessions.open(bad, 0).is_none(), "{bad:.40}");
        }
    }
}
