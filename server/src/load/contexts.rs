//! The contexts that a load generator sends: users with the attributes that the sample rules look at.

use axum::body::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

const COUNTRIES: [&str; 8] = ["IE", "DE", "FR", "US", "GB", "BR", "JP", "IN"];
const PLANS: [&str; 3] = ["free", "pro", "enterprise"];
const DOMAINS: [&str; 3] = ["example.com", "mail.example", "corp.example"];

/// Request bodies of `count` different users, the same ones for the same seed.
pub fn bodies(count: u32, seed: u64) -> Vec<Bytes> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|number| body(number, &mut random)).collect()
}

fn body(number: u32, random: &mut StdRng) -> Bytes {
    let mut pick = |from: &[&'static str]| from[random.random_range(0..from.len())];
    let (country, plan, domain) = (pick(&COUNTRIES), pick(&PLANS), pick(&DOMAINS));
    let context = json!({
        "kind": "user",
        "key": format!("user-{number:07}-{:08x}", random.random::<u32>()),
        "country": country,
        "plan": plan,
        "email": format!("user-{number}@{domain}"),
        "age": random.random_range(16..80),
        "device": if random.random::<bool>() { "mobile" } else { "desktop" },
    });
    json!({ "context": context }).to_string().into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn contexts_differ_and_repeat_with_the_seed() {
        let first = bodies(1000, 7);
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), 1000);
        assert_eq!(first, bodies(1000, 7));
    }
}
