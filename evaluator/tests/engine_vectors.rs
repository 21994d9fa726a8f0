//! The shared test vectors of the evaluator, those that every Flagmint client is held to as well.

use flagmint_evaluator::engine::{
    CompiledEnvironment, Context, Decision, FlagType, Scratch, bucket, coerce, evaluate_flag_line, evaluate_line,
    gradual_percentage, hash, timestamp_us,
};
use serde_json::{Map, Value, json};

const VECTORS: &str = include_str!("../../schemas/fixtures/evaluation.json");
const RANDOM: &str = include_str!("../../schemas/fixtures/random.jsonl");

fn list(name: &str) -> Vec<Value> {
    let vectors: Value = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    vectors[name].as_array().cloned().expect("a list of vectors")
}

fn evaluations() -> Vec<Value> {
    let random = RANDOM.lines().map(|line| serde_json::from_str(line).expect("a vector a line"));
    let evaluations: Vec<Value> = list("evaluations").into_iter().chain(random).collect();
    assert!(evaluations.len() > 900, "{} evaluations", evaluations.len());
    evaluations
}

/// JSON equality with numbers by value, and never a boolean equal to a number.
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_equal(a, b)))
        }
        _ => a == b,
    }
}

fn now_us(vector: &Value) -> i64 {
    vector.get("now").map_or(0, |now| now.as_str().and_then(timestamp_us).expect("an ISO-8601 time"))
}

fn segments(vector: &Value) -> Map<String, Value> {
    vector.get("segments").map_or_else(Map::new, |segments| segments.as_object().cloned().expect("segments by id"))
}

/// What a vector expects, made from a decision.
fn report(environment: &CompiledEnvironment, decision: Decision) -> Value {
    let outcome = environment.outcome(decision.outcome);
    json!({
        "value": outcome.value,
        "reason": outcome.reason.as_str(),
        "error_code": outcome.error_code.map(|code| code.as_str()),
        "exit": outcome.exit.as_str(),
        "variation_id": outcome.variation_id,
        "rule_id": outcome.rule_id,
        "rollout_id": outcome.rollout_id,
        "bucket": decision.bucket,
    })
}

#[test]
fn hashes_and_buckets() {
    for vector in list("hash") {
        let input = vector["input"].as_str().expect("a text");
        assert_eq!(u64::from(hash(input)), vector["hash"], "{input:?}");
        assert_eq!(u64::from(bucket(hash(input))), vector["bucket"], "{input:?}");
    }
}

#[test]
fn coercions() {
    for vector in list("coercions") {
        let flag_type = vector["type"].as_str().and_then(FlagType::from_name).expect("a known type");
        let coerced = coerce(vector.get("input"), flag_type);
        assert!(is_equal(&coerced.value, &vector["output"]), "{vector}: {coerced:?}");
        assert_eq!(Some(coerced.replaced), vector["replaced"].as_bool(), "{vector}");
    }
}

#[test]
fn gradual_percentages() {
    for vector in list("gradual") {
        let rollout = vector["rollout"].as_object().expect("a rollout");
        assert_eq!(gradual_percentage(rollout, now_us(&vector)), vector["percentage"].as_f64(), "{vector}");
    }
}

#[test]
fn evaluations_one_flag_at_a_time() {
    for vector in evaluations() {
        let environment = CompiledEnvironment::compile(std::slice::from_ref(&vector["flag"]), &segments(&vector));
        let context = Context::from_value(vector["context"].clone()).expect("a valid context");
        let decision = environment.decide(0, &context, now_us(&vector));
        let report = report(&environment, decision);
        assert!(is_equal(&report, &vector["expected"]), "{vector:#}\ndecided {report:#}");
        let served: Value = serde_json::from_str(&environment.outcome(decision.outcome).value_json).expect("JSON");
        assert!(is_equal(&served, &vector["expected"]["value"]), "served {served}, expected {vector:#}");
    }
}

/// All flags at once, each beside 40 copies of it so that hashes share lanes, and with a scratch used before.
#[test]
fn evaluations_all_flags_at_once() {
    let mut scratch = Scratch::default();
    for vector in evaluations() {
        let flags = vec![vector["flag"].clone(); 41];
        let environment = CompiledEnvironment::compile(&flags, &segments(&vector));
        let context = Context::from_value(vector["context"].clone()).expect("a valid context");
        let decisions = environment.decide_all(&context, now_us(&vector), &mut scratch);
        assert_eq!(decisions.len(), flags.len());
        for (flag, decision) in decisions.iter().enumerate() {
            assert_eq!(environment.outcome(decision.outcome).flag, flag);
            let report = report(&environment, *decision);
            assert!(is_equal(&report, &vector["expected"]), "{vector:#}\ndecided {report:#}");
        }
    }
}

/// Different flags in one environment: shared conditions, groups and lanes must not mix them up.
#[test]
fn an_environment_decides_as_its_flags_alone() {
    let vectors = evaluations();
    let mut scratch = Scratch::default();
    for chunk in vectors.chunks(60) {
        let flags: Vec<Value> = chunk.iter().map(|vector| vector["flag"].clone()).collect();
        let segments = segments(&chunk[0]);
        let environment = CompiledEnvironment::compile(&flags, &segments);
        for vector in chunk {
            let context = Context::from_value(vector["context"].clone()).expect("a valid context");
            let now_us = now_us(vector);
            let together = environment.decide_all(&context, now_us, &mut scratch);
            for (index, flag) in flags.iter().enumerate() {
                let alone = CompiledEnvironment::compile(std::slice::from_ref(flag), &segments);
                let expected = report(&alone, alone.decide(0, &context, now_us));
                assert_eq!(report(&environment, together[index]), expected);
                assert_eq!(environment.decide(index, &context, now_us), together[index]);
            }
        }
    }
}

#[test]
fn lines_of_the_command() {
    for vector in evaluations() {
        let mut input = vector.as_object().cloned().expect("a vector");
        let expected = input.swap_remove("expected").expect("an expectation");
        let line = evaluate_line(&Value::Object(input.clone()).to_string(), 0).expect("a usable line");
        assert!(is_equal(&serde_json::from_str(&line).expect("JSON"), &expected), "{vector:#}\n{line}");
        input.insert("key".to_owned(), input["flag"]["key"].clone());
        let environment = CompiledEnvironment::compile(&[input["flag"].clone()], &segments(&vector));
        let same = evaluate_flag_line(&environment, &Value::Object(input).to_string(), 0);
        assert_eq!(same.as_deref(), Ok(line.as_str()));
    }
}

#[test]
fn unusable_lines_say_why() {
    let environment = CompiledEnvironment::default();
    let table = [
        ("{", "not readable JSON"),
        ("[]", "not an object"),
        ("{}", "\"flag\" is missing"),
        (r#"{"flag":{},"context":[]}"#, "the context is not an object"),
        (r#"{"flag":{},"segments":[]}"#, "\"segments\" is not an object"),
        (r#"{"flag":{},"now":"soon"}"#, "\"now\" is not an ISO-8601 time"),
    ];
    for (line, expected) in table {
        let error = evaluate_line(line, 0).expect_err("an unusable line");
        assert!(error.contains(expected), "{line}: {error}");
    }
    for (line, expected) in [("{}", "\"key\" is missing"), (r#"{"key":"x"}"#, "no flag has the key \"x\"")] {
        let error = evaluate_flag_line(&environment, line, 0).expect_err("an unusable line");
        assert!(error.contains(expected), "{line}: {error}");
    }
}
