//! The processes under test: started on ports that stay theirs, killed, stopped, and started again.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::PATIENCE;

/// Between two looks at something that is waited for.
pub const LOOK: Duration = Duration::from_millis(20);

/// One process of `flagmint`, running or not.
pub struct Process {
    role: &'static str,
    directory: PathBuf,
    port: u16,
    /// Environment of every start: where the servers are.
    settings: Vec<(&'static str, String)>,
    arguments: Vec<String>,
    /// More environment, of the starts to come.
    pub besides: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Process {
    /// A process that does not run yet; it keeps its data in a directory of its own below `place`.
    pub fn new(role: &'static str, place: &Path, settings: &[(&'static str, String)], arguments: &[String]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let directory = place.join(format!("{role}-{port}"));
        let (settings, arguments) = (settings.to_vec(), arguments.to_vec());
        Self { role, directory, port, settings, arguments, besides: Vec::new(), child: None }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn data_dir(&self) -> &Path {
        &self.directory
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("it runs");
        i32::try_from(child.id()).expect("a pid")
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) {
        self.spawn(None);
        self.wait_until_ready().await;
    }

    pub async fn wait_until_ready(&mut self) {
        self.wait_until(|_| true).await;
    }

    /// Waits until it is ready and what it says of its health is accepted.
    pub async fn wait_until(&mut self, accept: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let (http, url) = (reqwest::Client::new(), format!("{}/health/ready", self.url()));
        loop {
            let answer = http.get(&url).send().await;
            let (is_ready, health) = match answer {
                Ok(answer) => (answer.status().is_success(), answer.json().await.unwrap_or_default()),
                Err(_not_yet) => (false, Value::Null),
            };
            if is_ready && accept(&health) {
                return;
            }
            let ended = self.child.as_mut().expect("it runs").try_wait().expect("a child");
            assert!(ended.is_none(), "{} has ended: {ended:?}", self.role);
            assert!(Instant::now() < deadline, "{} is not ready: {health}", self.role);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts it; at a failpoint, if there is one, it ends itself.
    pub fn spawn(&mut self, failpoint: Option<&str>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagmint"));
        command.arg(self.role).args(["--listen", &format!("127.0.0.1:{}", self.port), "--log-level", "error"]);
        command.args(&self.arguments).env("FLAGMINT_DATA_DIR", &self.directory);
        command.envs(self.settings.iter().chain(&self.besides).map(|(name, value)| (name, value)));
        if let Some(failpoint) = failpoint {
            command.env("FLAGMINT_FAILPOINT", failpoint);
        }
        self.child = Some(command.stdout(Stdio::null()).spawn().expect("flagmint starts"));
    }

    /// Waits until it has ended itself at its failpoint; returns when that was.
    pub async fn crash(&mut self) -> Instant {
        let status = self.wait().await;
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{} at its failpoint: {status}", self.role);
        Instant::now()
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child is ours and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Waits for it to end.
    pub async fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.as_mut().expect("it runs").try_wait().expect("a child") {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not end", self.role);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGKILL; returns when that was.
    pub async fn kill(&mut self) -> Instant {
        self.signal(libc::SIGKILL);
        let death = Instant::now();
        self.wait().await;
        death
    }

    /// SIGTERM, and the drain.
    pub async fn terminate(&mut self) {
        self.signal(libc::SIGTERM);
        assert_eq!(self.wait().await.code(), Some(0), "the drain of {}", self.role);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
