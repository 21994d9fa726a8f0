//! Two runtimes: one answers requests, the other does everything else, so that a fold, a publish or a question about last month is
//! never in front of a request for flags in one thread's queue.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Router, http::StatusCode, response::IntoResponse as _};
use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinError, JoinSet};

use crate::exit::Failure;

/// How long tasks that did not end by themselves are waited for.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// The greatest niceness there is.
const NICENESS_MAX: i32 = 19;

/// Both runtimes of a process.
pub struct Runtimes {
    requests: Runtime,
    background: Runtime,
}

impl Runtimes {
    /// Starts them. Where both have work for one core, `background_niceness` says how much the background steps back: 0 for not at
    /// all, each step for a fifth less of the core.
    ///
    /// # Errors
    /// If no threads can be had.
    pub fn start(background_niceness: i32) -> Result<Self, Failure> {
        let failure = |error| Failure::resource("runtime", error);
        let requests = Builder::new_multi_thread().thread_name("requests").enable_all().build().map_err(failure)?;
        let background = Builder::new_multi_thread()
            .thread_name("background")
            .on_thread_start(move || step_back(background_niceness))
            .enable_all()
            .build()
            .map_err(failure)?;
        Ok(Self { requests, background })
    }

    /// Runs `work` in the background, with the runtime for requests at hand.
    pub fn block_on<F: Future>(&self, work: impl FnOnce(Handle) -> F) -> F::Output {
        self.background.block_on(work(self.requests.handle().clone()))
    }

    /// Ends both.
    pub fn shut_down(self) {
        self.requests.shutdown_timeout(SHUTDOWN_MAX);
        self.background.shutdown_timeout(SHUTDOWN_MAX);
    }
}

/// Lets the calling thread, and what it starts, step back. That is allowed to everybody; a system that refuses it is only less smooth.
pub fn step_back(niceness: i32) {
    if niceness > 0 {
        // To Linux, no process at all is the calling thread.
        let now = getpriority_process(None).unwrap_or_default();
        let _ = setpriority_process(None, (now + niceness).min(NICENESS_MAX));
        wait_for_a_turn();
    }
}

/// When something wakes the calling thread, it does not take the place of who is running: once it has it, it would keep it until the next
/// tick of the kernel, 4 ms on many systems.
fn wait_for_a_turn() {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel only reads the structure; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority) };
}

/// The same routes, answered by `runtime` instead of the one that reads requests; given up with the connection.
pub fn answered_by(runtime: Handle, router: Router) -> Router {
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        // A set of one, because dropping a set ends its tasks.
        let mut answer = JoinSet::new();
        answer.spawn_on(next.run(request), &runtime);
        async move { answer.join_next().await.expect("it has a task").unwrap_or_else(unanswered) }
    }))
}

/// A panic goes on where it would have gone without the other runtime.
fn unanswered(error: JoinError) -> Response {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_cancelled) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    async fn whereabouts() -> String {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        // SAFETY: it only tells how the calling thread is scheduled.
        let is_batch = unsafe { libc::sched_getscheduler(0) } == libc::SCHED_BATCH;
        format!("{name} {} {is_batch}", getpriority_process(None).unwrap())
    }

    async fn ask(router: Router, path: &str) -> String {
        let reply = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let body = axum::body::to_bytes(reply.into_body(), 1000).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn routes_are_answered_where_they_belong() {
        let own = getpriority_process(None).unwrap();
        let runtimes = Runtimes::start(3).unwrap();
        runtimes.block_on(async |requests| {
            let behind = Router::new().route("/behind", get(whereabouts));
            let behind = answered_by(Handle::current(), behind);
            let router = Router::new().route("/ahead", get(whereabouts)).merge(behind);
            let [ahead, behind] = ["/ahead", "/behind"].map(|path| requests.spawn(ask(router.clone(), path)));
            assert_eq!(ahead.await.unwrap(), format!("requests {own} false"));
            assert_eq!(behind.await.unwrap(), format!("background {} true", (own + 3).min(NICENESS_MAX)));
        });
        runtimes.shut_down();
    }

    #[test]
    fn a_panic_stays_with_the_request() {
        let runtimes = Runtimes::start(0).unwrap();
        runtimes.block_on(async |requests| {
            async fn panics() {
                panic!("planted");
            }
            let router = answered_by(Handle::current(), Router::new().route("/", get(panics)));
            let error = requests.spawn(ask(router, "/")).await.unwrap_err();
            assert_eq!(error.into_panic().downcast_ref(), Some(&"planted"));
        });
        runtimes.shut_down();
    }
}
