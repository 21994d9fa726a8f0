//! Raw keys and private attributes are neither in the log nor in the spool.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_secrets_are_not_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let recorder = Recorder::start(Arc::clone(&log), settings(directory.path())).unwrap();
    let redactor = ContextRedactor::new([3; 32], false).with_key_number(7);
    let environment = recorder.environment(identity(0), outcomes(20), redactor);
    let secrets = ["planted-key-5f1", "planted@example.com", "planted-org-7"];
    for _ in 0..200 {
        let call = recorder.begin();
        let context = observed(
            &environment,
            json!({"kind": "multi", "user": {"key": secrets[0], "email": secrets[1]}, "organization": {"key": secrets[2]}}),
        );
        assert!(environment.record(CallFacts { context: Some(&context), ..facts(call.received_us()) }, &[(0, 1)]));
    }
    recorder.drain().await.unwrap();
    for (header, _, record) in read_all(&log).await {
        assert_eq!(header.pseudonym_key, if header.is_heartbeat() { 0 } else { 7 }, "under which key is said");
        for secret in secrets {
            let is_found = record.payload.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_found, "{secret} is in the log");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_spool_names_nobody_without_the_opt_in() {
    const MARK: &str = "pl4nted";
    for log_raw in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        let short = Settings { drain_timeout: Duration::from_millis(50), ..settings(directory.path()) };
        let recorder = Recorder::start(Arc::clone(&log), short).unwrap();
        let redactor = ContextRedactor::new([3; 32], log_raw);
        let environment = recorder.environment(identity(0), outcomes(20), redactor);
        let context = observed(
            &environment,
            json!({ "kind": "user", "key": MARK, "email": format!("{MARK}@example.com"), "plan": "pro" }),
        );
        log.gate.send_replace(Gate::Stalled);
        eventually("spooled", || {
            let call = recorder.begin();
            let facts = CallFacts { context: Some(&context), ..facts(call.received_us()) };
            assert!(environment.record(facts, &[(1, DecisionRow::NO_BUCKET)]));
            recorder.stats().spool_bytes > 0
        })
        .await;
        recorder.drain().await.unwrap();
        let bytes = spooled(directory.path());
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(has("pro"), "the context is there");
        assert_eq!(has(MARK), log_raw);
    }
}
