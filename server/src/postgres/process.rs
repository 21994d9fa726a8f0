//! One PostgreSQL server process: how it is started, when it is ready, how it is stopped.
//!
//! It must never outlive us. The kernel sends it SIGINT (a fast shutdown) when the *thread* that started it ends, whatever ends it,
//! `kill -9` included. So one thread starts the server, stays for as long as it runs, and stops it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::process::{Pid, Signal, geteuid, getpid, getppid, kill_process, set_parent_process_death_signal};

use super::home::{Account, Home};
use super::limits::{LOG_TAIL_BYTES, POLL_INTERVAL, PREDECESSOR_TIMEOUT, START_TIMEOUT, STOP_TIMEOUT};
use super::{IoContext, PostgresError};
use crate::limits::BACKGROUND_NICENESS;
use crate::runtimes::step_back;

/// Small, since it serves one program; nothing that is for replication or parallel queries. fsync stays on. Time is UTC whatever the
/// machine says, and dynamic shared memory are files of the data directory, because containers have a /dev/shm of 64 MB or none.
const SETTINGS: [&str; 16] = [
    "listen_addresses=",
    "shared_buffers=16MB",
    "max_connections=20",
    "max_worker_processes=0",
    "max_parallel_workers=0",
    "max_wal_size=128MB",
    "min_wal_size=32MB",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_logical_replication_workers=0",
    "jit=off",
    "autovacuum_max_workers=1",
    "dynamic_shared_memory_type=mmap",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_destination=stderr",
];

/// A running server, stopped when dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) pid: u32,
    /// Dropped to ask for the stop.
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<io::Result<ExitStatus>>>,
}

impl Server {
    /// Starts a server and waits until it accepts connections, trying again while a killed predecessor is still leaving.
    pub(super) fn start(program: &Path, home: &Home, socket_dir: &Path) -> Result<Server, PostgresError> {
        let launch = Launch {
            program: program.to_owned(),
            account: home.account,
            data: home.data(),
            socket_dir: socket_dir.to_owned(),
            log: home.log(),
        };
        let (report, reported) = mpsc::channel();
        let (stop, stopped) = mpsc::channel();
        let keeper = thread::Builder::new()
            .name("postgres-keeper".to_owned())
            .spawn(move || launch.keep(&report, &stopped))
            .during("start the thread for", program)?;
        let started = reported.recv().expect("the keeper reports before it ends");
        let keeper = Some(keeper);
        started.map(|pid| Server { pid, stop: Some(stop), keeper })
    }

    /// Stops the server and waits for its end; at once if it has been stopped.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        drop(self.stop.take());
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        let status = keeper.join().expect("the keeper does not panic")?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("PostgreSQL ended with {status}"))) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the embedded PostgreSQL did not stop cleanly; it will recover at the next start");
        }
    }
}

/// A command in an empty environment, as the given user, in `/`: nothing of ours leaks into it, and no directory is kept busy.
pub(super) fn command(program: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir("/").stdin(Stdio::null());
    if let Some(Account { uid, gid }) = account {
        // The standard library drops the supplementary groups as well.
        command.uid(uid).gid(gid);
    }
    command
}

/// All that the keeper's thread needs.
struct Launch {
    program: PathBuf,
    account: Option<Account>,
    data: PathBuf,
    socket_dir: PathBuf,
    log: PathBuf,
}

impl Launch {
    /// The keeper's whole life: start, report, wait until asked to stop, stop.
    fn keep(&self, report: &Sender<Result<u32, PostgresError>>, stopped: &Receiver<()>) -> io::Result<ExitStatus> {
        let child = match self.start_when_free() {
            Ok(child) => child,
            Err(error) => {
                // A start that was given up on has nobody left to tell.
                let _ = report.send(Err(error));
                return Ok(ExitStatus::default());
            }
        };
        let _ = report.send(Ok(child.id()));
        // Nothing is ever sent: this ends when the other side is dropped.
        let _ = stopped.recv();
        stop(child)
    }

