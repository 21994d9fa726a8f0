//! OBS-1.

use flagmint_schemas::ids::{EnvironmentId, OrganizationId, ProjectId};
use flagmint_schemas::rollup::{Cell, ContextCell, Table};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::analytics::us;
use crate::support::events::{DAY_US, floor};
use crate::support::{World, emit, ids, postgres};

const PATH: &str = "/contexts/observed-contexts";

/// A context as seen on one day.
fn seen(environment: Uuid, kind: &str, key: &str, source: &str, time: &str, attributes: &Value) -> ContextCell {
    let time_us = us(time);
    let sdk = json!({"name": "js", "version": "2.2.0", "platform": "browser", "wrapper": null});
    let profile = format!("{time_us:016x}{}", json!({"attributes": attributes, "omitted": 2, "sdk": sdk}));
    ContextCell {
        organization: OrganizationId(ids::ORGANIZATION),
        project: ProjectId(ids::PROJECT),
        environment: EnvironmentId(environment),
        kind: kind.to_owned(),
        key: key.to_owned(),
        source: source.to_owned(),
        time_us: floor(time_us, DAY_US),
        epoch: 1,
        partition: 0,
        chunk: 0,
        evaluations: 3,
        first_seen_us: time_us,
        last_seen_us: time_us,
        profile,
    }
}

fn pseudonym(kind: &str, text: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&postgres::pseudonym_key()).unwrap();
    mac.update(format!("{kind}\0{text}").as_bytes());
    format!("p1_{}", &hex::encode(mac.finalize().into_bytes())[..32])
}

/// Alice on two days and by two sources, Bob, an organization, and one seen too long ago.
async fn world(seed: u64) -> World {
    let world = World::new(seed).await;
    let alice = pseudonym("user", "alice@example.com");
    let plan = |plan: &str| json!({"plan": plan, "age": 42});
    let cells = [
        seen(ids::LIVE, "user", &alice, "SDK", "2026-03-12T08:00:00Z", &plan("free")),
        seen(ids::LIVE, "user", &alice, "API", "2026-03-14T09:00:00Z", &plan("Pro \"plus\"")),
        seen(ids::LIVE, "user", "p1_bob", "SDK", "2026-03-13T00:00:00Z", &plan("basic")),
        seen(
            ids::STAGING,
            "organization",
            &pseudonym("organization", "acme"),
            "SDK",
            "2026-03-11T00:00:00Z",
            &json!({}),
        ),
        seen(ids::LIVE, "user", "p1_gone", "SDK", "2026-02-13T23:00:00Z", &plan("pro")),
    ];
    emit(&world.store, vec![(Table::Contexts, ContextCell::to_batch(&cells))]).await;
    world
}

fn keys(data: &Value) -> Vec<&str> {
    data["data"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn contexts_are_merged_and_newest_first() {
    let world = world(30).await;
    let data = world.data(PATH).await;
    let (alice, acme) = (pseudonym("user", "alice@example.com"), pseudonym("organization", "acme"));
    assert_eq!(keys(&data), [&*alice, "p1_bob", &acme]);
    assert_eq!(data["meta"], json!({"total": 3, "page": 1, "pageCount": 1}));
    let mut first = data["data"][0].clone();
    let id: Uuid = first["id"].take().as_str().unwrap().parse().unwrap();
    assert_eq!(id.get_version_num(), 8);
    assert_eq!(
        first,
        json!({"id": null, "environment_id": ids::LIVE, "kind": "user", "key": alice,
            "attributes": {"plan": "Pro \"plus\"", "age": 42}, "attributes_omitted": 2, "source": "API",
            "sdk": {"name": "js", "version": "2.2.0", "platform": "browser", "wrapper": null},
            "first_seen_at": "2026-03-12T08:00:00.000Z", "last_seen_at": "2026-03-14T09:00:00.000Z", "evaluations": 6})
    );
}

#[tokio::test]
async fn contexts_are_found_by_every_member() {
    let world = world(31).await;
    let (alice, acme) = (pseudonym("user", "alice@example.com"), pseudonym("organization", "acme"));
    let check = async |query: &str, expected: &[&str], total: u64| {
        let data = world.data(&format!("{PATH}?{query}")).await;
        assert_eq!((keys(&data), &data["meta"]["total"]), (expected.to_vec(), &json!(total)), "{query}");
    };
    check("limit=1&page=2", &["p1_bob"], 3).await;
    check("limit=1&page=1&offset=2", &[&acme], 3).await;
    check("offset=9", &[], 3).await;
    check("sortBy=first_seen_at&sortDirection=asc", &[&acme, &alice, "p1_bob"], 3).await;
    check("sortBy=evaluations&limit=1", &[&alice], 3).await;
    check("kind=organization", &[&acme], 1).await;
    check("source=API", &[&alice], 1).await;
    check("source=SDK", &["p1_bob", &alice, &acme], 3).await;
    check(&format!("environment_id={}", ids::STAGING), &[&acme], 1).await;
    check(&format!("project_id={}", ids::PROJECT), &[&alice, "p1_bob", &acme], 3).await;
    check(&format!("project_id={}", ids::EMPTY_PROJECT), &[], 0).await;
    check("from=2026-03-13&to=2026-03-13", &["p1_bob"], 1).await;
    check("from=2026-01-01&to=2026-02-01", &[], 0).await;
    // Raw keys, values in any case, numbers, texts that JSON escapes; no names and nothing of the client library.
    check("q=alice%40example.com", &[&alice], 1).await;
    check("q=acme", &[&acme], 1).await;
    check("q=BASIC", &["p1_bob"], 1).await;
    check("q=BOB", &["p1_bob"], 1).await;
    check("q=42", &[&alice, "p1_bob"], 2).await;
    check("q=o+%22PLUS", &[&alice], 1).await;
    check("q=free", &[], 0).await;
    check("q=browser", &[], 0).await;
    check("q=plan", &[], 0).await;
    check("q=%25", &[], 0).await;
    check("q=p1_&limit=1&offset=1", &["p1_bob"], 3).await;
    check("q=p1_&sortBy=last_seen_at&sortDirection=asc&limit=1", &[&acme], 3).await;
    check("q=", &[&alice, "p1_bob", &acme], 3).await;
}
