//! A tenant who knows every id of another one: each is answered as if it did not exist, and nothing changes.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, Sample, text};

/// What the tenant owns, and what it knows of its victim.
struct Known {
    own: Sample,
    victim: Sample,
    segment: String,
    rollout: String,
    key: String,
}

type Attempt = (Method, String, Option<Value>);

/// Ids of the victim in each place of each path.
fn in_paths(known: &Known) -> Vec<Attempt> {
    let (p, e, f) = (&known.victim.project, &known.victim.live, &known.victim.flag);
    let (own, own_e, own_f) = (&known.own.project, &known.own.live, &known.own.flag);
    let get = |path: String| (Method::GET, path, None);
    let post = |path: String, body: Value| (Method::POST, path, Some(body));
    let flag = json!({"name": "f", "type": "boolean"});
    let segment = json!({"name": "s", "logical_op": "AND", "rules": []});
    let conditions = json!([{"attribute": "a", "operator": "exists"}]);
    let rule = json!({"kind": "custom", "conditions": conditions, "variation_id": known.own.variations[0]});
    let off = json!({"strategy": "off"});
    let unchanged = || Some(json!({"updates": []}));
    vec![
        get(format!("/projects/{p}")),
        get(format!("/projects/{p}/environments")),
        get(format!("/projects/{p}/flags")),
        post(format!("/projects/{p}/flags"), flag),
        get(format!("/projects/{p}/flags/{f}")),
        get(format!("/projects/{own}/flags/{f}")),
        get(format!("/projects/{p}/environments/{e}/flags")),
        get(format!("/projects/{own}/environments/{e}/flags")),
        get(format!("/projects/{p}/flags/{f}/variations")),
        get(format!("/projects/{own}/flags/{f}/variations")),
        (Method::PUT, format!("/projects/{p}/flags/{f}/variations"), unchanged()),
        (Method::PUT, format!("/projects/{own}/flags/{f}/variations"), unchanged()),
        get(format!("/projects/{p}/envs/{e}/flags/{f}/targeting-rules")),
        get(format!("/projects/{own}/envs/{e}/flags/{own_f}/targeting-rules")),
        get(format!("/projects/{own}/envs/{own_e}/flags/{f}/targeting-rules")),
        post(format!("/projects/{p}/envs/{e}/flags/{f}/targeting-rules"), rule.clone()),
        post(format!("/projects/{own}/envs/{e}/flags/{own_f}/targeting-rules"), rule.clone()),
        post(format!("/projects/{own}/envs/{own_e}/flags/{f}/targeting-rules"), rule),
        get(format!("/projects/{p}/flags/{f}/environments/{e}/rollouts")),
        get(format!("/projects/{own}/flags/{f}/environments/{own_e}/rollouts")),
        get(format!("/projects/{own}/flags/{own_f}/environments/{e}/rollouts")),
        post(format!("/projects/{p}/flags/{f}/environments/{e}/rollouts"), off.clone()),
        post(format!("/projects/{own}/flags/{own_f}/environments/{e}/rollouts"), off.clone()),
        post(format!("/projects/{own}/flags/{f}/environments/{own_e}/rollouts"), off),
        get(format!("/projects/{p}/segments")),
        post(format!("/projects/{p}/segments"), segment),
        get(format!("/api-keys/{p}")),
        post(format!("/api-keys/{p}"), json!({"name": "k", "environment_id": e})),
        (Method::DELETE, format!("/api-keys/{p}/{}", known.key), None),
        (Method::DELETE, format!("/api-keys/{own}/{}", known.key), None),
    ]
}

/// Ids of the victim in each body that takes one.
fn in_bodies(known: &Known) -> Vec<Attempt> {
    let Known { own, victim, segment, rollout, .. } = known;
    let [foreign, ours] = [&victim.variations[0], &own.variations[0]];
    let conditions = json!([{"attribute": "a", "operator": "exists"}]);
    let stolen = json!({"id": foreign, "key": "k", "name": "k", "type": "boolean", "value": true, "description": null});
    let put = |body: Value| (Method::PUT, own.variations_path(), Some(body));
    let rule = |body: Value| (Method::POST, own.rules(), Some(body));
    let flag = json!({"name": "f", "type": "boolean", "envId": victim.live});
    let key = json!({"name": "k", "environment_id": victim.live});
    vec![
        put(json!({"updates": [], "offVariationId": foreign, "environmentId": own.live})),
        put(json!({"updates": [], "offVariationId": null, "environmentId": victim.live})),
        put(json!({"updates": [], "offVariationId": ours, "environmentId": victim.live})),
        put(json!({"updates": [], "deletedIds": [foreign]})),
        put(json!({"updates": [stolen]})),
        rule(json!({"kind": "custom", "conditions": conditions, "variation_id": foreign})),
        rule(json!({"kind": "custom", "conditions": conditions, "rollout_id": rollout})),
        rule(json!({"kind": "segment", "segment_id": segment, "variation_id": ours})),
        (Method::POST, format!("/projects/{}/flags", own.project), Some(flag)),
        (Method::POST, format!("/api-keys/{}", own.project), Some(key)),
    ]
}

#[tokio::test]
async fn ids_of_another_organization_do_not_exist() {
    let mut api = Api::start().await;
    let victim = api.sample("boolean").await;
    let segment = api.made(&victim.segments(), json!({"name": "s", "logical_op": "AND", "rules": []})).await;
    let rollout = api.made(&victim.rollouts(), json!({"strategy": "off"})).await;
    let key = json!({"name": "k", "environment_id": victim.live});
    let key = api.made(&format!("/api-keys/{}", victim.project), key).await;
    let [segment, rollout, key] = [segment, rollout, key].map(|thing| text(&thing["id"]));

    api.token = api.other_organization().await;
    let known = Known { own: api.sample("boolean").await, victim, segment, rollout, key };
    let before = (api.snapshot(&known.victim.live).await, api.snapshot(&known.own.live).await);
    let rows = "SELECT (SELECT count(*) FROM audit_entries) + (SELECT count(*) FROM api_keys WHERE revoked_at IS NULL)";
    let rows_before: i64 = api.one(rows).await;
    for (method, path, body) in in_paths(&known).into_iter().chain(in_bodies(&known)) {
        let (status, reply) = api.send(method.clone(), &api.token, &path, body.as_ref()).await;
        assert_eq!((status, &reply["error"]), (404, &json!("not_found")), "{method} {path} {body:?}");
    }
    assert_eq!((api.snapshot(&known.victim.live).await, api.snapshot(&known.own.live).await), before);
    assert_eq!(api.one::<i64>(rows).await, rows_before);
    assert_eq!(api.got("/projects").await["meta"]["total"], json!(1));
    // A variation of others in a rollout is one the flag does not have: a failed check, as for any unknown id.
    let variants = json!([{"variation_id": known.victim.variations[0], "weight": 100}]);
    let body = json!({"strategy": "variant", "variants": variants});
    assert_eq!(api.refused(Method::POST, &known.own.rollouts(), &body).await, ["variants[0].variation_id"]);
}
