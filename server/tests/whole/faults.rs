//! What the whole binary leans on, taken away under load: Postgres, the disk's space, and the process itself.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::load::{Answered, Load};
use crate::support::{Person, Place, Shop, allow_connections, machine};
use serde_json::{Value, json};

/// How long Postgres stays away.
const OUTAGE: Duration = Duration::from_secs(30);

const SECOND: Duration = Duration::from_secs(1);

/// How late a flush may come on a busy machine: what came late is in the next second's rate, and lost if a kill comes first.
const LATE: Duration = Duration::from_millis(500);

/// Between the requests of a connection, so that the log keeps up on any machine: with 8 connections some 1,000 a second.
const PAUSE: Duration = Duration::from_millis(5);

fn counted(answer: &Value) -> u64 {
    answer["data"]["totals"]["evaluations"].as_u64().expect("a count")
}

/// Evaluations of the shop's flag once everything up to now is counted.
async fn count(person: &Person, shop: &Shop) -> u64 {
    let metrics = format!("/flags/{}/metrics", shop.flag_id);
    let now = person.get(&metrics).await["data"]["meta"]["generated_at"].as_str().expect("a time").to_owned();
    let through =
        |answer: &Value| answer["data"]["meta"]["complete_through"].as_str().unwrap_or_default() > now.as_str();
    counted(&person.get_until(&metrics, through).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evaluation_goes_on_while_postgres_is_away() {
    let _alone = machine().await;
    let place = Place::new().await;
    let server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Arc::new(Shop::open(&person).await);
    let before = shop.wait_until_served(&person.http, &server.url).await;

    allow_connections(&place.database, false).await;
    let away_at = Instant::now();
    let load = Load::start(Arc::clone(&shop), server.url.clone(), PAUSE);
    let ready = format!("{}/health/ready", server.url);
    while away_at.elapsed() < OUTAGE {
        let health = person.http.get(&ready).send().await.expect("an answer");
        assert_eq!(health.status(), 200, "it is still able to evaluate");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let health: Value = person.http.get(&ready).send().await.expect("an answer").json().await.expect("health as JSON");
    assert_eq!(health["configuration"]["state"], "loaded; Postgres is away, changes wait");
    let refused = person.http.get(format!("{}/projects", server.url)).bearer_auth(&person.token).send().await;
    assert_eq!(refused.expect("an answer").status(), 503, "management says that it cannot");
    let Answered { at, unanswered } = load.finish().await;
    assert_eq!(unanswered, 0, "every request was answered with values");
    assert!(at.last().is_some_and(|last| last.duration_since(away_at) >= OUTAGE), "to the end of the outage");

    allow_connections(&place.database, true).await;
    person.get_until("/health/ready", |health| health["configuration"]["state"] == "in step").await;
    let rollouts =
        format!("/projects/{}/flags/{}/environments/{}/rollouts", shop.project_id, shop.flag_id, shop.environment_id);
    person.post(&rollouts, json!({ "strategy": "percentage", "percentage": 0 })).await;
    let deadline = Instant::now() + crate::support::PATIENCE;
    let mut after = 1;
    while shop.evaluate(&person.http, &server.url, "later").await.expect("an answer").1 != json!({ "checkout": false })
    {
        after += 1;
        assert!(Instant::now() < deadline, "a change after the outage does not come into force");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The first requests may have been answered before the flag was in force: those counted nothing.
    let (least, most) = (at.len() as u64 + after + 1, at.len() as u64 + after + before);
    let found = count(&person, &shop).await;
    assert!((least..=most).contains(&found), "{found} counted, {least} to {most} answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing() {
    let _alone = machine().await;
    let place = Place::new().await;
    let mut server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Arc::new(Shop::open(&person).await);
    shop.wait_until_served(&person.http, &server.url).await;
    let before = count(&person, &shop).await;
    let (mut answered, mut unanswered) = (0, 0);
    for _ in 0..3 {
        let load = Load::start(Arc::clone(&shop), server.url.clone(), PAUSE);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let told_at = Instant::now();
        server.signal(libc::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
        assert!(told_at.elapsed() < Duration::from_secs(10), "the drain took {:?}", told_at.elapsed());
        let seen = load.finish().await;
        answered += seen.at.len() as u64;
        unanswered += seen.unanswered;
        server = place.start();
    }
    let person = Person::sign_in(&server.url).await;
    let found = count(&person, &shop).await - before;
    assert!(answered > 100, "{answered} answers are no load");
    assert!(
        (answered..=answered + unanswered).contains(&found),
        "{found} counted, {answered} answered, {unanswered} asked and not answered"
    );
}

/// What a kill takes with it is estimated: no less than nothing, no more than the window's share of the last second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_estimate_of_a_kill_is_within_the_window() {
    let _alone = machine().await;
    let place = Place::new().await;
    let mut server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Arc::new(Shop::open(&person).await);
    shop.wait_until_served(&person.http, &server.url).await;
    let before = count(&person, &shop).await;
    let load = Load::start(Arc::clone(&shop), server.url.clone(), PAUSE);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let killed_at = Instant::now();
    server.signal(libc::SIGKILL);
    let Answered { at, unanswered } = load.finish().await;
    server.wait();
    let server = place.start();
    let person = Person::sign_in(&server.url).await;
    let audit = "/audit/reconciliation";
    let estimated = |answer: &Value| answer["data"]["totals"]["estimated_missing"].as_u64().expect("a count");
    let answer = person.get_until(audit, |answer| estimated(answer) > 0).await;
    let lost = (before + at.len() as u64).saturating_sub(count(&person, &shop).await);
    let seconds = |end: Instant| at.iter().filter(|one| **one <= end && **one + SECOND + LATE > end).count() as u64;
    let busiest = at.iter().map(|end| seconds(*end)).max().expect("answers");
    let bound = (busiest + unanswered).div_ceil(10);
    let in_window = at.iter().filter(|one| **one + LATE >= killed_at).count() as u64;
    println!("{} answered, {lost} lost of {in_window} in the window; estimated {}", at.len(), estimated(&answer));
    assert!(estimated(&answer) <= bound, "more than {bound}: {answer}");
    assert!(lost <= in_window, "{lost} lost, but only {in_window} were answered within the window");
    assert_eq!(answer["data"]["totals"]["in_flight"], 0);
}

/// A file system of its own, with the binary's data in it.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mebibytes: u32) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let size = format!("size={mebibytes}m");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()).output();
        let output = output.map_err(|error| error.to_string())?;
        let refused = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(Self(directory)).ok_or(refused)
    }

    /// Takes all space that is left; the file can be removed.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("a file");
        let block = vec![1; 1 << 20];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        for size in [1 << 16, 1 << 12] {
            while std::io::Write::write_all(&mut file, &block[..size]).is_ok() {}
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.path().display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_for() {
    let disk = match SmallDisk::mount(400) {
        Ok(disk) => disk,
        // Without the right to mount there is no small disk; the log's and the store's own tests use file size limits then.
        Err(reason) => return println!("no small disk: {reason}"),
    };
    std::fs::set_permissions(disk.0.path(), std::fs::Permissions::from_mode(0o711)).expect("permissions");
    let _alone = machine().await;
    let place = Place::new().await;
    let data_dir = disk.0.path().join("data");
    let mut server = place.start_in(&data_dir);
    let person = Person::sign_in(&server.url).await;
    let shop = Arc::new(Shop::open(&person).await);
    shop.wait_until_served(&person.http, &server.url).await;
    let before = count(&person, &shop).await;

    let ballast = disk.fill();
    let load = Load::start(Arc::clone(&shop), server.url.clone(), PAUSE);
    // Long enough for several attempts to write rollups.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let Answered { at, unanswered } = load.finish().await;
    assert_eq!(unanswered, 0, "a full disk stops no answer");
    std::fs::remove_file(ballast).expect("the ballast");
    let found = count(&person, &shop).await - before;
    assert_eq!(found, at.len() as u64, "what was answered on a full disk is counted");
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    let mut server = place.start_in(&data_dir);
    let person = Person::sign_in(&server.url).await;
    assert_eq!(count(&person, &shop).await - before, found, "and is still there after a restart");
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}