    /// We hold the home's lock, so a server that holds the data directory is what a killed predecessor left: it is about to end.
    fn start_when_free(&self) -> Result<Child, PostgresError> {
        let deadline = Instant::now() + PREDECESSOR_TIMEOUT;
        loop {
            let result = self.start();
            let blocked = matches!(&result, Err(PostgresError::Start { log, .. }) if is_predecessor(log));
            if !blocked || Instant::now() > deadline {
                return result;
            }
            self.remove_stale_pid_file()?;
            thread::sleep(POLL_INTERVAL * 10);
        }
    }

    /// PostgreSQL takes any process that has the pid of the killed server for that server: a zombie, or after the restart of a
    /// container, where pids begin at 1 again, whatever has it now. A server and its children have the data directory as their
    /// working directory, so where no process has, the file is only a remnant.
    fn remove_stale_pid_file(&self) -> Result<(), PostgresError> {
        let user = self.account.map_or_else(|| geteuid().as_raw(), |account| account.uid);
        let processes = fs::read_dir("/proc").during("read", Path::new("/proc"))?.flatten();
        let in_use = |process: &Path| match fs::read_link(process.join("cwd")) {
            Ok(dir) => dir == self.data,
            // It may be one of them: in a container root may not look at other users' processes.
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        };
        let mut suspects = processes.filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == user));
        if suspects.any(|entry| in_use(&entry.path())) {
            return Ok(());
        }
        let file = self.data.join("postmaster.pid");
        match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.during("remove", &file),
        }
    }

    fn start(&self) -> Result<Child, PostgresError> {
        // Failed statements are in it: not for everybody's eyes.
        let mut log =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log).during("open", &self.log)?;
        let log_start = log.seek(SeekFrom::End(0)).during("read", &self.log)?;
        let mut child = self.command(log).spawn().during("run", &self.program)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if is_ready(&self.data, child.id()) {
                return Ok(child);
            }
            if let Some(status) = child.try_wait().during("wait for", &self.program)? {
                return Err(PostgresError::Start { reason: status.to_string(), log: log_tail(&self.log, log_start) });
            }
            if Instant::now() > deadline {
                stop(child).during("stop", &self.program)?;
                let reason = format!("not ready after {} s", START_TIMEOUT.as_secs());
                return Err(PostgresError::Start { reason, log: log_tail(&self.log, log_start) });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn command(&self, log: File) -> Command {
        let mut command = command(&self.program, self.account);
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.socket_dir);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        // A group of its own: Ctrl-C is for us, and we stop it when we no longer need it.
        command.stdout(Stdio::null()).stderr(log).process_group(0);
        let us = getpid();
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; these are plain system calls. They come after the
        // change of user, which would clear the death signal.
        unsafe {
            command.pre_exec(move || {
                step_back(BACKGROUND_NICENESS);
                set_parent_process_death_signal(Some(Signal::INT))?;
                // We may have died before that call: then no signal will come.
                if getppid() == Some(us) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
            });
        }
        command
    }
}

/// `postmaster.pid` names the server in line 1 and its state in line 8.
fn is_ready(data: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines();
    lines.next() == Some(&pid.to_string()) && lines.nth(6).is_some_and(|state| state.trim() == "ready")
}

/// The two ways in which PostgreSQL says that an earlier server, or a process of it, is still there.
fn is_predecessor(log: &str) -> bool {
    log.contains("lock file \"postmaster.pid\" already exists") || log.contains("pre-existing shared memory block")
}

/// A fast shutdown: open transactions are rolled back, a checkpoint is written. An immediate one if that takes too long.
fn stop(mut child: Child) -> io::Result<ExitStatus> {
    // It has not been waited for, so its pid cannot be another's; if it has ended, the signal goes nowhere.
    let pid = Pid::from_child(&child);
    let _ = kill_process(pid, Signal::INT);
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(POLL_INTERVAL);
    }
    let _ = kill_process(pid, Signal::QUIT);
    child.wait()
}

/// The end of what was written since `start`.
fn log_tail(log: &Path, start: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default()
}
