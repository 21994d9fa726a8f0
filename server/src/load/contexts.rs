//! The contexts that a load generator sends: users with the attributes that the sample rules look at.

use axum::body::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

const COUNTRIES: [&str; 8] = ["IE", "DE", "FR", "US", "GB", "BR", "JP", "IN"];
const PLANS: [&str; 3] = ["free", "pro", "enterprise"];
const DOMAINS: [&str; 3] = ["example.com", "mail.example", "corp.example"];

/// Request bodies of `count` different users, the same ones for the same seed.
pub fn bodies(count: u32, seed: u64) -> Vec<Bytes> {
    contexts(count, seed).map(|context| json!({ "context": context }).to_string().into()).collect()
}

/// The same users as OFREP's clients would send them.
pub fn ofrep_bodies(count: u32, seed: u64) -> Vec<Bytes> {
    let body = |mut context: Value| {
        let members = context.as_object_mut().expect("made here");
        members.remove("kind");
        let key = members.remove("key");
        members.insert("targetingKey".into(), key.unwrap_or_default());
        json!({ "context": context }).to_string().into()
    };
    contexts(count, seed).map(body).collect()
}

fn contexts(count: u32, seed: u64) -> impl Iterator<Item = Value> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(move |number| context(number, &mut random))
}

fn context(number: u32, random: &mut StdRng) -> Value {
    let mut pick = |from: &[&'static str]| from[random.random_range(0..from.len())];
    let (country, plan, domain) = (pick(&COUNTRIES), pick(&PLANS), pick(&DOMAINS));
    json!({
        "kind": "user",
        "key": format!("user-{number:07}-{:08x}", random.random::<u32>()),
        "country": country,
        "plan": plan,
        "email": format!("user-{number}@{domain}"),
        "age": random.random_range(16..80),
        "device": if random.random::<bool>() { "mobile" } else { "desktop" },
    })
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
        assert_eq!(ofrep_bodies(1000, 7).iter().collect::<HashSet<_>>().len(), 1000);
    }
}
