//! The embedded PostgreSQL, started for real: from the bundle where this build has one, from an installed server where there is one.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use super::*;

/// Set for the copy of this test binary that [`a_killed_program_takes_its_server_along_and_loses_nothing`] kills.
const CHILD_DATA_DIR: &str = "FLAGMINT_TEST_POSTGRES_CHILD";

/// A data directory that PostgreSQL's user can reach, as the tests may run as root.
fn data_dir() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o711)).tempdir().unwrap()
}

fn open(data_dir: &Path) -> Home {
    Home::open(data_dir, &data_dir.join("state")).unwrap()
}

/// Runs statements and returns the number that the last one, a query, answers.
fn sql(url: &str, statements: &[&str]) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let (query, before) = statements.split_last().unwrap();
        for statement in before {
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
    })
}

fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Starts, writes, stops and starts again with this choice of binaries; skips none: without any the start is the error to check.
fn starts_and_keeps_data(bundle: Option<&Bundle>) {
    let dir = data_dir();
    let postgres = match Postgres::start_in(open(dir.path()), bundle) {
        Ok(postgres) => postgres,
        Err(error @ PostgresError::NoBinaries { .. }) if bundle.is_none() => {
            assert!(error.to_string().contains("make run"), "{error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(sql(postgres.url(), &["create table t (a bigint)", "insert into t values (42)", "select a from t"]), 42);
    let settings =
        "select count(*) from pg_settings where (name, setting) in (('fsync', 'on'), ('data_checksums', 'on'),
        ('listen_addresses', ''), ('TimeZone', 'UTC'), ('server_encoding', 'UTF8'), ('full_page_writes', 'on'))";
    assert_eq!(sql(postgres.url(), &[settings]), 6);
    let pid = postgres.pid();
    postgres.stop().unwrap();
    assert!(!is_running(pid), "stop waits for the end");

    let postgres = Postgres::start_in(open(dir.path()), bundle).unwrap();
    assert_eq!(sql(postgres.url(), &["select a from t"]), 42);
    let pid = postgres.pid();
    drop(postgres);
    assert!(!is_running(pid), "dropping stops as well");
}

#[test]
fn an_installed_server_starts_and_keeps_data() {
    starts_and_keeps_data(None);
}

#[test]
fn the_bundled_server_starts_and_keeps_data() {
    let Some(bundle) = Bundle::embedded() else {
        println!("this build has no bundle: run `make setup` first to test it");
        return;
    };
    starts_and_keeps_data(Some(&bundle));
}

/// Not a test by itself: the program that is killed below.
#[test]
fn child_serves_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DATA_DIR) else { return };
    let postgres = Postgres::start(Path::new(&dir)).unwrap();
    println!("\npid {}\nurl {}", postgres.pid(), postgres.url());
    loop {
        std::thread::park();
    }
}

/// Starts [`child_serves_until_killed`] and returns it with the pid and URL of its server.
fn spawn_child(data_dir: &Path) -> (Child, u32, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "postgres::tests::child_serves_until_killed", "--nocapture"])
        .env(CHILD_DATA_DIR, data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (mut pid, mut url) = (None, None);
    for line in lines {
        pid = pid.or_else(|| line.strip_prefix("pid ").map(|pid| pid.parse().unwrap()));
        url = url.or_else(|| line.strip_prefix("url ").map(str::to_owned));
        if url.is_some() {
            break;
        }
    }
    (child, pid.expect("the child started its server"), url.expect("the child started its server"))
}

