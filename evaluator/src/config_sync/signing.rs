//! The signature of payloads: HMAC-SHA256 (RFC 2104) over canonical JSON, under a session's MAC key.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::session::MacKey;

impl MacKey {
    /// The signature of a canonical text: 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn sign(&self, canonical: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.as_bytes()).expect("HMAC takes keys of any length");
        mac.update(canonical.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}
