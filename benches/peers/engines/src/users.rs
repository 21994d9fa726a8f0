//! The users every engine is asked about: a key and six attributes each.
//!
//! They differ in every attribute and miss all three rules, some only at the last condition, so
//! that the rollout decides for each of them.

use crate::scenario::{Scenario, Targeting};

/// The plan of the second rule, which a third of the users have; their age then misses it.
const PLAN: &str = "pro";

/// Enough for the branch predictor to be wrong sometimes, few enough to stay in L2.
const POPULATION: usize = 1024;
/// Chance that a broken rule passes unnoticed is 2^-64, as the rollout is 50/50.
const PROBES: usize = 64;

#[derive(Clone)]
pub struct User {
    pub key: String,
    pub country: String,
    pub plan: String,
    pub age: f64,
    pub email: String,
    pub device: String,
    pub seats: u32,
}

/// The three targeting rules, in order.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    Country,
    PlanAndAge,
    Email,
}

pub fn population() -> Vec<User> {
    (0..POPULATION).map(|n| missing_all_rules(n as u64)).collect()
}

/// Users who hit `rule` and none before it.
pub fn hitting(rule: Rule, targeting: &Targeting) -> Vec<User> {
    (0..PROBES).map(|n| hit(rule, targeting, missing_all_rules(n as u64))).collect()
}

/// Fails if a rule of any scenario would decide for one of `users`.
pub fn assert_no_rule_hits(users: &[User]) {
    for flag in Scenario::all().iter().flat_map(|scenario| &scenario.flags) {
        let Some(targeting) = &flag.targeting else { continue };
        for user in users {
            let hits_country = targeting.countries.contains(&user.country);
            let hits_plan = user.plan == targeting.plan && user.age > targeting.age;
            let hits_email = user.email.ends_with(&targeting.email_suffix);
            assert!(!hits_country && !hits_plan && !hits_email, "{} hits a rule of {}", user.key, flag.key);
        }
    }
}

fn missing_all_rules(n: u64) -> User {
    let a = splitmix64(n.wrapping_mul(2));
    let b = splitmix64(n.wrapping_mul(2) + 1);
    let plan = pick(&["free", "team", PLAN], a);
    let age = if plan == PLAN { 13 + (b >> 8) % 6 } else { 13 + (b >> 8) % 70 };
    let domain = pick(&["example.org", "mail.test", "corp.example.net", "examp1e.com"], b);
    User {
        key: uuid(a, b),
        country: pick(&["NL", "SE", "BR", "JP", "IN", "AU", "ES", "UA"], a >> 16).into(),
        plan: plan.into(),
        age: age as f64,
        email: format!("user.{}@{domain}", a % 100_000),
        device: pick(&["ios", "android", "web", "desktop"], b >> 24).into(),
        seats: (a >> 40) as u32 % 500,
    }
}

fn hit(rule: Rule, targeting: &Targeting, user: User) -> User {
    let seats = user.seats;
    match rule {
        Rule::Country => User { country: targeting.countries[seats as usize % 5].clone(), ..user },
        Rule::PlanAndAge => User { plan: targeting.plan.into(), age: targeting.age + 1.0 + f64::from(seats), ..user },
        Rule::Email => User { email: format!("admin{}", targeting.email_suffix), ..user },
    }
}

fn pick(choices: &[&'static str], bits: u64) -> &'static str {
    choices[(bits % choices.len() as u64) as usize]
}

/// 36 characters in the shape of a UUID, the commonest user key in practice.
fn uuid(a: u64, b: u64) -> String {
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 48 & 0xfff,
        b & 0xffff_ffff_ffff
    )
}

/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
pub fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
