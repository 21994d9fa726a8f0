//! A tenant who knows every id of another one: each is answered as if it did not exist, and nothing changes.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, text};

#[tokio::test]
async fn ids_of_another_organization_do_not_exist() {
    let api = Api::start().await;
    let victim = api.sample("boolean").await;
    let segment = json!({"name": "s", "logical_op": "AND", "rules": []});
    let segment_id = text(&api.made(&victim.segments(), segment.clone()).await["id"]);
    let rollout_id = text(&api.made(&victim.rollouts(), json!({"strategy": "off"})).await["id"]);
    let key = json!({"name": "k", "environment_id": victim.live});
    let key_id = text(&api.made(&format!("/api-keys/{}", victim.project), key.clone()).await["id"]);

    let token = api.other_organization().await;
    let send = async |method: Method, path: &str, body: Option<&Value>| api.send(method, &token, path, body).await;
    let (_, own) = send(Method::POST, "/projects", Some(&json!({"name": "o", "projectKey": "o"}))).await;
    let (own_id, own_live) = (text(&own["data"]["id"]), text(&own["data"]["environments"][0]["id"]));
    let flag = json!({"name": "f", "type": "boolean"});
    let (_, own_flag) = send(Method::POST, &format!("/projects/{own_id}/flags"), Some(&flag)).await;
    let own_flag = text(&own_flag["data"]["id"]);
    let before = (api.snapshot(&victim.live).await, api.snapshot(&own_live).await);

    let (p, e, f) = (&victim.project, &victim.live, &victim.flag);
    let conditions = json!([{"attribute": "a", "operator": "exists"}]);
    let rule = json!({"kind": "custom", "conditions": conditions, "variation_id": victim.variations[0]});
    let rollout = json!({"strategy": "off"});
    let variations = json!({"updates": []});
    let own_rules = format!("/projects/{own_id}/envs/{own_live}/flags/{own_flag}/targeting-rules");
    let off = json!({"updates": [], "offVariationId": victim.variations[0], "environmentId": own_live});
    let environment = json!({"updates": [], "offVariationId": null, "environmentId": victim.live});
    let deleted = json!({"updates": [], "deletedIds": [victim.variations[0]]});
    let stolen = json!({"updates": [{"id": victim.variations[0], "key": "k", "name": "k", "type": "boolean",
        "value": true, "description": null}]});
    let attempts: Vec<(Method, String, Option<Value>)> = vec![
        (Method::GET, format!("/projects/{p}"), None),
        (Method::GET, format!("/projects/{p}/environments"), None),
        (Method::GET, format!("/projects/{p}/flags"), None),
        (Method::POST, format!("/projects/{p}/flags"), Some(flag.clone())),
        (Method::GET, format!("/projects/{p}/flags/{f}"), None),
        (Method::GET, format!("/projects/{own_id}/flags/{f}"), None),
        (Method::GET, format!("/projects/{p}/environments/{e}/flags"), None),
        (Method::GET, format!("/projects/{own_id}/environments/{e}/flags"), None),
        (Method::GET, format!("/projects/{p}/flags/{f}/variations"), None),
        (Method::PUT, format!("/projects/{p}/flags/{f}/variations"), Some(variations.clone())),
        (Method::PUT, format!("/projects/{own_id}/flags/{f}/variations"), Some(variations)),
        (Method::PUT, format!("/projects/{own_id}/flags/{own_flag}/variations"), Some(off)),
        (Method::PUT, format!("/projects/{own_id}/flags/{own_flag}/variations"), Some(environment)),
        (Method::PUT, format!("/projects/{own_id}/flags/{own_flag}/variations"), Some(deleted)),
        (Method::PUT, format!("/projects/{own_id}/flags/{own_flag}/variations"), Some(stolen)),
        (Method::GET, format!("/projects/{p}/envs/{e}/flags/{f}/targeting-rules"), None),
        (Method::GET, format!("/projects/{own_id}/envs/{e}/flags/{own_flag}/targeting-rules"), None),
        (Method::GET, format!("/projects/{own_id}/envs/{own_live}/flags/{f}/targeting-rules"), None),
        (Method::POST, format!("/projects/{p}/envs/{e}/flags/{f}/targeting-rules"), Some(rule.clone())),
        (Method::POST, format!("/projects/{own_id}/envs/{e}/flags/{own_flag}/targeting-rules"), Some(rule.clone())),
        (Method::POST, own_rules.clone(), Some(rule)),
        (
            Method::POST,
            own_rules.clone(),
            Some(json!({"kind": "custom", "conditions": conditions, "rollout_id": rollout_id})),
        ),
        (
            Method::POST,
            own_rules,
            Some(json!({"kind": "segment", "segment_id": segment_id, "variation_id": victim.variations[0]})),
        ),
        (Method::GET, format!("/projects/{p}/flags/{f}/environments/{e}/rollouts"), None),
        (Method::POST, format!("/projects/{p}/flags/{f}/environments/{e}/rollouts"), Some(rollout.clone())),
        (Method::POST, format!("/projects/{own_id}/flags/{own_flag}/environments/{e}/rollouts"), Some(rollout.clone())),
        (Method::POST, format!("/projects/{own_id}/flags/{f}/environments/{own_live}/rollouts"), Some(rollout)),
        (Method::GET, format!("/projects/{p}/segments"), None),
        (Method::POST, format!("/projects/{p}/segments"), Some(segment)),
        (Method::GET, format!("/api-keys/{p}"), None),
        (Method::POST, format!("/api-keys/{p}"), Some(key.clone())),
        (Method::POST, format!("/api-keys/{own_id}"), Some(key)),
        (Method::DELETE, format!("/api-keys/{p}/{key_id}"), None),
        (Method::DELETE, format!("/api-keys/{own_id}/{key_id}"), None),
    ];
    for (method, path, body) in attempts {
        let (status, reply) = send(method.clone(), &path, body.as_ref()).await;
        assert_eq!((status, &reply["error"]), (404, &json!("not_found")), "{method} {path} {body:?}");
    }
    assert_eq!((api.snapshot(&victim.live).await, api.snapshot(&own_live).await), before);
    let listed = send(Method::GET, "/projects", None).await.1;
    assert_eq!(listed["data"]["meta"]["total"], json!(1));
    // A variation of others in a rollout is one the flag does not have: a failed check, as for any unknown id.
    let variants = json!({"strategy": "variant", "variants": [{"variation_id": victim.variations[0], "weight": 100}]});
    let path = format!("/projects/{own_id}/flags/{own_flag}/environments/{own_live}/rollouts");
    assert_eq!(send(Method::POST, &path, Some(&variants)).await.0, 400);
}
