//! What is decided: the flags of one environment and the rules they carry.

/// The flags of one environment, all decided for one user before the next.
pub struct Scenario {
    /// `S1`, `S2`, …
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// The flags.
    pub flags: Vec<Flag>,
}

/// A boolean flag.
#[derive(Clone)]
pub struct Flag {
    /// Its key.
    pub key: String,
    /// Its targeting; without any it is on for everybody.
    pub targeting: Option<Targeting>,
}

/// Three rules in order, each of which turns the flag on, then a 50/50 rollout on the user's key.
#[derive(Clone)]
pub struct Targeting {
    /// Rule 1: the country is one of these.
    pub countries: [String; 5],
    /// Rule 2: the plan is this one …
    pub plan: &'static str,
    /// … and the age is above this one.
    pub age: f64,
    /// Rule 3: how the email ends.
    pub email_suffix: String,
}

impl Scenario {
    /// Every scenario that is measured.
    pub fn all() -> [Self; 4] {
        let same = |_| Some(Targeting::common());
        [
            Self::new("S1", "one boolean flag on, no rules", 1, |_| None),
            Self::new("S2", "three rules miss, a 50/50 rollout decides", 1, same),
            Self::new("S3", "100 flags like S2 for one user, per flag", 100, same),
            Self::new("S3d", "as S3, every flag with values of its own", 100, |n| Some(Targeting::distinct(n))),
        ]
    }

    fn new(name: &'static str, title: &'static str, flags: usize, targeting: fn(usize) -> Option<Targeting>) -> Self {
        let flag = |n| Flag { key: format!("checkout-redesign-{n:02}"), targeting: targeting(n) };
        Self { name, title, flags: (0..flags).map(flag).collect() }
    }

    /// The keys of the flags.
    pub fn keys(&self) -> Vec<String> {
        self.flags.iter().map(|flag| flag.key.clone()).collect()
    }
}

impl Targeting {
    /// As most environments have it: the same audiences again and again.
    fn common() -> Self {
        Self {
            countries: ["US", "CA", "GB", "DE", "FR"].map(str::to_owned),
            plan: "pro",
            age: 18.0,
            email_suffix: "@example.com".to_owned(),
        }
    }

    /// Nothing to share between flags but the plan.
    fn distinct(n: usize) -> Self {
        let mut targeting = Self::common();
        targeting.countries[4] = format!("F{n}");
        targeting.age += n as f64 / 1000.0;
        targeting.email_suffix = format!("@{n}.example.com");
        targeting
    }
}
