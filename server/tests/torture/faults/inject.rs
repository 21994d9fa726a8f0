//! How each fault is done.

use std::time::{Duration, Instant};

use chrono::Utc;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::{Fault, Harm};
use crate::installation::{AGGREGATORS, Installation};
use crate::kafka_relay::Api;
use crate::processes::LOOK;
use crate::relay::Cut;
use crate::servers;
use crate::slow_disk::SlowDisk;
use crate::support::PATIENCE;
use crate::traffic::Traffic;

/// After which a member of the group that says nothing loses its partitions: the default of `--kafka-session-timeout`.
const SESSION: Duration = Duration::from_secs(6);

/// How far off a clock is: beyond what is taken for late or early.
const CLOCK_OFFSET_S: i64 = 600;

/// An installation while something is done to it.
struct Injection<'a> {
    installation: &'a mut Installation,
    traffic: &'a Traffic,
    random: &'a mut StdRng,
    started: Instant,
    deaths: Vec<(Instant, usize)>,
    /// When it was fresh again, if that was before the fault was over.
    recovery: Option<Duration>,
}

impl Fault {
    /// Does it, and returns when what is evaluated is counted again.
    pub async fn inject(self, installation: &mut Installation, traffic: &Traffic, random: &mut StdRng) -> Harm {
        if installation.is_cluster() {
            installation.wait_until_shared_out().await;
        }
        let started = Instant::now();
        let mut it = Injection { installation, traffic, random, started, deaths: Vec::new(), recovery: None };
        match self {
            Self::Killed => it.kill().await,
            Self::KilledAt(step) => it.kill_at(step).await,
            Self::TakenOver => it.take_over().await,
            Self::Stopped => it.stop().await,
            Self::Terminated => it.terminate().await,
            Self::EvaluatorKilled => it.kill_evaluator().await,
            Self::ClockOff => it.set_clock().await,
            Self::SlowDisk => it.slow_down().await,
            Self::TopicMadeAgain => it.make_topic_again().await,
            _ => it.harm(self).await,
        }
        it.installation.wait_until_fresh().await;
        let recovery = it.recovery.unwrap_or_else(|| it.started.elapsed());
        Harm { deaths: it.deaths, recovery }
    }
}

