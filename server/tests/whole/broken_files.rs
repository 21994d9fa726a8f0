//! Data directories that something has happened to: each is refused, or asked of the user, with the file named; none is "repaired"
//! by forgetting what it held.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Person, Place, Shop, flagmint, machine};

/// Cells that are final are written within this; see the server's `MAINTENANCE_INTERVAL`.
const MAINTENANCE: Duration = Duration::from_secs(12);

/// Sends so many different contexts that a chunk is full: then its cells are final and go into Parquet files.
fn write_rollups(url: &str, key: &str, rollups: &Path) {
    let is_parquet = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "parquet"))
    };
    // Every run begins with the same contexts, so a slow machine needs a longer one, not more.
    for seconds in [8, 16, 32, 64] {
        let duration = format!("{seconds}s");
        let mut load = Command::new(env!("CARGO_BIN_EXE_flagmint"));
        load.args(["load", "--url", url, "--key", key, "--connections", "16", "--contexts", "250000"]);
        load.args(["--duration", &duration]).stdout(Stdio::null());
        assert!(load.status().expect("the load runs").success());
        let deadline = Instant::now() + MAINTENANCE;
        while Instant::now() < deadline {
            if std::fs::read_dir(rollups).expect("the rollups").any(is_parquet) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    panic!("no chunk became full");
}

/// The first file below a directory whose name has this ending, by name.
fn find(directory: &Path, ending: &str) -> PathBuf {
    let mut pending = vec![directory.to_owned()];
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => pending.push(path),
                false if path.to_string_lossy().ends_with(ending) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found.into_iter().next().unwrap_or_else(|| panic!("no {ending} in {}", directory.display()))
}

fn flip_byte(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 0x55;
}

fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    assert!(text.contains(from), "{text}");
    *bytes = text.replacen(from, to, 1).into_bytes();
}

/// How a start ends that must not succeed: its exit status and what it says.
fn refused(data_dir: &Path, database: &str) -> (Option<i32>, String) {
    let mut command: Command = flagmint(data_dir);
    command.args(["--postgres", database]).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().expect("flagmint runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_damaged_file_is_named() {
    let _alone = machine().await;
    let place = Place::new().await;
    let data_dir = place.data_dir();
    let mut server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    shop.wait_until_served(&person.http, &server.url).await;
    write_rollups(&server.url, &shop.key, &data_dir.join("rollups"));
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));

    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, &str, Damage, &str); 6] = [
        ("log", ".seg", |bytes| flip_byte(bytes, 300), "damaged at byte"),
        ("log", "FORMAT", |bytes| replace(bytes, "flagmint-log 1", "flagmint-log 7"), "version 7"),
        ("log", "FORMAT", |bytes| bytes.truncate(3), "FORMAT"),
        ("rollups", "MANIFEST", |bytes| flip_byte(bytes, 60), "MANIFEST"),
        ("rollups", "MANIFEST", |bytes| replace(bytes, " 2 ", " 7 "), "format 7"),
        ("rollups", ".parquet", |bytes| bytes.truncate(40), ".parquet"),
    ];
    for (folder, ending, damage, expected) in cases {
        let file = find(&data_dir.join(folder), ending);
        let sound = std::fs::read(&file).expect("a file");
        let mut bytes = sound.clone();
        damage(&mut bytes);
        std::fs::write(&file, &bytes).expect("a damaged file");
        let (code, text) = refused(&data_dir, &place.database);
        assert_eq!(code, Some(3), "{}: {text}", file.display());
        assert!(text.contains(expected) && text.contains(&*data_dir.to_string_lossy()), "{}: {text}", file.display());
        std::fs::write(&file, &sound).expect("the sound file");
    }

    // With its files as they were, everything is there again.
    let mut server = place.start();
    let person = Person::sign_in(&server.url).await;
    let answer = person.get(&format!("/flags/{}/metrics", shop.flag_id)).await;
    assert!(answer["data"]["totals"]["evaluations"].as_u64() > Some(0), "{answer}");
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}
