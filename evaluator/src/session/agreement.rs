//! The key agreement of a handshake with a client's public key: X25519, then HKDF-SHA256 (data-plane.md 7.1).

use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::MacKey;

/// How clients name it.
pub const NAME: &str = "x25519-hkdf-sha256";

const INFO: &[u8] = b"flagmint-asl-config-sync-mac-v1";
const KEY_HEX_DIGITS: usize = 64;

/// What the server contributes to one handshake; its secret is erased when it is dropped.
pub struct Offer {
    secret: StaticSecret,
    /// Sent to the client.
    pub salt: [u8; 16],
}

impl Offer {
    /// A fresh pair and a fresh salt.
    #[must_use]
    pub fn new() -> Self {
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
        Self { secret: StaticSecret::from(*secret), salt: rand::random() }
    }

    /// The public key, sent to the client.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        PublicKey::from(&self.secret).to_bytes()
    }

    /// The key both sides have then. `None` if the client's key is degenerate: the shared secret would be all zeros, whatever ours.
    #[must_use]
    pub fn agree(self, client: [u8; 32]) -> Option<MacKey> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(client));
        if !shared.was_contributory() {
            return None;
        }
        let mut key = Zeroizing::new([0_u8; 32]);
        Hkdf::<Sha256>::new(Some(&self.salt), shared.as_bytes())
            .expand(INFO, &mut *key)
            .expect("32 bytes are within what HKDF gives");
        Some(MacKey::new(key))
    }
}

impl Default for Offer {
    fn default() -> Self {
        Self::new()
    }
}

/// A public key as clients write it: 64 hex digits of either case, blanks around them allowed.
#[must_use]
pub fn public_key(text: &str) -> Option<[u8; 32]> {
    let digits = text.trim();
    let mut key = [0; 32];
    (digits.len() == KEY_HEX_DIGITS && hex::decode_to_slice(digits, &mut key).is_ok()).then_some(key)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn bytes<const N: usize>(vectors: &Value, name: &str) -> [u8; N] {
        hex::decode(vectors[name].as_str().expect("hex")).expect("hex").try_into().expect("the length of the name")
    }

    #[test]
    fn both_sides_derive_the_key_of_the_vectors() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../../schemas/fixtures/evaluation.json")).expect("JSON");
        let vectors = &vectors["signing"];
        let salt = bytes::<16>(vectors, "salt_hex");
        let expected = bytes::<32>(vectors, "mac_key_hex");
        for (own, own_public, peer_public) in [
            ("server_secret_hex", "server_public_hex", "client_public_hex"),
            ("client_secret_hex", "client_public_hex", "server_public_hex"),
        ] {
            let offer = Offer { secret: StaticSecret::from(bytes::<32>(vectors, own)), salt };
            assert_eq!(offer.public_key(), bytes::<32>(vectors, own_public));
            let key = offer.agree(bytes(vectors, peer_public)).expect("a good key");
            assert_eq!(key.as_bytes(), &expected);
        }
    }

    #[test]
    fn degenerate_keys_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        // Of order 8, from RFC 7748's discussion of points that give zero.
        let order_8: [u8; 32] = hex::decode("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
            .expect("hex")
            .try_into()
            .expect("32 bytes");
        for key in [[0; 32], one, order_8] {
            assert!(Offer::new().agree(key).is_none(), "{key:?}");
        }
        let peer = Offer::new();
        assert!(Offer::new().agree(peer.public_key()).is_some());
    }

    #[test]
    fn public_keys_are_64_hex_digits() {
        let good = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        let key = public_key(good).expect("a key");
        assert_eq!(hex::encode(key), good);
        assert_eq!(public_key(&format!("  {}\n", good.to_uppercase())), Some(key));
        for bad in ["", &good[1..], &format!("{good}0"), &format!("0x{}", &good[2..]), &good.replace('8', "g"), "é"] {
            assert_eq!(public_key(bad), None, "{bad}");
        }
    }
}
