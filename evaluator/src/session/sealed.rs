//! Authenticated encryption of what we hand out and want back: XChaCha20-Poly1305 under a key derived for one purpose from the
//! secret that all instances share, as base64 for URLs. Its nonces are random and long enough never to meet.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

const NONCE_BYTES: usize = 24;

/// Seals texts for one purpose; what was sealed for another does not open.
#[derive(Clone)]
pub struct Sealer {
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// For what `purpose` names.
    #[must_use]
    pub fn new(secret: &[u8; 32], purpose: &str) -> Self {
        let mut key = Zeroizing::new([0_u8; 32]);
        let derived = Hkdf::<Sha256>::new(None, secret).expand(purpose.as_bytes(), &mut *key);
        derived.expect("32 bytes are within what HKDF gives");
        Self { cipher: XChaCha20Poly1305::new((&*key).into()) }
    }

    /// Nonce, ciphertext and tag, as text.
    #[must_use]
    pub fn seal(&self, plain: &[u8]) -> String {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let mut sealed = Zeroizing::new(plain.to_vec());
        self.cipher.encrypt_in_place((&nonce).into(), b"", &mut *sealed).expect("far below what the cipher takes");
        URL_SAFE_NO_PAD.encode([&nonce[..], &sealed[..]].concat())
    }

    /// What was sealed, unless it was not by us, for this purpose, or was altered.
    #[must_use]
    pub fn open(&self, text: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        self.cipher.decrypt_in_place(nonce.into(), b"", &mut *plain).ok()?;
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_does_not_open_what_is_another_ones() {
        let (one, other) = (Sealer::new(&[1; 32], "one"), Sealer::new(&[1; 32], "other"));
        let sealed = one.seal(b"plain");
        assert_eq!(one.open(&sealed).as_deref().map(Vec::as_slice), Some(&b"plain"[..]));
        assert!(other.open(&sealed).is_none());
        for bad in ["", "AAAA", "\u{e9}", &sealed[1..]] {
            assert!(one.open(bad).is_none(), "{bad}");
        }
    }
}
