//! Access tokens (JWT, HS256), and the random texts whose hashes we keep: refresh tokens and SDK keys.

use chrono::Utc;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::ApiError;

/// What a user may do, in rising order (management API 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also changes configuration.
    Editor,
    /// Also members, billing and environments.
    Admin,
}

impl Role {
    /// The role of this name; memberships hold no other names.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "admin" => Self::Admin,
            "editor" => Self::Editor,
            _ => Self::Viewer,
        }
    }
}

/// What an access token says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) sub: Uuid,
    pub(crate) org: Uuid,
    pub(crate) role: Role,
    pub(crate) sid: Uuid,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
}

/// The installation's secret, ready for both directions.
pub(crate) struct TokenKeys {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKeys")
    }
}

impl TokenKeys {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self { encoding: EncodingKey::from_secret(secret), decoding: DecodingKey::from_secret(secret) }
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, ApiError> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .map_err(|error| ApiError::Internal(error.to_string()))
    }

    pub(crate) fn verify(&self, token: &str) -> Result<Claims, ApiError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0; // Clocks of one installation agree, and a token is renewed before it ends.
        match jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation) {
            Ok(data) if data.claims.exp > Utc::now().timestamp() => Ok(data.claims),
            Ok(_) => Err(ApiError::TokenExpired),
            Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => Err(ApiError::TokenExpired),
            Err(_) => Err(ApiError::Unauthorized("The access token is not valid")),
        }
    }
}

/// `prefix` and 256 random bits as 64 hex digits.
pub(crate) fn random_text(prefix: &str) -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    format!("{prefix}{}", hex::encode(bytes))
}

/// SHA-256 of `text`. Our own texts have 256 random bits, so no slow hash is needed.
pub(crate) fn text_hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: i64) -> Claims {
        let id = Uuid::from_u128(1);
        Claims { sub: id, org: id, role: Role::Editor, sid: id, exp, iat: 0 }
    }

    #[test]
    fn only_our_own_fresh_tokens_are_good() {
        let keys = TokenKeys::new(&[7; 32]);
        let now = Utc::now().timestamp();
        let good = keys.sign(&claims(now + 60)).unwrap();
        assert_eq!(keys.verify(&good).unwrap().role, Role::Editor);
        assert!(matches!(keys.verify(&keys.sign(&claims(now - 1)).unwrap()), Err(ApiError::TokenExpired)));
        let other = TokenKeys::new(&[8; 32]).sign(&claims(now + 60)).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
        for bad in ["", "x", "a.b.c", &other, &unsigned] {
            assert!(matches!(keys.verify(bad), Err(ApiError::Unauthorized(_))), "{bad}");
        }
    }

    #[test]
    fn roles_rise() {
        assert!(Role::Viewer < Role::Editor && Role::Editor < Role::Admin);
        assert_eq!(
            [Role::named("viewer"), Role::named("editor"), Role::named("admin")],
            [Role::Viewer, Role::Editor, Role::Admin]
        );
    }

    #[test]
    fn random_texts_have_the_published_form() {
        let key = random_text("ff_");
        assert_eq!(key.len(), 67);
        assert!(key[3..].bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
        assert_ne!(key, random_text("ff_"));
        assert_eq!(hex::encode(text_hash("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