#[test]
fn a_killed_program_takes_its_server_along_and_loses_nothing() {
    let dir = data_dir();
    for round in 1..=5 {
        let (mut child, pid, url) = spawn_child(dir.path());
        let statements =
            ["create table if not exists t (a bigint)", "insert into t values (1)", "select count(*) from t"];
        assert_eq!(sql(&url, &statements), round);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        // Every second time the next start comes while the server is still leaving.
        let deadline = Instant::now() + Duration::from_secs(20);
        while round % 2 == 0 && is_running(pid) {
            assert!(Instant::now() < deadline, "the server outlives its program");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let postgres = Postgres::start(dir.path()).unwrap();
    assert_eq!(sql(postgres.url(), &["select count(*) from t"]), 5);
}

#[test]
fn a_killed_server_recovers_at_the_next_start() {
    let dir = data_dir();
    let postgres = Postgres::start(dir.path()).unwrap();
    assert_eq!(sql(postgres.url(), &["create table t (a bigint)", "insert into t values (7)", "select a from t"]), 7);
    let pid = rustix::process::Pid::from_raw(postgres.pid().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    postgres.stop().unwrap_err();
    let postgres = Postgres::start(dir.path()).unwrap();
    assert_eq!(sql(postgres.url(), &["select a from t"]), 7);
}

#[test]
fn a_pid_that_is_another_process_now_is_no_obstacle() {
    let dir = data_dir();
    drop(Postgres::start(dir.path()).unwrap());
    let home = open(dir.path());
    let mut stranger = process::command(Path::new("/bin/sleep"), home.account).arg("60").spawn().unwrap();
    let pid_file = home.data().join("postmaster.pid");
    let text = format!("{}\n{}\n1\n5432\n/nowhere\n\n\nready\n", stranger.id(), home.data().display());
    fs::write(&pid_file, text).unwrap();
    fs::set_permissions(&pid_file, Permissions::from_mode(0o644)).unwrap();
    let postgres = Postgres::start_in(home, Bundle::embedded().as_ref());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(sql(postgres.unwrap().url(), &["select 1::bigint"]), 1);
}

#[test]
fn a_second_program_is_refused() {
    let dir = data_dir();
    let _postgres = Postgres::start(dir.path()).unwrap();
    assert!(matches!(Postgres::start(dir.path()), Err(PostgresError::Busy { .. })));
}

#[test]
fn long_and_odd_paths_work() {
    let dir = data_dir();
    for name in ["x".repeat(120), "with space, comma & 'quote'?".to_owned()] {
        let postgres = Postgres::start(&dir.path().join(name)).unwrap();
        assert_eq!(sql(postgres.url(), &["select 1::bigint"]), 1);
        assert!(postgres.url().contains("/tmp/flagmint-"), "{}", postgres.url());
    }
}

#[test]
fn a_data_directory_of_another_version_is_refused() {
    let dir = data_dir();
    let home = open(dir.path());
    home.make_private_dir(&home.data()).unwrap();
    fs::write(home.data().join("PG_VERSION"), "9\n").unwrap();
    let error = Postgres::start_in(home, Bundle::embedded().as_ref()).unwrap_err();
    assert!(matches!(error, PostgresError::WrongMajor { wanted: 9, .. }), "{error}");
}

#[test]
fn the_servers_own_words_are_in_the_error() {
    let dir = data_dir();
    drop(Postgres::start(dir.path()).unwrap());
    fs::write(dir.path().join("postgres/data/postgresql.conf"), "no_such_setting = 1\n").unwrap();
    let error = Postgres::start(dir.path()).unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
}

#[test]
fn an_unfinished_first_start_is_begun_again() {
    let dir = data_dir();
    let home = open(dir.path());
    fs::create_dir_all(home.dir.join("new/template/half")).unwrap();
    let postgres = Postgres::start_in(home, Bundle::embedded().as_ref()).unwrap();
    assert_eq!(sql(postgres.url(), &["select 1::bigint"]), 1);
}

#[test]
fn as_root_a_closed_place_is_left_for_an_open_one() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let open = || Home::open(&closed.join("data"), &dir.path().join("state")).unwrap();
    let home = open();
    assert!(home.dir.starts_with(dir.path().join("state")), "{}", home.dir.display());
    let first = home.dir.clone();
    let postgres = Postgres::start_in(home, Bundle::embedded().as_ref()).unwrap();
    assert_eq!(sql(postgres.url(), &["create table t (a bigint)", "insert into t values (3)", "select a from t"]), 3);
    drop(postgres);

    let home = open();
    assert_eq!(home.dir, first, "it is found again");
    let postgres = Postgres::start_in(home, Bundle::embedded().as_ref()).unwrap();
    assert_eq!(sql(postgres.url(), &["select a from t"]), 3);
    drop(postgres);

    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    let error = Home::open(&closed.join("data"), &dir.path().join("state")).unwrap_err();
    let PostgresError::Unreachable { closed, .. } = error else { panic!("{error}") };
    assert_eq!(closed, dir.path().canonicalize().unwrap(), "the error names what to open");
}

#[test]
fn as_root_a_backup_restored_without_owners_starts() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    drop(Postgres::start(dir.path()).unwrap());
    let home = dir.path().join("postgres");
    let backup = Command::new("cp")
        .args(["-r", "--no-preserve=ownership"])
        .args([home.join("data"), home.join("copy")])
        .status();
    assert!(backup.unwrap().success());
    fs::remove_dir_all(home.join("data")).unwrap();
    fs::rename(home.join("copy"), home.join("data")).unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    assert_eq!(sql(postgres.url(), &["select 1::bigint"]), 1);
}

#[test]
fn as_root_a_home_of_somebody_else_is_refused() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    drop(open(dir.path()));
    chown(dir.path().join("postgres"), Some(12345), None).unwrap();
    let error = Home::open(dir.path(), &dir.path().join("state")).unwrap_err();
    assert!(matches!(error, PostgresError::Foreign { owner: 12345, .. }), "{error}");
}

#[test]
fn a_link_in_place_of_the_home_is_refused() {
    let dir = data_dir();
    std::os::unix::fs::symlink("/etc", dir.path().join("postgres")).unwrap();
    Home::open(dir.path(), &dir.path().join("state")).unwrap_err();
}
