//! One schedule: who does what, in which order, as a seed says.

use std::collections::BTreeSet;

use bytes::Bytes;
use flagmint_schemas::batch::BatchHeader;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use crate::aggregators::{Instance, Start, Step};
use crate::checks::{Reader, everything};
use crate::evaluators::{Appended, Evaluator, WINDOW};
use crate::log::{Log, PARTITIONS};
use crate::oracle::Oracle;
use crate::store::{Merge, Store};

const START_US: i64 = 1_767_225_600_000_000;
const STEPS: u32 = 700;
const EVALUATORS: usize = 3;
const INSTANCES: usize = 3;

macro_rules! summary {
    ($($(#[$doc:meta])* $field:ident,)+) => {
        /// What happened, so that it can be seen that it did.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Summary {
            $($(#[$doc])* pub $field: u64,)+
        }

        impl Summary {
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)+
            }

            /// Whether everything that can go wrong did at least once.
            pub fn has_seen_everything(&self) -> bool {
                [$(self.$field),+].iter().all(|count| *count > 0)
            }
        }
    };
}

summary! {
    records,
    decisions,
    duplicate_records,
    parked_records,
    gaps,
    clamped_decisions,
    lost_with_evaluators,
    evaluator_crashes,
    evaluator_pauses,
    goodbyes,
    unacknowledged_appends,
    aggregator_crashes,
    /// With an emission half inserted.
    crashes_within_emissions,
    zombies_resumed,
    rebalances,
    double_ownerships,
    answers_lost,
    partial_inserts,
    stale_commits,
    replays_from_the_beginning,
    new_topics,
    looks,
}

struct World {
    random: StdRng,
    now_us: i64,
    log: Log,
    oracle: Oracle,
    evaluators: Vec<Evaluator>,
    ghosts: Vec<Evaluator>,
    instances: Vec<Instance>,
    store: Store,
    /// Commits on their way.
    commits: Vec<(u64, u32, u64)>,
    reader: Reader,
    summary: Summary,
    is_told: bool,
}

/// Runs a schedule to its end; what is wrong, if anything.
pub fn run(seed: u64, merge: Merge, is_told: bool) -> Result<Summary, String> {
    let mut world = World::new(seed, merge, is_told);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.end()?;
    Ok(world.summary)
}

impl World {
    fn new(seed: u64, merge: Merge, is_told: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        // Each third installation has an evaluator whose clock is ten minutes off.
        let skew_us = [600_000_000, -600_000_000, 0, 0, 0, 0][random.random_range(0..6)];
        let evaluators =
            (0..EVALUATORS).map(|at| Evaluator::new(&mut random, if at == 0 { skew_us } else { 0 })).collect();
        let mut world = Self {
            random,
            now_us: START_US,
            log: Log::new(),
            oracle: Oracle::default(),
            evaluators,
            ghosts: vec![],
            instances: (0..INSTANCES).map(|_| Instance::started()).collect(),
            store: Store::new(merge),
            commits: vec![],
            reader: Reader::default(),
            summary: Summary::default(),
            is_told,
        };
        world.rebalance();
        world
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>12.3} s  {}", (self.now_us - START_US) as f64 / 1e6, what());
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.pass_time();
        match self.random.random_range(0..1000) {
            0..250 => self.decide(),
            250..350 => self.flush(),
            350..550 => self.append(),
            550..850 => self.aggregate(),
            850..880 => self.look()?,
            880..900 => self.repeat_a_record(),
            900..908 => self.poison(),
            908..914 => self.crash_evaluator(),
            914..920 => self.pause_evaluator(),
            920..926 => self.say_goodbye(),
            926..941 => self.kill(),
            941..956 => self.start_again(),
            956..966 => self.pause(),
            966..978 => self.resume(),
            978..986 => self.rebalance(),
            986..990 => self.own_twice(),
            990..997 => self.commit(),
            997..999 => self.replay(),
            _ => self.recreate_topic()?,
        }
        Ok(())
    }

    fn pass_time(&mut self) {
        self.now_us += match self.random.random_range(0..400) {
            0 => self.random.random_range(10_000_000..90_000_000),
            1..10 => self.random.random_range(1_000_000..4_000_000),
            _ => self.random.random_range(0..120_000),
        };
        let writers = self.evaluators.iter().chain(&self.ghosts);
        writers.for_each(|writer| writer.note_silence(self.now_us, &mut self.oracle));
    }

    fn evaluator(&mut self) -> Option<usize> {
        let now_us = self.now_us;
        let awake = (0..self.evaluators.len()).filter(|at| self.evaluators[*at].paused_until_us <= now_us);
        awake.choose(&mut self.random)
    }

    fn decide(&mut self) {
        let Some(at) = self.evaluator() else { return };
        self.evaluators[at].decide(&mut self.random, self.now_us, &mut self.oracle);
    }

    fn flush(&mut self) {
        let Some(at) = self.evaluator() else { return };
        self.evaluators[at].flush(&mut self.random, self.now_us, false, &mut self.oracle);
    }

    fn append(&mut self) {
        let partition = self.random.random_range(0..PARTITIONS);
        let is_ghost = !self.ghosts.is_empty() && self.random.random();
        let writer = if is_ghost {
            let at = self.random.random_range(0..self.ghosts.len());
            &mut self.ghosts[at]
        } else {
            let Some(at) = self.evaluator() else { return };
            &mut self.evaluators[at]
        };
        for _ in 0..self.random.random_range(1..4) {
            let appended = writer.append(&mut self.random, self.now_us, partition, &mut self.log, &mut self.oracle);
            self.summary.unacknowledged_appends += u64::from(appended == Appended::Unacknowledged);
        }
        self.ghosts.retain(|ghost| !ghost.is_empty());
    }

    fn repeat_a_record(&mut self) {
        let partition = self.random.random_range(0..PARTITIONS);
        let records = &self.log.partitions[partition as usize].records;
        let Some(record) = records.iter().rev().take(WINDOW).choose(&mut self.random) else { return };
        let (header, payload) = (record.header.clone(), record.payload.clone());
        let name = BatchHeader::decode(&header).ok();
        let at = self.log.append(&mut self.random, self.now_us, partition, header, payload);
        self.oracle.note_record(&self.log, partition, at);
        if let Some(name) = name {
            self.oracle.log.duplicate_records += 1;
            self.oracle.log.duplicate_decisions += i128::from(name.decisions);
            self.oracle.log.produced += i128::from(name.decisions);
        } else {
            self.oracle.note_poison(&self.log, partition, at, 0);
        }
    }

    fn poison(&mut self) {
        let partition = self.random.random_range(0..PARTITIONS);
        if self.random.random() {
            let (header, payload) = (Bytes::from_static(b"no header"), Bytes::from_static(b"nothing"));
            let at = self.log.append(&mut self.random, self.now_us, partition, header, payload);
            self.oracle.note_record(&self.log, partition, at);
            self.oracle.note_poison(&self.log, partition, at, 0);
        } else if let Some(at) = self.evaluator() {
            self.evaluators[at].poison(partition);
        }
    }

    fn crash_evaluator(&mut self) {
        let at = self.random.random_range(0..EVALUATORS);
        let skew_us = self.evaluators[at].skew_us;
        let new = Evaluator::new(&mut self.random, skew_us);
        let old = std::mem::replace(&mut self.evaluators[at], new);
        self.ghosts.extend(old.crash(self.random.random(), &mut self.oracle));
        self.summary.evaluator_crashes += 1;
        self.tell(|| format!("evaluator {at} crashes"));
    }

    fn pause_evaluator(&mut self) {
        let at = self.random.random_range(0..EVALUATORS);
        self.evaluators[at].paused_until_us = self.now_us + self.random.random_range(1_000_000..20_000_000);
        self.summary.evaluator_pauses += 1;
    }

    /// A rolling restart: the old process appends all it has and ends; what it has not appended yet follows without it.
    fn say_goodbye(&mut self) {
        let Some(at) = self.evaluator() else { return };
        let skew_us = self.evaluators[at].skew_us;
        let new = Evaluator::new(&mut self.random, skew_us);
        let mut old = std::mem::replace(&mut self.evaluators[at], new);
        old.flush(&mut self.random, self.now_us, true, &mut self.oracle);
        old.is_ghost = true;
        self.ghosts.push(old);
        self.summary.goodbyes += 1;
    }

    fn aggregate(&mut self) {
        let able = (0..INSTANCES).filter(|at| self.instances[*at].can_act());
        let Some(at) = able.choose(&mut self.random) else { return };
        for _ in 0..self.random.random_range(1..6) {
            self.step_of(at);
        }
    }

    fn step_of(&mut self, at: usize) {
        self.commits.extend(self.instances[at].to_commit());
        let step = self.instances[at].step(&mut self.random, &self.log, &mut self.store);
        match step {
            Step::AnswerLost(_) => self.summary.answers_lost += 1,
            Step::Failed(_) => self.summary.partial_inserts += 1,
            _ => {}
        }
        if step != Step::Nothing {
            self.tell(|| format!("aggregator {at}: {step:?}"));
        }
    }

    fn kill(&mut self) {
        let at = self.random.random_range(0..INSTANCES);
        self.summary.aggregator_crashes += 1;
        self.summary.crashes_within_emissions += u64::from(self.instances[at].is_within_emission());
        self.instances[at].kill();
        self.tell(|| format!("aggregator {at} is killed"));
        if self.random.random() {
            self.rebalance();
        }
    }

    fn start_again(&mut self) {
        let at = self.random.random_range(0..INSTANCES);
        if !self.instances[at].is_alive {
            self.instances[at].is_alive = true;
            self.rebalance();
        }
    }

    fn pause(&mut self) {
        let at = self.random.random_range(0..INSTANCES);
        if self.instances[at].can_act() {
            self.instances[at].is_paused = true;
            self.tell(|| format!("aggregator {at} is stopped"));
            if self.random.random() {
                self.rebalance();
            }
        }
    }

    /// A zombie: it goes on where it stopped, whoever owns its partitions now.
    fn resume(&mut self) {
        let Some(at) = (0..INSTANCES).filter(|at| self.instances[*at].is_paused).choose(&mut self.random) else {
            return;
        };
        self.instances[at].is_paused = false;
        self.summary.zombies_resumed += 1;
        self.tell(|| format!("aggregator {at} goes on"));
    }

    /// Gives each partition to one of those who answer; who does not answer keeps what it has.
    fn rebalance(&mut self) {
        self.summary.rebalances += 1;
        for partition in 0..PARTITIONS {
            let able: Vec<usize> = (0..INSTANCES).filter(|at| self.instances[*at].can_act()).collect();
            let Some(&owner) = able.iter().choose(&mut self.random) else { return };
            for at in able.into_iter().filter(|at| *at != owner) {
                self.instances[at].give_up(partition);
            }
            if !self.instances[owner].owns(partition) {
                let start = if self.random.random() { Start::Stored } else { Start::Committed };
                self.take(owner, partition, start);
            }
        }
    }

    fn take(&mut self, at: usize, partition: u32, start: Start) {
        self.instances[at].take(partition, start, &self.log, &self.store);
        self.tell(|| format!("aggregator {at} takes partition {partition}, {start:?}"));
    }

    fn own_twice(&mut self) {
        let partition = self.random.random_range(0..PARTITIONS);
        let others = (0..INSTANCES).filter(|at| self.instances[*at].can_act() && !self.instances[*at].owns(partition));
        let Some(at) = others.choose(&mut self.random) else { return };
        self.take(at, partition, Start::Stored);
        self.summary.double_ownerships += 1;
    }

    /// A commit arrives, in whatever order, or is lost.
    fn commit(&mut self) {
        if self.commits.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.commits.len());
        let (epoch, partition, chunk) = self.commits.swap_remove(at);
        if self.random.random_ratio(3, 4) {
            let before = self.store.commits.insert((epoch, partition), chunk);
            self.summary.stale_commits += u64::from(before.is_some_and(|before| before > chunk));
        }
    }

    fn replay(&mut self) {
        let able = (0..INSTANCES).filter(|at| self.instances[*at].can_act());
        let Some(at) = able.choose(&mut self.random) else { return };
        let partition = self.random.random_range(0..PARTITIONS);
        self.take(at, partition, Start::Beginning);
        self.summary.replays_from_the_beginning += 1;
    }

    /// Deleting a topic whose records are not folded loses them, so it is done when all are.
    fn recreate_topic(&mut self) -> Result<(), String> {
        if self.random.random_ratio(3, 4) {
            return Ok(());
        }
        self.drain()?;
        self.log.recreate();
        for writer in self.evaluators.iter_mut().chain(&mut self.ghosts) {
            writer.note_new_topic(&mut self.oracle);
        }
        self.summary.new_topics += 1;
        self.tell(|| "the topic is made anew".to_owned());
        self.rebalance();
        Ok(())
    }

    fn look(&mut self) -> Result<(), String> {
        self.summary.looks += 1;
        self.reader.look(self.log.epoch, &mut self.store, &self.oracle)
    }

    /// A new instance folds everything that the log has, beside all others.
    fn drain(&mut self) -> Result<(), String> {
        let mut instance = Instance::started();
        for partition in 0..PARTITIONS {
            let start = [Start::Stored, Start::Committed, Start::Beginning][self.random.random_range(0..3)];
            instance.take(partition, start, &self.log, &self.store);
        }
        self.instances.push(instance);
        let last = self.instances.len() - 1;
        while !self.instances[last].has_read_all(&self.log) || self.instances[last].is_within_emission() {
            self.step_of(last);
        }
        self.instances[last].emit(&mut self.random);
        while self.instances[last].is_within_emission() {
            self.step_of(last);
        }
        let done = self.instances.pop().expect("it was just pushed");
        self.instances[0].dead_letters.extend(done.dead_letters);
        self.look()
    }

    /// Evaluators append all they have; everything is folded; zombies come back once more; then all must be right.
    fn end(&mut self) -> Result<(), String> {
        for at in 0..EVALUATORS {
            self.now_us += 10_000;
            self.evaluators[at].flush(&mut self.random, self.now_us, true, &mut self.oracle);
        }
        self.ghosts.append(&mut self.evaluators);
        for mut writer in std::mem::take(&mut self.ghosts) {
            while !writer.is_empty() {
                let partition = self.random.random_range(0..PARTITIONS);
                writer.append(&mut self.random, self.now_us, partition, &mut self.log, &mut self.oracle);
            }
        }
        self.drain()?;
        self.instances.iter_mut().for_each(|instance| instance.is_paused = false);
        for _ in 0..60 {
            self.aggregate();
        }
        self.look()?;
        let letters: BTreeSet<_> = self.instances.iter().flat_map(|it| it.dead_letters.iter().copied()).collect();
        everything(&self.store, &self.oracle, &letters)?;
        self.summarise();
        Ok(())
    }

    fn summarise(&mut self) {
        let totals = self.oracle.totals();
        let count = |number: i128| u64::try_from(number).expect("a count");
        self.summary.records = count(totals.records);
        self.summary.decisions = count(totals.counted);
        self.summary.duplicate_records = count(totals.duplicate_records);
        self.summary.parked_records = count(totals.parked_records);
        self.summary.gaps = count(totals.gaps);
        self.summary.clamped_decisions = count(totals.clamped);
        let lost = self.oracle.batches.iter().filter(|batch| batch.is_lost);
        self.summary.lost_with_evaluators = lost.map(|batch| u64::from(batch.decisions())).sum();
    }
}
