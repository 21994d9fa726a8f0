//! Addresses that keep sending keys which are none: after so many in a minute they are told when to come back.
//!
//! The table has a fixed size and one word per slot, so that neither memory nor the cost of a refusal grows with how many addresses
//! there are. Addresses that share a slot share its count, which can only hit requests that are refused anyway: a good key is never
//! asked about.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::network;
use crate::http::{BadKey, RateWindow};
use crate::limits::{BAD_KEY_SLOTS, BAD_KEYS_PER_MINUTE};

/// Bad keys of this minute, by address.
pub struct BadKeys {
    /// Keyed at random per process, so that nobody can choose whose slot to share.
    hashing: RandomState,
    slots: Box<[RateWindow]>,
}

impl Default for BadKeys {
    fn default() -> Self {
        Self { hashing: RandomState::new(), slots: (0..BAD_KEY_SLOTS).map(|_| RateWindow::default()).collect() }
    }
}

impl BadKeys {
    /// The reply, unless it refuses one bad key too many from `address`: then one that says so.
    pub fn limited(&self, address: IpAddr, reply: Response) -> Response {
        if reply.extensions().get::<BadKey>().is_none() {
            return reply;
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match self.note(address, now_s) {
            Ok(()) => reply,
            Err(retry_after_s) => refuse(reply, retry_after_s),
        }
    }

    /// Counts one bad key, or says in how many seconds the address may try again.
    fn note(&self, address: IpAddr, now_s: u64) -> Result<(), u64> {
        let slot = self.hashing.hash_one(network(address)) as usize % self.slots.len();
        let verdict = self.slots[slot].admit(now_s, BAD_KEYS_PER_MINUTE);
        if verdict.admitted { Ok(()) } else { Err(verdict.reset_s.saturating_sub(now_s).max(1)) }
    }
}

/// Keeps the headers of the refusal: browsers must be able to read this one too.
fn refuse(reply: Response, retry_after_s: u64) -> Response {
    metrics::counter!("flagmint_requests_refused_total", "reason" => "bad_keys").increment(1);
    let message = format!("Too many requests with bad keys, retry after {retry_after_s} s");
    let body = json!({ "statusCode": 429, "error": "RATE_LIMITED", "message": message, "retryAfter": retry_after_s });
    let mut headers = reply.into_parts().0.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
    (StatusCode::TOO_MANY_REQUESTS, headers, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_keys_are_counted_by_address_and_good_answers_are_not() {
        let table = BadKeys::default();
        let [one, other]: [IpAddr; 2] = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap());
        let bad = || {
            let mut reply = StatusCode::UNAUTHORIZED.into_response();
            reply.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            reply.extensions_mut().insert(BadKey);
            reply
        };
        // The minute may turn once under the test.
        let statuses: Vec<u16> =
            (0..2 * BAD_KEYS_PER_MINUTE + 1).map(|_| table.limited(one, bad()).status().as_u16()).collect();
        assert!(statuses[..BAD_KEYS_PER_MINUTE as usize].iter().all(|status| *status == 401));
        let refused = table.limited(one, bad());
        assert_eq!(statuses.last(), Some(&429));
        assert!(refused.status() == 429 && refused.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(refused.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let others_slot = table.hashing.hash_one(network(other)) as usize % BAD_KEY_SLOTS;
        if others_slot != table.hashing.hash_one(network(one)) as usize % BAD_KEY_SLOTS {
            assert_eq!(table.limited(other, bad()).status(), 401);
        }
        assert_eq!(table.limited(one, StatusCode::UNAUTHORIZED.into_response()).status(), 401, "no key was asked for");
        assert_eq!(table.limited(one, StatusCode::OK.into_response()).status(), 200);
    }
}
