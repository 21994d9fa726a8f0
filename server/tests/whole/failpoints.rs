//! A process that is armed to crash at a step of the fold does so there, and loses nothing by it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use crate::support::{Person, Place, Shop, flagmint, machine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_a_step_of_the_fold_changes_no_number() {
    let _alone = machine().await;
    let place = Place::new().await;
    let server = place.start();
    let person = Person::sign_in(&server.url).await;
    let shop = Shop::open(&person).await;
    let mut answered = shop.wait_until_served(&person.http, &server.url).await;
    drop(server);
    for step in
        ["after_open:1", "before_read:1", "after_fold:1", "before_insert:1", "after_insert:1", "after_insert:20"]
    {
        let mut command = flagmint(&place.data_dir());
        command.args(["--postgres", &place.database]).env("FLAGMINT_FAILPOINT", step);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a start");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line, or the end");
        // What the log holds is folded before it serves, so most steps are met before that.
        if let Some(url) = line.trim().rsplit(' ').next().filter(|url| url.starts_with("http://")) {
            while let Ok((200, _)) = shop.evaluate(&person.http, url, "somebody").await {
                answered += 1;
            }
        }
        assert_eq!(child.wait().expect("a child").signal(), Some(libc::SIGABRT), "{step}");
    }
    let mut server = place.start();
    let person = Person::sign_in(&server.url).await;
    let reconciliation = person.get("/audit/reconciliation").await["data"].clone();
    assert_eq!(reconciliation["holds"], true, "{reconciliation}");
    let totals = &reconciliation["totals"];
    assert_eq!(totals["produced"], totals["counted"], "{totals}");
    assert!(totals["counted"].as_u64() <= Some(answered), "{answered} were answered: {totals}");
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}
