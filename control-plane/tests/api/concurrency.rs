//! Many writers at once: no version is skipped or used twice, and the last snapshot has everything.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::json;

use crate::support::{Api, notified, text};

const WRITERS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writes_are_all_in_the_last_snapshot() {
    let api = Api::start().await;
    let sample = api.sample("boolean").await;
    let mut listener = api.listen("flagmint_config").await;
    let conditions = json!([{"attribute": "a", "operator": "exists"}]);
    let rule = json!({"kind": "custom", "conditions": conditions, "variation_id": sample.variations[0]});
    let off = json!({"strategy": "off"});
    let paths = [sample.rules(), sample.rollouts()];
    let sends = (0..WRITERS).map(|writer| {
        let (path, body) = if writer % 2 == 0 { (&paths[0], &rule) } else { (&paths[1], &off) };
        api.send(Method::POST, &api.token, path, Some(body))
    });
    let mut made = HashSet::new();
    for (status, reply) in join_all(sends).await {
        assert_eq!(status, 201, "{reply}");
        made.insert(text(&reply["data"]["id"]));
    }
    let (version, compiled) = api.snapshot(&sample.live).await;
    assert_eq!(version, 2 + WRITERS as i64);
    let flag = &compiled["flags"][0];
    let rules = flag["targeting_rules"].as_array().unwrap().iter().map(|rule| text(&rule["id"]));
    let published: HashSet<String> = rules.chain(flag["rollouts"].as_object().unwrap().keys().cloned()).collect();
    assert_eq!(published, made);
    for _ in 0..WRITERS {
        assert_eq!(notified(&mut listener).await, sample.live);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_slot_of_a_plan_is_given_once() {
    let api = Api::start().await;
    let project = text(&api.project("a").await["id"]);
    api.use_plan("Free").await;
    let path = format!("/projects/{project}/flags");
    let body = json!({"name": "f", "type": "boolean"});
    let replies = join_all((0..WRITERS).map(|_| api.send(Method::POST, &api.token, &path, Some(&body)))).await;
    let mut statuses: Vec<u16> = replies.iter().map(|(status, _)| *status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [[201; 5].as_slice(), [403; WRITERS - 5].as_slice()].concat());
    let keys: i64 = api.one("SELECT count(DISTINCT key) FROM flags").await;
    assert_eq!(keys, 5);
}

/// A project made while an attribute becomes private: whichever is first, its environments know in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn projects_made_meanwhile_know_what_is_private() {
    let api = Api::start().await;
    let bodies: Vec<_> = (0..WRITERS)
        .map(|writer| {
            if writer % 2 == 0 {
                ("/projects", json!({"name": "p", "projectKey": format!("p{writer}")}))
            } else {
                (
                    "/api/attributes",
                    json!({"key": format!("custom.a{writer:02}"), "label": "a", "type": "string", "category": "custom",
                "operators": ["eq"], "private": true}),
                )
            }
        })
        .collect();
    let sends = bodies.iter().map(|(path, body)| api.send(Method::POST, &api.token, path, Some(body)));
    for (status, reply) in join_all(sends).await {
        assert_eq!(status, 201, "{reply}");
    }
    let expected: Vec<String> = (0..WRITERS).skip(1).step_by(2).map(|writer| format!("custom.a{writer:02}")).collect();
    let known: Vec<Vec<String>> =
        sqlx::query_scalar("SELECT private_attributes FROM environment_snapshots").fetch_all(&api.pool).await.unwrap();
    assert_eq!(known, vec![expected; WRITERS]);
}

/// Awaits all at once, in the order given.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut waiting {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
        }
        if waiting.iter().all(|(_, output)| output.is_some()) {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}