impl Injection<'_> {
    fn a_while(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(500..3000))
    }

    /// One of the processes that fold.
    fn victim(&mut self) -> usize {
        self.random.random_range(0..AGGREGATORS)
    }

    /// What is evaluated is counted again, whatever is still to be undone.
    async fn is_fresh(&mut self) {
        self.installation.wait_until_fresh().await;
        self.recovery = Some(self.started.elapsed());
    }

    /// A process that folds has ended; where it is everything, it evaluated, too.
    fn note_death(&mut self, at: Instant) {
        self.started = at;
        if !self.installation.is_cluster() {
            self.deaths.push((at, 0));
        }
    }

    async fn kill(&mut self) {
        let victim = self.victim();
        let death = self.installation.aggregator(victim).kill().await;
        self.note_death(death);
        self.installation.aggregator(victim).start().await;
    }

    async fn kill_at(&mut self, step: &str) {
        let victim = self.victim();
        // A partition is opened once, and few chunks end, or partitions go.
        let is_rare = ["after_open", "after_commit", "at_revoke"].contains(&step);
        let pass = if is_rare { 1 } else { self.random.random_range(1..40) };
        let death = self.installation.aggregator(victim).kill().await;
        self.note_death(death);
        self.installation.aggregator(victim).spawn(Some(&format!("{step}:{pass}")));
        match step {
            "after_commit" => {
                self.installation.wait_until_shared_out().await;
                self.installation.cluster().end_chunks().await;
            }
            "at_revoke" => {
                self.installation.wait_until_shared_out().await;
                self.installation.cluster().crowd();
            }
            _ => {}
        }
        let death = self.installation.aggregator(victim).crash().await;
        self.note_death(death);
        self.installation.aggregator(victim).start().await;
        self.is_fresh().await;
        if self.installation.is_cluster() {
            self.installation.cluster().end_guests().await;
        }
    }

    async fn take_over(&mut self) {
        let victim = self.victim();
        self.started = self.installation.aggregator(victim).kill().await;
        // What it handed over last may be counted only now, and is no sign of anybody else.
        self.installation.wait_until_taken_over(victim).await;
        self.is_fresh().await;
        self.installation.aggregator(victim).start().await;
    }

    async fn stop(&mut self) {
        let (victim, a_while) = (self.victim(), self.a_while());
        self.installation.aggregator(victim).signal(libc::SIGSTOP);
        if self.installation.is_cluster() {
            self.installation.wait_until_taken_over(victim).await;
            self.is_fresh().await;
            tokio::time::sleep((SESSION + a_while).saturating_sub(self.started.elapsed())).await;
        } else {
            tokio::time::sleep(a_while).await;
        }
        self.installation.aggregator(victim).signal(libc::SIGCONT);
    }

    async fn terminate(&mut self) {
        let victim = self.victim();
        self.installation.aggregator(victim).terminate().await;
        self.installation.aggregator(victim).start().await;
    }

    async fn kill_evaluator(&mut self) {
        let victim = self.random.random_range(0..self.installation.evaluators.len());
        let evaluator = &mut self.installation.evaluators[victim];
        let death = evaluator.kill().await;
        self.deaths.push((death, victim));
        evaluator.start().await;
    }

    async fn set_clock(&mut self) {
        let (offset_s, a_while) = (CLOCK_OFFSET_S * if self.random.random() { 1 } else { -1 }, self.a_while());
        self.installation.cluster().clock.set(offset_s);
        self.is_fresh().await;
        tokio::time::sleep(a_while).await;
        self.installation.cluster().clock.set(0);
    }

    async fn slow_down(&mut self) {
        let disk = SlowDisk::new(self.installation.directory());
        let a_while = self.a_while();
        if self.installation.is_cluster() {
            servers::restart_clickhouse(Some(&disk)).await;
            self.is_fresh().await;
            tokio::time::sleep(a_while).await;
            servers::restart_clickhouse(None).await;
            return;
        }
        let process = self.installation.aggregator(0);
        process.terminate().await;
        process.besides = disk.settings().to_vec();
        process.start().await;
        process.besides.clear();
        disk.check(process.pid());
        self.is_fresh().await;
        tokio::time::sleep(a_while).await;
        let process = self.installation.aggregator(0);
        process.terminate().await;
        process.start().await;
    }

    async fn make_topic_again(&mut self) {
        let a_while = self.a_while();
        // Everything in the topic is folded before it goes, and nothing is on its way to it: what is may be counted with it and, as
        // its producer has no answer, be given to the new topic, too.
        self.traffic.rest().await;
        let rested = Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let deadline = Instant::now() + PATIENCE;
        while self.installation.counts().await.complete_through <= rested {
            assert!(Instant::now() < deadline, "what was sent is not counted");
            tokio::time::sleep(LOOK).await;
        }
        let old = self.installation.cluster().topic().await;
        self.installation.cluster().delete_topic().await;
        self.traffic.flow();
        tokio::time::sleep(a_while).await;
        self.installation.cluster().make_topic(old).await;
        self.started = Instant::now();
    }

    /// Faults that take no evaluation with them.
    async fn harm(&mut self, fault: Fault) {
        let a_while = self.a_while();
        match fault {
            Fault::Storm => self.installation.cluster().storm().await,
            Fault::TwoOwners => self.installation.cluster().fold_twice(a_while).await,
            Fault::Replayed => self.installation.replay().await,
            Fault::Cut(name) => {
                let (_, cut) = Fault::CUTS.into_iter().find(|(known, _)| *known == name).expect("a known cut");
                self.cut(cut).await;
            }
            Fault::AppendAnswerLost => {
                self.installation.cluster().kafka_relay.lose_answer(Api::PRODUCE);
                self.wait_for_relay().await;
            }
            Fault::CommitAnswerLost => {
                self.installation.cluster().kafka_relay.lose_answer(Api::OFFSET_COMMIT);
                // What is committed are chunks that have ended.
                self.installation.cluster().end_chunks().await;
                self.wait_for_relay().await;
            }
            Fault::ClickHouseKilled => servers::kill(servers::CLICKHOUSE, a_while).await,
            Fault::BrokerKilled => servers::kill_broker(a_while).await,
            Fault::PostgresKilled => servers::kill(servers::POSTGRES, a_while).await,
            _ => unreachable!("{fault} is done elsewhere"),
        }
    }

    async fn cut(&mut self, cut: Cut) {
        let relay = &self.installation.cluster().relay;
        relay.arm(cut);
        let deadline = Instant::now() + PATIENCE;
        while relay.is_armed() {
            assert!(Instant::now() < deadline, "there was no insert to cut");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn wait_for_relay(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.installation.cluster().kafka_relay.is_armed() {
            assert!(Instant::now() < deadline, "there was no answer to lose");
            tokio::time::sleep(LOOK).await;
        }
    }
}
