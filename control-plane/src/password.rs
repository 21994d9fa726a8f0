//! Passwords: Argon2id with the parameters OWASP names first (19 MiB, 2 passes, 1 lane), off the async threads and only
//! a few at a time, so that a flood of sign-ins cannot take the machine's memory.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::RngCore;
use tokio::sync::Semaphore;

use crate::error::ApiError;
use crate::limits::{HASH_QUEUE_WAIT, MAX_CONCURRENT_HASHES};

/// Hashes and verifies passwords, a few at a time.
#[derive(Debug)]
pub(crate) struct Passwords {
    slots: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(MAX_CONCURRENT_HASHES)) }
    }
}

impl Passwords {
    /// Whether `password` is the one `hash` was made from. Without a hash the answer is no, after the same time: unknown
    /// users cannot be told from known ones.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, ApiError> {
        self.run(move || {
            static UNKNOWN: OnceLock<String> = OnceLock::new();
            let known = hash.is_some();
            let hash = hash.unwrap_or_else(|| UNKNOWN.get_or_init(|| hash_now("nobody's password")).clone());
            let Ok(parsed) = PasswordHash::new(&hash) else { return false };
            hasher().verify_password(password.as_bytes(), &parsed).is_ok() && known
        })
        .await
    }

    /// The PHC string to keep for `password`.
    pub(crate) async fn hash(&self, password: String) -> Result<String, ApiError> {
        self.run(move || hash_now(&password)).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let busy = || ApiError::Unavailable("too many passwords to hash".to_owned());
        let slot = tokio::time::timeout(HASH_QUEUE_WAIT, Arc::clone(&self.slots).acquire_owned()).await;
        let slot = slot.map_err(|_| busy())?.map_err(|_| busy())?;
        tokio::task::spawn_blocking(move || {
            let _slot = slot; // Held by the work itself: a caller who hangs up does not free it early.
            work()
        })
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))
    }
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(19_456, 2, 1, None).expect("OWASP's parameters are within Argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash_now(password: &str) -> String {
    let mut salt = [0_u8; 16];
    rand::rng().fill_bytes(&mut salt);
    let salt = SaltString::encode_b64(&salt).expect("16 bytes are a salt");
    hasher().hash_password(password.as_bytes(), &salt).expect("any password can be hashed").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_verifies_its_password_alone() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let check =
            |password: &str, hash: Option<&str>| passwords.verify(password.to_owned(), hash.map(ToOwned::to_owned));
        assert!(check("correct horse", Some(&hash)).await.unwrap());
        assert!(!check("Correct horse", Some(&hash)).await.unwrap());
        assert!(!check("nobody's password", None).await.unwrap());
        assert!(!check("x", Some("not a hash")).await.unwrap());
    }
}
