//! `streams [CONNECTIONS]`: opens so many streams and as many sockets to a data plane in a process of its own, and says what a
//! connection costs in memory and when idle, and how long a publish takes to reach the last client.
//!
//! Server and clients share the machine. Each connection has a context of its own and 50 flags; each publish changes every map, and
//! carries its own time, so that clients measure by themselves how old it is when they have it.

#[path = "streams/clients.rs"]
mod clients;
#[path = "streams/server.rs"]
mod server;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// The allocator of the real server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PUBLISHES: usize = 10;
const BETWEEN_PUBLISHES: Duration = Duration::from_secs(2);
/// Long enough for two heartbeats of a stream and a ping of a socket each.
const IDLE: Duration = Duration::from_secs(31);

/// This program in another role, spoken to by lines.
struct Process {
    child: Child,
    says: BufReader<ChildStdout>,
    hears: ChildStdin,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        let mut child =
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program starts");
        let says = BufReader::new(child.stdout.take().expect("piped"));
        let hears = child.stdin.take().expect("piped");
        Self { child, says, hears }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.says.read_line(&mut line).expect("readable") > 0, "the process ended");
        line.trim().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.hears, "{line}").expect("it listens");
        self.line()
    }

    /// Resident memory in kB.
    fn resident_kb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Processor time used so far, seconds.
    fn processor_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        // User and system time, in ticks of 10 ms.
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts[..] {
        ["serve"] => server::run(),
        ["clients", kind, count, address] => clients::run(kind, count.parse().expect("a number"), address),
        [] => measure("9900"),
        [count] => measure(count),
        _ => panic!("usage: streams [CONNECTIONS]"),
    }
}

fn measure(count: &str) {
    let connections: f64 = count.parse().expect("a number of connections");
    let mut server = Process::start(&["serve"]);
    let address = server.line();
    let mut open = Vec::new();
    for kind in ["sse", "websocket"] {
        let before_kb = server.resident_kb();
        let mut clients = Process::start(&["clients", kind, count, &address]);
        let opened = clients.line();
        sleep(Duration::from_secs(2));
        let each_kb = (server.resident_kb() - before_kb) / connections;
        println!("{kind}: {opened}; {each_kb:.1} kB of the server's memory each");
        open.push((kind, clients));
    }
    let (before_s, both) = (server.processor_s(), 2.0 * connections);
    sleep(IDLE);
    let idle_percent = (server.processor_s() - before_s) / IDLE.as_secs_f64() * 100.0;
    println!("idle with {both} open: {idle_percent:.1} % of one core");
    for _ in 0..PUBLISHES {
        server.ask("publish");
        sleep(BETWEEN_PUBLISHES);
    }
    for (kind, clients) in &mut open {
        println!("{kind}: {}", clients.ask("report"));
    }
    println!("after {PUBLISHES} publishes: {:.1} kB each", server.resident_kb() / both);
}
